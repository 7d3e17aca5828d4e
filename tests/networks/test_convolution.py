"""The networks' convolutions are PyTorch's in all but speed."""

import pytest
import torch
from torch import nn

from pokegan.networks.convolution import Conv2d, ConvTranspose2d
from pokegan.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from pokegan.networks.spectral_norm import spectral_norm_
from pokegan.ops import conv_choice, conv_units

needs_kernels = pytest.mark.skipif(conv_units() == "none", reason="no bfloat16 units")

DOWN = [
    {},
    {"stride": 2, "padding": 1, "bias": False},
    {"stride": (2, 1)},
    {"padding": (0, 1)},
    {"padding": "same"},
    {"dilation": 2},
    {"groups": 2},
    {"padding": 1, "padding_mode": "reflect"},
]
UP = [
    {},
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"stride": (2, 1)},
    {"dilation": 2, "output_padding": 1},
    {"groups": 2},
]


@pytest.fixture(params=["own", "stock"])
def chosen(request, monkeypatch):
    choice = request.param if conv_units() != "none" else "stock"
    monkeypatch.setattr(conv_choice, "_MODE", choice)
    return choice


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [(Conv2d, nn.Conv2d, options) for options in DOWN]
    + [(ConvTranspose2d, nn.ConvTranspose2d, options) for options in UP],
)
def test_every_option_gives_what_pytorch_gives(chosen, ours, theirs, options) -> None:
    torch.manual_seed(0)
    one, two = ours(4, 6, 3, **options), theirs(4, 6, 3, **options)
    two.load_state_dict(one.state_dict())
    x = torch.randn(3, 4, 9, 8)
    assert torch.equal(one(x), two(x))
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = one(x), two(x)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=1e-2)


def test_a_wanted_size(chosen) -> None:
    layer = ConvTranspose2d(4, 6, 3, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(2, 4, 5, 5), [12, 12]).shape == (2, 6, 12, 12)


@needs_kernels
@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_networks_train_as_with_pytorchs(monkeypatch, norm) -> None:
    """Gradients of both networks, ours against float32, no worse than PyTorch's."""
    torch.manual_seed(1)
    generator = DCGANGenerator(16, 8, (32, 16), norm="batch")
    critic = DCGANDiscriminator(16, (16, 32), norm=norm).eval()  # no iteration in between
    networks = [generator, critic]
    latents = torch.randn(24, 8)

    def gradients(choice):
        monkeypatch.setattr(conv_choice, "_MODE", choice or "stock")
        with torch.autocast("cpu", torch.bfloat16, enabled=choice is not None):
            loss = critic(generator(latents)).float().square().sum()
        leaves = [p for network in networks for p in network.parameters()]
        return torch.autograd.grad(loss, leaves)

    exact, ours, stock = gradients(None), gradients("own"), gradients("stock")
    for one, two, three in zip(ours, stock, exact, strict=True):
        assert one.dtype == torch.float32
        scale = three.norm()
        assert (one - three).norm() < 2 * (two - three).norm() + 0.02 * scale


@needs_kernels
def test_a_spectral_norm_hands_over_bfloat16(chosen) -> None:
    network = nn.Sequential(Conv2d(3, 20, 4, 2, 1), Conv2d(20, 1, 4))
    spectral_norm_(network, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(torch.randn(8, 3, 8, 8)).float().square().sum()
    loss.backward()
    for layer in network:
        original = layer.parametrizations.weight.original
        assert original.grad.dtype == torch.float32
        assert original.grad.any()


def test_state_dicts_go_both_ways() -> None:
    one, two = Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
    two.load_state_dict(one.state_dict())
    one.load_state_dict(two.state_dict())
    assert isinstance(one, nn.Conv2d)
    assert isinstance(ConvTranspose2d(3, 4, 3), nn.ConvTranspose2d)
