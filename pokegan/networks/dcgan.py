"""DCGAN (arXiv 1511.06434): the convolutional generator and discriminator, at any size 4 * 2^n."""

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from pokegan.errors import ConfigError
from pokegan.networks.layers import activation_layer, ladder, norm_layer
from pokegan.networks.spectral_norm import spectral_norm_

BASE = 4  # side of the smallest feature map, px


class DCGANGenerator(nn.Module):
    """Latents to pictures by transposed convolutions, kernel 4 and stride 2.

    Args:
        size: side of the pictures in px, 4 times a power of two.
        latent_size: length of a latent vector.
        channels: feature maps at 4 px, 8 px, ... up to size / 2, for some size; see `ladder`.
        norm: batch, instance or none, behind every hidden convolution.
        activation: relu or lrelu.
        bias: whether the convolutions have a bias.
    """

    def __init__(
        self,
        size: int = 64,
        latent_size: int = 100,
        channels: Sequence[int] = (512, 256, 128, 64),
        norm: str = "batch",
        activation: str = "relu",
        bias: bool = False,
    ) -> None:
        super().__init__()
        if norm == "spectral":
            raise ConfigError("the generator's norm: choose one of batch, instance, none")
        self.latent_size = latent_size
        steps = ladder(size, BASE, channels)
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(latent_size, steps[0], BASE, bias=bias),
            *_behind(norm, activation, steps[0]),
        ]
        for inputs, outputs in itertools.pairwise(steps):
            layers.append(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=bias))
            layers.extend(_behind(norm, activation, outputs))
        layers += [nn.ConvTranspose2d(steps[-1], 3, 4, 2, 1, bias=bias), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        """[N, latent_size] to [N, 3, size, size] in [-1, 1]."""
        pictures: Tensor = self.layers(latents[:, :, None, None])
        return pictures


class DCGANDiscriminator(nn.Module):
    """Pictures to one logit each by convolutions, kernel 4 and stride 2.

    Args:
        size: side of the pictures in px, 4 times a power of two.
        channels: feature maps at size / 2, size / 4, ... down to 4 px, for some size.
        norm: batch, instance or none, behind the hidden convolutions; or spectral, on every one.
        norm_first: whether the first convolution has the norm too.
        activation: relu or lrelu.
        bias: whether the convolutions have a bias.
    """

    def __init__(
        self,
        size: int = 64,
        channels: Sequence[int] = (64, 128, 256, 512),
        norm: str = "batch",
        norm_first: bool = False,
        activation: str = "lrelu",
        bias: bool = False,
    ) -> None:
        super().__init__()
        steps = (3, *reversed(ladder(size, BASE, tuple(reversed(channels)))))
        layers: list[nn.Module] = []
        for depth, (inputs, outputs) in enumerate(itertools.pairwise(steps)):
            own_norm = norm if depth > 0 or norm_first else "none"
            layers.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=bias))
            layers.extend(_behind(own_norm, activation, outputs))
        layers.append(nn.Conv2d(steps[-1], 1, BASE, bias=bias))
        self.layers = nn.Sequential(*layers)
        if norm == "spectral":
            spectral_norm_(self)

    def forward(self, pictures: Tensor) -> Tensor:
        """[N, 3, size, size] in [-1, 1] to [N] logits."""
        logits: Tensor = self.layers(pictures)
        return logits.flatten()


def _behind(norm: str, activation: str, channels: int) -> list[nn.Module]:
    """The norm (if any) and the activation that follow a convolution."""
    layer = norm_layer(norm, channels)
    return [*([layer] if layer else []), activation_layer(activation)]
