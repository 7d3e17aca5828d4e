"""AEGAN's networks: the counts of the original, every size, and the layers written out again."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pokegan.errors import ConfigError
from pokegan.networks.aegan import (
    SIZES,
    AEGANDiscriminator,
    AEGANEncoder,
    AEGANGenerator,
    AEGANLatentDiscriminator,
)
from pokegan.networks.noise import CountedNoise, GaussianNoise, MultiplicativeNoise, attach
from pokegan.ops.maps import mix_colours

UP, DOWN = (16, 16, 8, 8, 8, 8), (4, 8, 8, 16)  # channels of small twins
TWINS = [
    (lambda size: AEGANGenerator(size, 4, UP, colours=5), (4,)),
    (lambda size: AEGANEncoder(size, 4, DOWN), (3, 0, 0)),
    (lambda size: AEGANDiscriminator(size, DOWN), (3, 0, 0)),
    (lambda size: AEGANLatentDiscriminator(4), (4,)),
]


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def example(network_input: tuple[int, ...], size: int, batch: int = 3) -> Tensor:
    shape = (batch, *(size if side == 0 else side for side in network_input))
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_the_counts_are_those_of_the_project() -> None:
    assert parameters(AEGANGenerator(96, 16)) == 2_378_280
    assert parameters(AEGANEncoder(96, 16)) == 9_078_224
    assert parameters(AEGANDiscriminator(96)) == 1_571_329
    assert parameters(AEGANLatentDiscriminator(16)) == 2_481


@pytest.mark.parametrize("size", SIZES)
def test_shapes_at_every_size(size: int) -> None:
    pictures = AEGANGenerator(size, 8, UP)(torch.randn(2, 8))
    assert pictures.shape == (2, 3, size, size)
    assert pictures.abs().max() <= 1
    assert AEGANEncoder(size, 8, DOWN)(pictures).shape == (2, 8)
    assert AEGANDiscriminator(size, DOWN)(pictures).shape == (2,)
    assert AEGANLatentDiscriminator(8)(torch.randn(2, 8)).shape == (2,)


def test_a_larger_size_has_more_of_the_widest_layers() -> None:
    def widths(size: int) -> list[int]:
        down = AEGANDiscriminator(size).layers
        return [layer.out_channels for layer in down if isinstance(layer, nn.Conv2d)]

    assert widths(24) == [64, 128]
    assert widths(64) == widths(96) == [64, 128, 256, 512]
    assert widths(192) == [64, 128, 256, 512, 512]


@pytest.mark.parametrize("make", [AEGANGenerator, AEGANEncoder, AEGANDiscriminator])
@pytest.mark.parametrize(
    ("size", "nearest"), [(8, "16"), (80, "64 and 96"), (95, "64 and 96"), (512, "256")]
)
def test_a_size_that_cannot_be_made_is_refused(make: type, size: int, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"--size {size}: .* the nearest: {nearest}$"):
        make(size)


def test_what_cannot_be_shuffled_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--latent-size 18: .* a multiple of 4"):
        AEGANGenerator(96, 18)
    with pytest.raises(ConfigError, match=r"channels \[16, 6, 8\]: multiples of 4"):
        AEGANGenerator(16, 16, [16, 6, 8])
    AEGANGenerator(16, 16, [16, 8, 6])(torch.randn(2, 16))


@pytest.mark.parametrize("make", [AEGANEncoder, AEGANDiscriminator, AEGANLatentDiscriminator])
def test_negative_noise_is_refused(make: type) -> None:
    with pytest.raises(ConfigError, match="noise -1"):
        make(noise=-1.0)


class Weights:
    """The parameters of a network by name, applied in plain PyTorch with batch statistics."""

    def __init__(self, network: nn.Module) -> None:
        self.values = network.state_dict()

    def normed(self, values: Tensor, at: str) -> Tensor:
        weight, bias = self.values[f"{at}.weight"], self.values[f"{at}.bias"]
        axes = [axis for axis in range(values.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(values.dim())]
        centred = values - values.mean(axes, keepdim=True)
        scaled = centred / (centred.square().mean(axes, keepdim=True) + 1e-5).sqrt()
        scaled = scaled * weight.view(shape) + bias.view(shape)
        return torch.where(scaled > 0, scaled, 0.01 * scaled)

    def linear(self, values: Tensor, at: str) -> Tensor:
        return values @ self.values[f"{at}.weight"].T + self.values[f"{at}.bias"]

    def convolved(self, values: Tensor, at: str, stride: int = 1) -> Tensor:
        weight = self.values[f"{at}.weight"]
        before, after = (weight.shape[-1] - 1) // 2, weight.shape[-1] // 2
        padded = F.pad(values, (before, after, before, after))
        return F.conv2d(padded, weight, self.values[f"{at}.bias"], stride)

    def block(self, values: Tensor, at: str, stride: int = 1) -> Tensor:
        return self.normed(self.convolved(values, f"{at}.0", stride), f"{at}.1")

    def pyramid(self, values: Tensor, at: str) -> Tensor:
        for depth in range(7):
            layer = self.normed(self.linear(values, f"{at}.{depth}.0"), f"{at}.{depth}.1")
            values = torch.cat([values, layer], dim=1)
        return values

    def palette(self, values: Tensor, colour: int) -> Tensor:
        """One of three separate perceptrons, from its slices of the grouped layers."""

        def own(at: str) -> tuple[Tensor, Tensor]:
            weight, bias = self.values[f"{at}.weight"], self.values[f"{at}.bias"]
            return weight.chunk(3)[colour], bias.chunk(3)[colour]

        for depth in (0, 3, 6):
            weight, bias = own(f"palettes.layers.{depth}")
            values = F.linear(values, weight[:, :, 0], bias)
            if depth < 6:
                values = F.batch_norm(
                    values, None, None, *own(f"palettes.layers.{depth + 1}"), training=True
                )
                values = F.leaky_relu(values, 0.01)
        return values.tanh()


@pytest.mark.parametrize(("size", "base"), [(24, 3), (32, 4)])
def test_the_generator_is_the_one_written_out_here(size: int, base: int) -> None:
    generator, latents = AEGANGenerator(size, 4, UP, colours=5).double(), torch.randn(3, 4).double()
    weights = Weights(generator)
    features = weights.pyramid(latents, "pyramid.layers")
    seed = weights.normed(weights.linear(features, "seed.0"), "seed.1")
    maps = seed.view(3, base, base, -1).permute(0, 3, 1, 2)
    for depth in range(3):
        if depth > 0:
            everywhere = F.interpolate(features[:, :, None, None], maps.shape[-1])
            maps = torch.cat([maps, everywhere], dim=1)
        maps = weights.convolved(F.pixel_shuffle(maps, 2), f"blocks.{depth}.1")
        maps = weights.normed(maps, f"blocks.{depth}.2")
    shares = weights.convolved(maps, "colour").softmax(1)
    expected = torch.stack(
        [
            (shares * weights.palette(features, colour)[:, :, None, None]).sum(1)
            for colour in range(3)
        ],
        dim=1,
    )
    torch.testing.assert_close(generator(latents), expected)


def test_the_encoder_is_the_one_written_out_here() -> None:
    encoder, pictures = AEGANEncoder(64, 4, DOWN, noise=0).double(), torch.randn(3, 3, 64, 64)
    weights, pictures = Weights(encoder), pictures.double()
    half = weights.block(pictures, "down.0", 2)
    quarter = weights.block(half, "down.1", 2)
    eighth = weights.block(quarter, "down.2", 2)
    sixteenth = weights.block(eighth, "down.3", 2)

    def doubled(values: Tensor) -> Tensor:
        return values.repeat_interleave(2, 2).repeat_interleave(2, 3)

    maps = weights.block(sixteenth, "reduce")
    for depth, skip in enumerate((eighth, quarter, half, pictures)):
        maps = weights.block(torch.cat([doubled(maps), skip], dim=1), f"up.{depth}")
    maps = torch.cat([maps, pictures], dim=1)
    for depth in range(4):
        maps = weights.block(maps, f"down_again.{depth}", 2)
    values = torch.cat([sixteenth, maps], dim=1).flatten(1)
    for depth in (1, 2):
        values = weights.normed(weights.linear(values, f"head.{depth}.0"), f"head.{depth}.1")
    torch.testing.assert_close(encoder(pictures), weights.linear(values, "head.3"))


def test_the_encoders_noise_is_on_the_first_way_down_only() -> None:
    encoder = AEGANEncoder(16, 4, DOWN)
    seen = []
    encoder.down[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder.down_again[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pictures = example((3, 0, 0), 16, batch=64)
    encoder(pictures)
    assert (seen[0] - pictures).std().item() == pytest.approx(0.02, rel=0.05)
    assert torch.equal(seen[1][:, -3:], pictures)


def test_the_discriminators_noise_is_nearly_the_originals() -> None:
    """Noise on both sides of a leaky ReLU, and the one draw that stands for the two."""
    torch.manual_seed(0)
    values = torch.randn(400, 1000)
    literal = MultiplicativeNoise(0.02)(F.leaky_relu(MultiplicativeNoise(0.02)(values), 0.01))
    layers = AEGANDiscriminator(16, DOWN).layers
    ours = layers[5](layers[4](values.clone()))
    for moment in (1, 2, 4):
        powers = [
            (one / F.leaky_relu(values, 0.01) - 1).pow(moment).mean() for one in (literal, ours)
        ]
        torch.testing.assert_close(powers[0], powers[1], rtol=0.03, atol=1e-4)
    sigmas = [layer.sigma for layer in layers if isinstance(layer, GaussianNoise)]
    assert sigmas == pytest.approx([0.02, *([0.02, 0.02 * math.sqrt(2)] * 2)])


@pytest.mark.parametrize(("make", "shape"), TWINS[1:])
def test_noise_is_there_in_training_alone(make: type, shape: tuple[int, ...]) -> None:
    network, values = make(16), example(shape, 16)
    assert not torch.equal(network(values), network(values))
    network.eval()
    assert torch.equal(network(values), network(values))


def test_a_picture_has_no_colour_outside_of_its_palette() -> None:
    generator = AEGANGenerator(32, 4, UP, colours=5)
    nn.init.normal_(generator.colour.weight, std=2.0)  # decided pixels and mixed ones
    latents = 3 * example((4,), 32, batch=6)
    pictures = generator(latents)
    palettes = generator.palettes(generator.pyramid(latents))
    assert palettes.shape == (6, 3, 5)
    least, most = palettes.amin(2)[:, :, None, None], palettes.amax(2)[:, :, None, None]
    assert (pictures >= least - 1e-6).all()
    assert (pictures <= most + 1e-6).all()
    assert pictures.std((2, 3)).min() > 1e-3


def test_certain_scores_choose_a_colour_and_equal_ones_mix_all() -> None:
    palettes = torch.tensor([[[-1.0, 0.5], [0.0, 1.0], [0.25, -0.25]]])
    scores = torch.tensor([[100.0, -100.0, 3.0], [-100.0, 100.0, 3.0]]).view(1, 2, 1, 3)
    expected = torch.tensor([[-1.0, 0.5, -0.25], [0.0, 1.0, 0.5], [0.25, -0.25, 0.0]])
    torch.testing.assert_close(mix_colours(scores, palettes), expected.view(1, 3, 1, 3))


@pytest.mark.parametrize(("make", "shape"), TWINS)
def test_the_memory_format_changes_nothing(make: type, shape: tuple[int, ...]) -> None:
    network, values = make(16).double().eval(), example(shape, 16).double()
    expected = network(values)
    got = network.to(memory_format=torch.channels_last)(values)
    torch.testing.assert_close(got, expected)
    if got.dim() == 4:
        assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("make", "shape"), TWINS)
def test_bfloat16_is_nearly_the_same(make: type, shape: tuple[int, ...]) -> None:
    network, values = make(16).eval(), example(shape, 16)
    with torch.autocast("cpu", torch.bfloat16):
        got = network(values)
    torch.testing.assert_close(got.float(), network(values), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(("make", "shape"), TWINS)
def test_compiled_equals_eager(make: type, shape: tuple[int, ...]) -> None:
    """In training, with counted noise, so that both draw the same."""
    torch._dynamo.reset()
    network, values = make(16), example(shape, 16)
    counted = CountedNoise(seed=3, network=1)
    attach(network, counted)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    results = []
    for forward in (network, compiled):
        counted.begin(torch.tensor(7), torch.arange(3))
        results.append(forward(values))
    torch.testing.assert_close(results[0], results[1])
