"""AEGAN's four networks (arXiv 2004.05472): generator, encoder, and a discriminator of each side.

The layers are those of the paper's author for Pokémon of 96 px; other sizes have fewer or more of
the same. Everything before a batch norm keeps its bias, so that the counts are the original's.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pokegan.errors import ConfigError
from pokegan.networks.batch_norm import BatchNorm1d, BatchNorm2d, Sequential
from pokegan.networks.convolution import Conv2d
from pokegan.networks.layers import ladder
from pokegan.networks.maps import MixColours, ShuffleCat, UpsampleCat
from pokegan.networks.noise import GaussianNoise, MultiplicativeNoise

SIZES = (16, 24, 32, 48, 64, 96, 128, 192, 256)
SLOPE = 0.01  # of every leaky ReLU
PYRAMID_LAYERS, PYRAMID_WIDTH = 7, 8
PALETTE_WIDTHS = (128, 64)
HEAD_WIDTHS = (256, 128)


class AEGANGenerator(nn.Module):
    """Latents to pictures: which mixture of its palette's colours each pixel has.

    The latent passes a dense pyramid, whose output makes the palette and the smallest feature
    maps, and joins the feature maps again before each doubling by pixel shuffle (arXiv 1609.05158).

    Args:
        size: side of the pictures in px, 3 or 4 times a power of two, from 16 to 256.
        latent_size: length of a latent vector, a multiple of 4.
        channels: feature maps at 3 px (or 4), 6 px, ... up to `size`, for some size; see `ladder`.
            Multiples of 4, but for the last.
        colours: of a palette; each picture has its own.

    Raises:
        ConfigError: an argument is not as said above.
    """

    def __init__(
        self,
        size: int = 96,
        latent_size: int = 16,
        channels: Sequence[int] = (512, 512, 256, 256, 256, 64),
        colours: int = 16,
    ) -> None:
        super().__init__()
        base = _base(size)
        if latent_size % 4:
            raise ConfigError(f"--latent-size {latent_size}: this network wants a multiple of 4")
        if any(count % 4 for count in channels[:-1]):
            raise ConfigError(
                f"the generator's channels {list(channels)}: multiples of 4 are wanted, but for "
                "the last"
            )
        steps = ladder(2 * size, base, channels)
        self.pyramid = _DensePyramid(latent_size)
        features = self.pyramid.outputs
        self.palettes = _Palettes(features, colours)
        self.seed_shape = (base, base, steps[0])
        self.seed = _dense(features, math.prod(self.seed_shape))
        self.blocks = nn.ModuleList(
            _generator_block(inputs + (features if depth else 0), outputs, 4 if depth else 3)
            for depth, (inputs, outputs) in enumerate(itertools.pairwise(steps))
        )
        self.colour = Conv2d(steps[-1], colours, 5, padding=2)
        self.mix = MixColours()

    def forward(self, latents: Tensor) -> Tensor:
        """[N, latent_size] to [N, 3, size, size], convex mixtures of colours in [-1, 1]."""
        features = self.pyramid(latents)
        maps = self.seed(features).view(-1, *self.seed_shape).permute(0, 3, 1, 2)
        for depth, block in enumerate(self.blocks):
            maps = block((maps, features if depth else features[:, :0]))
        pictures: Tensor = self.mix((self.colour(maps), self.palettes(features)))
        return pictures


class AEGANEncoder(nn.Module):
    """Pictures to latents: down, up again with skips as in a U-Net, and down once more.

    Both ends at the bottom, of 4 px or 6 px, are read together. In training the picture gets
    Gaussian noise, except where it joins the second way down.

    Args:
        size: side of the pictures in px, 3 or 4 times a power of two, from 16 to 256.
        latent_size: length of a latent vector.
        channels: feature maps at size / 2, size / 4, ... down to the bottom, for some size.
        noise: standard deviation of the noise on the pictures.

    Raises:
        ConfigError: `size` cannot be read, or `noise` is negative.
    """

    def __init__(
        self,
        size: int = 96,
        latent_size: int = 16,
        channels: Sequence[int] = (64, 128, 256, 512),
        noise: float = 0.02,
    ) -> None:
        super().__init__()
        steps = _steps_down(size, channels)
        first = steps[0]
        skips = (3, *steps[:-1])
        ascending = (first, *steps[:-1])  # what meets each skip
        outputs = (first, *ascending[:-1])
        self.noise = GaussianNoise(noise)
        self.down = nn.ModuleList(
            _convolution(inputs, wider, stride=2)
            for inputs, wider in itertools.pairwise((3, *steps))
        )
        self.reduce = _convolution(steps[-1], steps[-2])
        self.join = UpsampleCat()
        self.up = nn.ModuleList(
            _convolution(skip + below, narrower)
            for skip, below, narrower in reversed(list(zip(skips, ascending, outputs, strict=True)))
        )
        self.down_again = Sequential(
            _convolution(first + 3, first, stride=2),
            *(_convolution(first, first, stride=2) for _ in steps[1:]),
        )
        read = (steps[-1] + first) * _bottom(size) ** 2
        self.head = Sequential(
            nn.Flatten(),
            *(_dense(*widths) for widths in itertools.pairwise((read, *HEAD_WIDTHS))),
            nn.Linear(HEAD_WIDTHS[-1], latent_size),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """[N, 3, size, size] in [-1, 1] to [N, latent_size]."""
        skips = [self.noise(pictures)]
        for layer in self.down:
            skips.append(layer(skips[-1]))
        bottom = skips.pop()
        maps = self.reduce(bottom)
        for layer in self.up:
            maps = layer(self.join((maps, skips.pop())))
        maps = self.down_again(torch.cat((maps, pictures), 1))
        latents: Tensor = self.head(torch.cat((bottom, maps), 1))
        return latents


class AEGANDiscriminator(nn.Module):
    """Pictures to one logit each by convolutions, kernel 3 and stride 2, with noise in training.

    The original multiplies by noise behind each convolution, norm and activation. A leaky ReLU
    passes a positive factor on, so the last two are drawn as one, sqrt(2) times as wide.

    Args:
        size: side of the pictures in px, 3 or 4 times a power of two, from 16 to 256.
        channels: feature maps at size / 2, size / 4, ... down to 4 px or 6 px, for some size.
        noise: standard deviation of the noise added to pictures, and of the noise that multiplies.

    Raises:
        ConfigError: `size` cannot be read, or `noise` is negative.
    """

    def __init__(
        self,
        size: int = 96,
        channels: Sequence[int] = (64, 128, 256, 512),
        noise: float = 0.02,
    ) -> None:
        super().__init__()
        steps = _steps_down(size, channels)
        layers: list[nn.Module] = [GaussianNoise(noise)]
        for inputs, outputs in itertools.pairwise((3, *steps)):
            convolution, *others = _convolution(inputs, outputs, stride=2)
            layers += [convolution, MultiplicativeNoise(noise), *others]
            layers.append(MultiplicativeNoise(noise * math.sqrt(2)))
        layers += [nn.Flatten(), nn.Linear(steps[-1] * _bottom(size) ** 2, 1)]
        self.layers = Sequential(*layers)

    def forward(self, pictures: Tensor) -> Tensor:
        """[N, 3, size, size] in [-1, 1] to [N] logits."""
        logits: Tensor = self.layers(pictures)
        return logits.flatten()


class AEGANLatentDiscriminator(nn.Module):
    """Latents to one logit each: a dense pyramid and one neuron that reads all of it.

    Args:
        latent_size: length of a latent vector.
        noise: standard deviation of the noise that multiplies each layer's output in training.

    Raises:
        ConfigError: `noise` is negative.
    """

    def __init__(self, latent_size: int = 16, noise: float = 0.02) -> None:
        super().__init__()
        self.pyramid = _DensePyramid(latent_size, noise)
        self.logit = nn.Linear(self.pyramid.outputs, 1)

    def forward(self, latents: Tensor) -> Tensor:
        """[N, latent_size] to [N] logits."""
        logits: Tensor = self.logit(self.pyramid(latents))
        return logits.flatten()


class _DensePyramid(nn.Module):
    """Narrow layers, each of which reads the input and all layers before it (arXiv 1608.06993)."""

    def __init__(self, inputs: int, noise: float = 0.0) -> None:
        super().__init__()
        widths = [inputs + PYRAMID_WIDTH * depth for depth in range(PYRAMID_LAYERS + 1)]
        self.outputs = widths.pop()
        self.layers = nn.ModuleList(
            _dense(width, PYRAMID_WIDTH).append(MultiplicativeNoise(noise)) for width in widths
        )

    def forward(self, values: Tensor) -> Tensor:
        """[N, inputs] to [N, outputs]: the input and every layer's output."""
        for layer in self.layers:
            values = torch.cat((values, layer(values)), 1)
        return values


class _Palettes(nn.Module):
    """Three perceptrons of one shape, for red, green and blue, side by side as grouped layers."""

    def __init__(self, inputs: int, colours: int) -> None:
        super().__init__()
        self.colours = colours
        first, second = (3 * width for width in PALETTE_WIDTHS)
        self.layers = Sequential(
            nn.Conv1d(inputs, first, 1),
            BatchNorm1d(first),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv1d(first, second, 1, groups=3),
            BatchNorm1d(second),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv1d(second, 3 * colours, 1, groups=3),
            nn.Tanh(),
        )

    def forward(self, features: Tensor) -> Tensor:
        """[N, inputs] to [N, 3, colours] in (-1, 1)."""
        palettes: Tensor = self.layers(features[:, :, None])
        return palettes.view(-1, 3, self.colours)


def _generator_block(shuffled: int, outputs: int, kernel: int) -> Sequential:
    """Shuffle `shuffled` maps and what follows; an even kernel reaches one px further down."""
    return Sequential(
        ShuffleCat(1, kernel - 2),
        Conv2d(shuffled // 4, outputs, kernel),
        BatchNorm2d(outputs),
        nn.LeakyReLU(SLOPE, inplace=True),
    )


def _convolution(inputs: int, outputs: int, stride: int = 1) -> Sequential:
    return Sequential(
        Conv2d(inputs, outputs, 3, stride, 1),
        BatchNorm2d(outputs),
        nn.LeakyReLU(SLOPE, inplace=True),
    )


def _dense(inputs: int, outputs: int) -> Sequential:
    return Sequential(
        nn.Linear(inputs, outputs),
        BatchNorm1d(outputs),
        nn.LeakyReLU(SLOPE, inplace=True),
    )


def _steps_down(size: int, channels: Sequence[int]) -> tuple[int, ...]:
    """Return the channel counts at size / 2, size / 4, ... down to the bottom."""
    return tuple(reversed(ladder(size, _bottom(size), tuple(reversed(channels)))))


def _base(size: int) -> int:
    """Return the side of the generator's smallest feature map, px."""
    if size not in SIZES:
        smaller = [one for one in SIZES if one < size][-1:]
        larger = [one for one in SIZES if one > size][:1]
        raise ConfigError(
            f"--size {size}: AEGAN makes 3 or 4 px times a power of two, from {SIZES[0]} to "
            f"{SIZES[-1]}; the nearest: {' and '.join(map(str, smaller + larger))}"
        )
    return 3 if size % 3 == 0 else 4


def _bottom(size: int) -> int:
    """Return the side of the smallest feature map on the way down, px."""
    return 6 if _base(size) == 3 else 4
