"""Residual networks: counts of the project they come from, a plain formula, shapes, options."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pokegan.errors import ConfigError
from pokegan.networks.layers import initialise
from pokegan.networks.resnet import DownBlock, ResNetDiscriminator, ResNetGenerator, UpBlock
from pokegan.networks.spectral_norm import spectral_norms

SIZES = [8, 16, 32, 64, 128, 256]


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_counts_of_gan_pokemon() -> None:
    assert parameters(ResNetGenerator(64, 100)) == 401_731
    assert parameters(ResNetDiscriminator(64)) == 264_769


@pytest.mark.parametrize("size", SIZES)
def test_shapes_at_every_size(size: int) -> None:
    generator = ResNetGenerator(size, 5, (8, 4, 4))
    discriminator = ResNetDiscriminator(size, (4, 4, 8, 8), halvings=1 if size == 8 else 2)
    pictures = generator(torch.randn(2, 5))
    assert pictures.shape == (2, 3, size, size)
    assert pictures.abs().max() <= 1
    assert discriminator(pictures).shape == (2,)  # one logit a picture, at every size
    assert discriminator.features(pictures).shape == (2, 8)


def test_one_picture_gives_one_logit_not_a_scalar() -> None:
    assert ResNetDiscriminator(16, (4, 4))(torch.zeros(1, 3, 16, 16)).shape == (1,)


@pytest.mark.parametrize("outputs", [6, 4])
def test_an_up_block_is_its_formula(outputs: int) -> None:
    block = UpBlock(6, outputs, "layer", "relu", 0.2, bias=True).double()
    maps = torch.randn(2, 6, 4, 4, dtype=torch.double)
    norm, _, _, first, second_norm, _, second = block.residual

    def doubled(x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    hidden = F.conv2d(doubled(norm(maps).clamp(min=0)), first.weight, first.bias, padding=1)
    hidden = F.conv2d(second_norm(hidden).clamp(min=0), second.weight, second.bias, padding=1)
    kept = doubled(maps)
    if outputs != 6:  # the other way round: the convolution behind the upsampling
        kept = F.conv2d(kept, block.shortcut.weight, block.shortcut.bias)
    torch.testing.assert_close(block(maps), hidden + kept)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("halve", [True, False])
@pytest.mark.parametrize("outputs", [6, 4])
def test_a_down_block_is_its_formula(first: bool, halve: bool, outputs: int) -> None:
    block = DownBlock(6, outputs, "none", "lrelu", 0.1, True, first, halve).double()
    maps = torch.randn(2, 6, 4, 4, dtype=torch.double)
    one, two = (m for m in block.residual if isinstance(m, nn.Conv2d))
    assert isinstance(block.shortcut, nn.Conv2d) == (halve or outputs != 6)

    def leaky(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, 0.1 * x)

    def mean(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean((3, 5)) if halve else x

    hidden = F.conv2d(maps if first else leaky(maps), one.weight, one.bias, padding=1)
    hidden = F.conv2d(leaky(hidden), two.weight, two.bias, padding=1)
    kept = maps.clone()
    if halve or outputs != 6:  # the other way round: the average behind the convolution
        kept = F.conv2d(maps, block.shortcut.weight, block.shortcut.bias)
    before = maps.clone()
    torch.testing.assert_close(block(maps), mean(hidden) + mean(kept))
    assert torch.equal(maps, before)  # no activation wrote into what others read


def test_the_first_blocks_halve_the_side() -> None:
    network = ResNetDiscriminator(64, (4, 4, 4, 4, 4), halvings=3)
    sides: list[int] = []
    for module in network.modules():
        if isinstance(module, DownBlock):
            module.register_forward_hook(lambda m, x, y: sides.append(y.shape[3]))
    network(torch.zeros(1, 3, 64, 64))
    assert sides == [32, 16, 8, 8, 8]


@pytest.mark.parametrize("pool", ["sum", "mean"])
def test_logits_are_the_head_of_the_pooled_features(pool: str) -> None:
    network = ResNetDiscriminator(16, (4, 8), pool=pool)
    pictures = torch.randn(3, 3, 16, 16)
    logits, features = network.logits_and_features(pictures)
    assert torch.equal(features, network.features(pictures))
    assert torch.equal(logits, network(pictures))
    torch.testing.assert_close(logits, features @ network.head.weight[0] + network.head.bias)
    maps = network.layers[:-1](pictures)
    pooled = maps.flatten(2).sum(2) / (1 if pool == "sum" else maps[0, 0].numel())
    torch.testing.assert_close(features, pooled)


@pytest.mark.parametrize("norm", ["batch", "instance", "layer", "lrn", "spectral", "none"])
def test_every_norm_trains_in_both_networks(norm: str) -> None:
    generator = ResNetGenerator(16, 5, (8, 4), norm=norm, attention=8)
    discriminator = ResNetDiscriminator(16, (4, 8), norm=norm, attention=8)
    discriminator(generator(torch.randn(4, 5))).square().sum().backward()
    for network in (generator, discriminator):
        gradients = [parameter.grad for parameter in network.parameters()]
        assert all(g is not None and g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("network", [ResNetGenerator, ResNetDiscriminator])
def test_spectral_is_on_every_layer_and_makes_sigma_one(network: type) -> None:
    made = network(16, channels=(8, 4), norm="spectral", attention=8)
    initialise(made, "xavier", torch.Generator().manual_seed(3))
    (norm,) = spectral_norms(made)
    for _ in range(60):
        norm.forget()
        norm.refresh()
    layers = [m for m in made.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers:
        assert hasattr(layer, "parametrizations")
        largest = torch.linalg.svdvals(layer.weight.detach().flatten(1))[0].item()
        assert largest == pytest.approx(1, abs=0.02)


def test_dropout_is_behind_every_block_and_only_in_training() -> None:
    network = ResNetDiscriminator(16, (32, 32), dropout=0.5)
    pictures = torch.randn(4, 3, 16, 16)
    assert not torch.equal(network(pictures), network(pictures))
    network.eval()
    assert torch.equal(network(pictures), network(pictures))
    kinds = [type(module).__name__ for module in network.layers]
    assert kinds[:4] == ["DownBlock", "Dropout2d"] * 2


def test_a_penalty_on_gradients_can_be_differentiated() -> None:
    network = ResNetDiscriminator(16, (4, 8), norm="layer", attention=8).double()
    nn.init.ones_(network.layers[1].gamma)
    pictures = torch.randn(2, 3, 16, 16, dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(pictures).sum(), pictures, create_graph=True)
    gradient.square().sum().backward()
    assert network.layers[0].residual[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", [ResNetGenerator, ResNetDiscriminator])
@pytest.mark.parametrize("size", [0, 4, 12, 63, 96])
def test_a_size_that_cannot_be_made_is_refused(kind: type, size: int) -> None:
    with pytest.raises(ConfigError, match=f"--size {size}: .* power of two; the nearest are"):
        kind(size)


@pytest.mark.parametrize("halvings", [0, 4])
def test_halvings_that_do_not_fit_are_refused(halvings: int) -> None:
    with pytest.raises(ConfigError, match=rf"halvings {halvings}: .* --size 32, 1 to 3 of them"):
        ResNetDiscriminator(32, (4, 4, 4, 4), halvings=halvings)
    with pytest.raises(ConfigError, match="halvings 3: with 2 blocks"):
        ResNetDiscriminator(64, (4, 4), halvings=3)


@pytest.mark.parametrize(
    "option",
    [{"norm": "group"}, {"activation": "gelu"}, {"slope": 2.0}, {"pool": "max"}, {"dropout": 1.0}],
)
def test_a_value_out_of_range_is_refused_by_name(option: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(option))} "):
        ResNetDiscriminator(64, **option)
