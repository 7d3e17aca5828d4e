"""Self-attention against the equations of SAGAN, and where a network has it."""

import pytest
import torch
from torch import nn

from pokegan.errors import ConfigError
from pokegan.networks.attention import SelfAttention, attention_depth
from pokegan.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from pokegan.networks.resnet import ResNetDiscriminator, ResNetGenerator

MAPS = torch.randn(2, 16, 4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.double)


def layer(pooled: bool, gamma: float) -> SelfAttention:
    torch.manual_seed(3)
    attention = SelfAttention(16, pooled).double()
    nn.init.constant_(attention.gamma, gamma)
    return attention


@pytest.mark.parametrize("pooled", [False, True])
def test_attention_equals_the_papers_equations(pooled: bool) -> None:
    attention = layer(pooled, 0.7)
    f, g, h = (
        torch.einsum("kc,ncyx->nkyx", getattr(attention, name).weight[:, :, 0, 0], MAPS)
        for name in "fgh"
    )
    assert f.shape[1] == g.shape[1] == h.shape[1] == 2  # an eighth of the channels
    if pooled:  # the largest of each 2x2, without a pooling function
        f, h = (x.unflatten(3, (3, 2)).unflatten(2, (2, 2)).amax((3, 5)) for x in (f, h))
    s = torch.einsum("nki,nkj->nij", f.flatten(2), g.flatten(2))
    beta = s.exp() / s.exp().sum(1, keepdim=True)
    o = torch.einsum("ck,nki,nij->ncj", attention.v.weight[:, :, 0, 0], h.flatten(2), beta)
    expected = 0.7 * o.view(MAPS.shape) + MAPS
    torch.testing.assert_close(attention(MAPS), expected)
    channels_last = MAPS.to(memory_format=torch.channels_last)
    torch.testing.assert_close(attention(channels_last), expected)


def test_a_new_layer_is_the_identity_and_learns_its_gain_first() -> None:
    attention = SelfAttention(16).double()
    assert torch.equal(attention(MAPS), MAPS)
    attention(MAPS).square().sum().backward()
    assert attention.gamma.grad.abs() > 0
    assert attention.v.weight.grad.abs().max() == 0


def test_gradients_of_first_and_second_order_are_right() -> None:
    attention = layer(pooled=True, gamma=0.7)
    maps = MAPS[:1, :, :2, :4].clone().requires_grad_()
    assert torch.autograd.gradcheck(attention, maps)
    assert torch.autograd.gradgradcheck(attention, maps)


@pytest.mark.parametrize(
    ("network", "inputs", "channels", "side"),
    [
        (DCGANGenerator(32, 5, (64, 32, 16), attention=8), (2, 5), 32, 8),
        (DCGANDiscriminator(32, (16, 32, 64), attention=8), (2, 3, 32, 32), 32, 8),
        (ResNetGenerator(32, 5, (64, 32, 16), attention=4), (2, 5), 64, 4),
        (ResNetGenerator(32, 5, (64, 32, 16), attention=16), (2, 5), 32, 16),
        (ResNetGenerator(32, 5, (64, 32, 16), attention=32), (2, 5), 16, 32),
        (ResNetDiscriminator(32, (16, 32, 64), attention=8), (2, 3, 32, 32), 32, 8),
    ],
)
def test_attention_sits_at_the_side_that_was_asked_for(network, inputs, channels, side) -> None:
    (attention,) = (m for m in network.modules() if isinstance(m, SelfAttention))
    sides: list[int] = []
    attention.register_forward_hook(lambda module, x, y: sides.append(y.shape[3]))
    network(torch.randn(inputs))
    assert attention.g.in_channels == channels
    assert sides == [side]


def test_the_first_layer_of_that_side_has_it() -> None:
    assert attention_depth(16, [32, 16, 16, 8]) == 1
    assert attention_depth(0, [32, 16]) == -1


@pytest.mark.parametrize(
    "kind", [DCGANGenerator, DCGANDiscriminator, ResNetGenerator, ResNetDiscriminator]
)
@pytest.mark.parametrize("attention", [-1, 2, 20, 128])
def test_a_side_that_no_map_has_is_refused(kind: type, attention: int) -> None:
    with pytest.raises(ConfigError, match=f"^attention {attention}: .* px wide; choose one"):
        kind(64, attention=attention)
