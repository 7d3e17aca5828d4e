"""Residual networks of SNGAN (arXiv 1802.05957, appendix B), at any size 4 * 2^n."""

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from pokegan.errors import ConfigError
from pokegan.networks.attention import SelfAttention, attention_depth
from pokegan.networks.batch_norm import Sequential
from pokegan.networks.convolution import Conv2d, Tanh
from pokegan.networks.discriminator import Discriminator
from pokegan.networks.layers import activation_layer, ladder, norm_layer, one_of
from pokegan.networks.noise import Dropout2d
from pokegan.networks.pooling import halved
from pokegan.networks.spectral_norm import spectral_norm_

BASE = 4  # side of the smallest feature map, px


class ResNetGenerator(nn.Module):
    """Latents to pictures by residual blocks, each of which doubles the side.

    A linear layer to 4 px, the blocks, norm, activation, a 3x3 convolution, tanh. The shortcut
    of a block has a convolution only where the number of channels changes.

    Args:
        size: side of the pictures in px, 4 times a power of two.
        latent_size: length of a latent vector.
        channels: feature maps behind each block, at 8 px, 16 px, ... up to size, for some size;
            see `ladder`. The linear layer gives as many as the first block.
        norm: batch, instance, layer, lrn or none, in front of each activation; or spectral, on
            every layer.
        activation: relu or lrelu.
        slope: of lrelu, in [0, 1).
        bias: whether the convolutions have a bias; the linear layer always has one.
        attention: side in px of the feature map behind which self-attention goes; 0 for none.

    Raises:
        ConfigError: an argument is none of these.
    """

    def __init__(
        self,
        size: int = 64,
        latent_size: int = 100,
        channels: Sequence[int] = (64, 64, 64, 64),
        norm: str = "batch",
        activation: str = "relu",
        slope: float = 0.2,
        bias: bool = True,
        attention: int = 0,
    ) -> None:
        super().__init__()
        self.latent_size = latent_size
        steps = ladder(size, BASE, channels)
        sides = [BASE << depth for depth in range(len(steps) + 1)]
        depth_of_attention = attention_depth(attention, sides)
        layers: list[nn.Module] = [
            nn.Linear(latent_size, steps[0] * BASE**2),
            nn.Unflatten(1, (steps[0], BASE, BASE)),
        ]
        if depth_of_attention == 0:
            layers.append(SelfAttention(steps[0]))
        for depth, (inputs, outputs) in enumerate(itertools.pairwise((steps[0], *steps)), 1):
            layers.append(UpBlock(inputs, outputs, norm, activation, slope, bias))
            if depth == depth_of_attention:
                layers.append(SelfAttention(outputs))
        layers += [
            *_in_front(norm, activation, slope, steps[-1]),
            Conv2d(steps[-1], 3, 3, 1, 1, bias=bias),
            Tanh(),
        ]
        self.layers = Sequential(*layers)
        if norm == "spectral":
            spectral_norm_(self)

    def forward(self, latents: Tensor) -> Tensor:
        """[N, latent_size] to [N, 3, size, size] in [-1, 1]."""
        pictures: Tensor = self.layers(latents)
        return pictures


class ResNetDiscriminator(Discriminator):
    """Pictures to one logit each by residual blocks, global pooling and a linear layer.

    The first blocks halve the side. The shortcut of a block has a convolution where the block
    halves the side or changes the number of channels.

    Args:
        size: side of the pictures in px, 4 times a power of two.
        channels: feature maps behind each block.
        halvings: how many blocks halve the side, at least 1; size / 2^halvings is at least 4.
        norm: spectral, on every layer; or batch, instance, layer, lrn or none, in front of each
            activation but the first block's.
        activation: relu or lrelu.
        slope: of lrelu, in [0, 1).
        bias: whether the convolutions have a bias; the linear layer always has one.
        pool: sum, as in the paper, or mean over the positions of the last feature map.
        dropout: probability in [0, 1) that a feature map is dropped, behind every block.
        attention: side in px of the feature map behind which self-attention goes; 0 for none.

    Raises:
        ConfigError: an argument is none of these.
    """

    def __init__(
        self,
        size: int = 64,
        channels: Sequence[int] = (64, 64, 64, 64),
        halvings: int = 2,
        norm: str = "spectral",
        activation: str = "relu",
        slope: float = 0.2,
        bias: bool = True,
        pool: str = "sum",
        dropout: float = 0.0,
        attention: int = 0,
    ) -> None:
        super().__init__()
        one_of("pool", pool, ("sum", "mean"))
        most = min(len(channels), len(ladder(size, BASE, channels)))
        if not 1 <= halvings <= most:
            raise ConfigError(
                f"halvings {halvings}: with {len(channels)} blocks at --size {size}, "
                f"1 to {most} of them can halve the side"
            )
        sides = [size >> min(depth, halvings) for depth in range(1, len(channels) + 1)]
        depth_of_attention = attention_depth(attention, sides)
        layers: list[nn.Module] = []
        for depth, (inputs, outputs) in enumerate(itertools.pairwise((3, *channels))):
            block = DownBlock(
                inputs, outputs, norm, activation, slope, bias, depth == 0, depth < halvings
            )
            layers.append(block)
            if dropout:
                layers.append(Dropout2d(dropout))
            if depth == depth_of_attention:
                layers.append(SelfAttention(outputs))
        layers += [*_in_front(norm, activation, slope, channels[-1]), _GlobalPool(pool)]
        self.layers = Sequential(*layers)
        self.head = nn.Linear(channels[-1], 1)
        if norm == "spectral":
            spectral_norm_(self)


class UpBlock(nn.Module):
    """A residual block that doubles the side: norm, activation, upsampling, 3x3; again without.

    Upsampling is to the nearest neighbour. The shortcut is upsampled likewise, behind its 1x1
    convolution, with which it commutes.
    """

    def __init__(
        self, inputs: int, outputs: int, norm: str, activation: str, slope: float, bias: bool
    ) -> None:
        super().__init__()
        self.residual = Sequential(
            *_in_front(norm, activation, slope, inputs),
            nn.UpsamplingNearest2d(scale_factor=2),
            Conv2d(inputs, outputs, 3, 1, 1, bias=bias),
            *_in_front(norm, activation, slope, outputs, inplace=True),
            Conv2d(outputs, outputs, 3, 1, 1, bias=bias),
        )
        self.shortcut = (
            nn.Identity() if inputs == outputs else Conv2d(inputs, outputs, 1, bias=bias)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, 2 H, 2 W]."""
        kept = F.interpolate(self.shortcut(maps), scale_factor=2.0, mode="nearest")
        residual: Tensor = self.residual(maps)
        return residual + kept


class DownBlock(nn.Module):
    """A residual block of a discriminator: norm, activation, 3x3, twice; halves the side or not.

    Halving is by averaging 2x2. The first block of a network has no norm and no activation in
    front of its first convolution, as these would act on the picture.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        norm: str,
        activation: str,
        slope: float,
        bias: bool,
        first: bool,
        halve: bool,
    ) -> None:
        super().__init__()
        self.halve = halve
        self.residual = Sequential(
            *([] if first else _in_front(norm, activation, slope, inputs)),
            Conv2d(inputs, outputs, 3, 1, 1, bias=bias),
            *_in_front("none" if first else norm, activation, slope, outputs, inplace=True),
            Conv2d(outputs, outputs, 3, 1, 1, bias=bias),
        )
        self.shortcut = (
            Conv2d(inputs, outputs, 1, bias=bias) if halve or inputs != outputs else nn.Identity()
        )

    def forward(self, maps: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H, W], or half of H and W."""
        residual: Tensor = self.residual(maps)
        if self.halve:
            residual, maps = halved(residual), halved(maps)
        kept: Tensor = self.shortcut(maps)
        return residual + kept


class _GlobalPool(nn.Module):
    """[N, C, H, W] to [N, C], summed or averaged over the positions."""

    def __init__(self, pool: str) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, maps: Tensor) -> Tensor:
        return maps.sum((2, 3)) if self.pool == "sum" else maps.mean((2, 3))

    def extra_repr(self) -> str:
        return self.pool


def _in_front(
    norm: str, activation: str, slope: float, channels: int, inplace: bool = False
) -> list[nn.Module]:
    """The norm (if any) and the activation in front of a convolution.

    Not in place where what comes in is also the shortcut's.
    """
    layer = norm_layer(norm, channels)
    return [
        *([layer] if layer else []),
        activation_layer(activation, slope, inplace=inplace or layer is not None),
    ]
