"""DCGAN (arXiv 1511.06434): the convolutional generator and discriminator, at any size base * 2^n.

The options also give the networks of the projects that have linear ends or layers that keep the
size; `recipes/seeds.py` has each project's.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pokegan.networks.attention import SelfAttention, attention_depth
from pokegan.networks.batch_norm import Sequential
from pokegan.networks.convolution import Conv2d, ConvTranspose2d, Tanh
from pokegan.networks.discriminator import Discriminator
from pokegan.networks.layers import activation_layer, ladder, norm_layer, one_of
from pokegan.networks.noise import Dropout2d
from pokegan.networks.spectral_norm import spectral_norm_

KERNELS = (3, 4, 5)
ENDS = ("conv", "linear")


class DCGANGenerator(nn.Module):
    """Latents to pictures by transposed convolutions of stride 2.

    Args:
        size: side of the pictures in px, `base` times a power of two.
        latent_size: length of a latent vector.
        channels: feature maps at `base` px, twice that, ... up to size / 2 (up to size where
            `last_stride` is 1), for some size; see `ladder`.
        norm: batch, instance, layer, lrn or none, behind every hidden layer; or spectral, on
            every layer.
        norm_first: whether the first layer, the stem, has the norm too.
        activation: relu or lrelu.
        slope: of lrelu, in [0, 1).
        bias: whether the convolutions have a bias; a linear stem always has one.
        kernel: 3, 4 or 5, of the convolutions that double the side.
        stem: the first layer, from the latent vector to `base` px: conv or linear.
        last_stride: 2, the last convolution doubles the side; 1, it keeps it, with kernel 3.
        base: side of the smallest feature map in px, at least 2.
        dropout: probability in [0, 1) that a feature map is dropped, behind every hidden layer.
        dropout_first: dropout behind the first layer only.
        attention: side in px of the feature map behind which self-attention goes; 0 for none.

    Raises:
        ConfigError: an argument is none of these.
    """

    def __init__(
        self,
        size: int = 64,
        latent_size: int = 100,
        channels: Sequence[int] = (512, 256, 128, 64),
        norm: str = "batch",
        norm_first: bool = True,
        activation: str = "relu",
        slope: float = 0.2,
        bias: bool = False,
        kernel: int = 4,
        stem: str = "conv",
        last_stride: int = 2,
        base: int = 4,
        dropout: float = 0.0,
        dropout_first: bool = False,
        attention: int = 0,
    ) -> None:
        super().__init__()
        one_of("kernel", kernel, KERNELS)
        one_of("stem", stem, ENDS)
        one_of("last_stride", last_stride, (1, 2))
        self.latent_size = latent_size
        self.stem = stem
        steps = ladder(size, base, channels, extra=2 - last_stride)
        behind = _Behind(norm, norm_first, activation, slope, dropout, dropout_first)
        depth_of_attention = attention_depth(attention, [base << k for k in range(len(steps))])
        layers: list[nn.Module] = []
        for depth, outputs in enumerate(steps):
            if depth > 0:
                layers.append(_double(steps[depth - 1], outputs, kernel, bias))
            elif stem == "conv":
                layers.append(ConvTranspose2d(latent_size, outputs, base, bias=bias))
            else:
                layers.append(nn.Linear(latent_size, outputs * base**2))
                layers.append(nn.Unflatten(1, (outputs, base, base)))
            layers.extend(behind(depth, outputs))
            if depth == depth_of_attention:
                layers.append(SelfAttention(outputs))
        if last_stride == 2:
            layers.append(_double(steps[-1], 3, kernel, bias))
        else:
            layers.append(ConvTranspose2d(steps[-1], 3, 3, 1, 1, bias=bias))
        self.layers = Sequential(*layers, Tanh())
        if norm == "spectral":
            spectral_norm_(self)

    def forward(self, latents: Tensor) -> Tensor:
        """[N, latent_size] to [N, 3, size, size] in [-1, 1]."""
        seeds = latents[:, :, None, None] if self.stem == "conv" else latents
        pictures: Tensor = self.layers(seeds)
        return pictures


class DCGANDiscriminator(Discriminator):
    """Pictures to one logit each by convolutions of stride 2.

    Args:
        size: side of the pictures in px, `base` times a power of two.
        channels: feature maps at size / 2, size / 4, ... down to `base` px, for some size; see
            `ladder`, here the other way round.
        norm: batch, instance, layer, lrn or none, behind the hidden convolutions; or spectral, on
            every layer.
        norm_first: whether the first convolution has the norm too.
        activation: relu or lrelu.
        slope: of lrelu, in [0, 1).
        bias: whether the convolutions have a bias; a linear head always has one.
        kernel: 3, 4 or 5, of the convolutions that halve the side.
        head: the last layer, from `base` px to the logit: conv or linear.
        keep_side: one convolution more, of kernel 3 and stride 1, in front of the last hidden
            one; it has its entry in `channels`.
        base: side of the smallest feature map in px, at least 2.
        dropout: probability in [0, 1) that a feature map is dropped, behind every hidden layer.
        dropout_first: dropout behind the first layer only.
        attention: side in px of the feature map behind which self-attention goes; 0 for none.

    Raises:
        ConfigError: an argument is none of these.
    """

    def __init__(
        self,
        size: int = 64,
        channels: Sequence[int] = (64, 128, 256, 512),
        norm: str = "batch",
        norm_first: bool = False,
        activation: str = "lrelu",
        slope: float = 0.2,
        bias: bool = False,
        kernel: int = 4,
        head: str = "conv",
        keep_side: bool = False,
        base: int = 4,
        dropout: float = 0.0,
        dropout_first: bool = False,
        attention: int = 0,
    ) -> None:
        super().__init__()
        one_of("kernel", kernel, KERNELS)
        one_of("head", head, ENDS)
        steps = (3, *reversed(ladder(size, base, channels[::-1], extra=int(keep_side))))
        strides = [2] * (len(steps) - 1)
        if keep_side:
            strides[-2] = 1
        sides = [size // stride for stride in itertools.accumulate(strides, lambda a, b: a * b)]
        depth_of_attention = attention_depth(attention, sides)
        behind = _Behind(norm, norm_first, activation, slope, dropout, dropout_first)
        layers: list[nn.Module] = []
        for depth, (inputs, outputs) in enumerate(itertools.pairwise(steps)):
            if strides[depth] == 2:
                layers.append(Conv2d(inputs, outputs, kernel, 2, (kernel - 1) // 2, bias=bias))
            else:
                layers.append(Conv2d(inputs, outputs, 3, 1, 1, bias=bias))
            layers.extend(behind(depth, outputs))
            if depth == depth_of_attention:
                layers.append(SelfAttention(outputs))
        self.layers = Sequential(*layers)
        if head == "conv":
            self.head = Conv2d(steps[-1], 1, base, bias=bias)
        else:
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(steps[-1] * base**2, 1))
        if norm == "spectral":
            spectral_norm_(self)


@dataclass(frozen=True)
class _Behind:
    """What follows a hidden layer: norm, activation, dropout."""

    norm: str
    norm_first: bool
    activation: str
    slope: float
    dropout: float
    dropout_first: bool

    def __call__(self, depth: int, channels: int) -> list[nn.Module]:
        """Return the modules behind layer `depth`, which has `channels` feature maps."""
        norm = norm_layer(self.norm, channels)
        layers = [norm] if norm and (depth > 0 or self.norm_first) else []
        layers.append(activation_layer(self.activation, self.slope))
        if self.dropout and (depth == 0 or not self.dropout_first):
            layers.append(Dropout2d(self.dropout))
        return layers


def _double(inputs: int, outputs: int, kernel: int, bias: bool) -> ConvTranspose2d:
    """Return a transposed convolution of stride 2 that doubles the side exactly."""
    padding, odd = (kernel - 1) // 2, kernel % 2
    return ConvTranspose2d(inputs, outputs, kernel, 2, padding, odd, bias=bias)
