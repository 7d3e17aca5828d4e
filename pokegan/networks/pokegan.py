"""The networks of PokeGAN: a linear layer at the latents (or logit), then strided convolutions.

Either grows to twice the size by one layer at the picture, see `progressive.grow`.
"""

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from pokegan.errors import ConfigError
from pokegan.networks.batch_norm import Sequential
from pokegan.networks.convolution import Conv2d, ConvTranspose2d, Tanh
from pokegan.networks.layers import activation_layer, ladder, norm_layer
from pokegan.networks.noise import Dropout
from pokegan.networks.progressive import Growable, MapFade, PictureFade
from pokegan.networks.spectral_norm import spectral_norm_

KERNELS = (3, 5)
_NORMS_WITH_BIAS = ("batch", "instance", "layer")  # a convolution before one needs none


class PokeganGenerator(Growable):
    """Latents to pictures: a linear layer to the first map, then transposed convolutions.

    A hidden convolution is followed by norm, activation and dropout, the linear layer by nothing.
    With the defaults it has 1,475,360 parameters.

    Args:
        size: side of the pictures in px, `base` times a power of two.
        latent_size: length of a latent vector.
        base: side of the first feature map in px.
        channels: feature maps at base, 2 base, ... up to size / 2, for some size; see `ladder`.
        norm: batch, instance, layer, lrn or none, behind hidden convolutions; or spectral, on
            every layer. A hidden convolution has a bias if its norm has none.
        activation: relu or lrelu (slope 0.2).
        dropout: probability in [0, 1).
        kernel: 3 or 5.
        bias: whether the last convolution has a bias.
        final_size: size of the last stage when the network grows, so that the stages' inner
            layers are the same; 0 for `size`.

    Raises:
        ConfigError: an argument is not as said.
    """

    def __init__(
        self,
        size: int = 64,
        latent_size: int = 96,
        base: int = 4,
        channels: Sequence[int] = (256, 128, 64, 32),
        norm: str = "batch",
        activation: str = "lrelu",
        dropout: float = 0.3,
        kernel: int = 5,
        bias: bool = False,
        final_size: int = 0,
    ) -> None:
        super().__init__(size)
        steps = _steps(size, base, channels, kernel, final_size)
        self.latent_size = latent_size
        self.base = base
        self._before_last = steps[-2:-1]
        self._last = (kernel, bias, norm)
        self.linear = nn.Linear(latent_size, steps[0] * base * base)
        self.hidden = nn.ModuleList(
            Sequential(
                _double(inputs, outputs, kernel, norm not in _NORMS_WITH_BIAS),
                *_behind(norm, activation, dropout, outputs),
            )
            for inputs, outputs in itertools.pairwise(steps)
        )
        self.last = nn.Sequential(_double(steps[-1], 3, kernel, bias), Tanh())
        if norm == "spectral":
            spectral_norm_(self)

    def forward(self, latents: Tensor) -> Tensor:
        """[N, latent_size] to [N, 3, size, size] in [-1, 1]."""
        before = maps = self.linear(latents).unflatten(1, (-1, self.base, self.base))
        for block in self.hidden:
            before, maps = maps, block(maps)
        pictures: Tensor = self.last(maps)
        if self.fade is not None:
            pictures = self.fade(before, pictures)
        return pictures

    def inner(self) -> list[nn.Module]:
        """Return the linear layer and the hidden ones."""
        return [self.linear, *self.hidden]

    def outer(self) -> nn.Module:
        """Return the last convolution with its tanh."""
        return self.last

    def _new_fade(self) -> PictureFade:
        kernel, bias, norm = self._last
        layer = nn.Sequential(_double(self._before_last[0], 3, kernel, bias), Tanh())
        fade = PictureFade(layer)
        if norm == "spectral":
            spectral_norm_(fade)
        return fade


class PokeganDiscriminator(Growable):
    """Pictures to one logit each: convolutions of stride 2, then a linear layer.

    A convolution is followed by norm, activation and dropout. With the defaults it has 392,993
    parameters.

    Args:
        size: side of the pictures in px, `base` times a power of two.
        base: side of the last feature map in px.
        channels: feature maps at size / 2, size / 4, ... down to `base`, for some size.
        norm: batch, instance, layer, lrn or none, behind convolutions; or spectral, on every
            layer. A convolution has a bias if its norm has none.
        activation: relu or lrelu (slope 0.2).
        dropout: probability in [0, 1).
        kernel: 3 or 5.
        final_size: as the generator's.

    Raises:
        ConfigError: an argument is not as said.
    """

    def __init__(
        self,
        size: int = 64,
        base: int = 4,
        channels: Sequence[int] = (32, 64, 128, 256),
        norm: str = "batch",
        activation: str = "lrelu",
        dropout: float = 0.3,
        kernel: int = 3,
        final_size: int = 0,
    ) -> None:
        super().__init__(size)
        deepest_first = _steps(size, base, tuple(reversed(channels)), kernel, final_size)
        steps = tuple(reversed(deepest_first))
        self._second = steps[1:2]
        self._block = (kernel, norm, activation, dropout)
        self.first = _halve(3, steps[0], *self._block)
        self.hidden = nn.ModuleList(
            _halve(inputs, outputs, *self._block) for inputs, outputs in itertools.pairwise(steps)
        )
        self.linear = nn.Linear(steps[-1] * base * base, 1)
        if norm == "spectral":
            spectral_norm_(self)

    def forward(self, pictures: Tensor) -> Tensor:
        """[N, 3, size, size] in [-1, 1] to [N] logits."""
        return self.logits_and_features(pictures)[0]

    def features(self, pictures: Tensor) -> Tensor:
        """[N, 3, size, size] to [N, F], what the linear layer is given; F is C base^2."""
        maps: Tensor = self.first(pictures)
        for depth, block in enumerate(self.hidden):
            maps = block(maps)
            if depth == 0 and self.fade is not None:
                maps = self.fade(pictures, maps)
        return maps.flatten(1)

    def logits_and_features(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return [N] logits and [N, F] features of one pass, which share its dropout masks."""
        features = self.features(pictures)
        return self.linear(features).flatten(), features

    def inner(self) -> list[nn.Module]:
        """Return the linear layer and the blocks, the deepest first, without the first block."""
        return [self.linear, *reversed(list(self.hidden))]

    def outer(self) -> nn.Module:
        """Return the block that the picture enters."""
        return self.first

    def _new_fade(self) -> MapFade:
        fade = MapFade(_halve(3, self._second[0], *self._block))
        if self._block[1] == "spectral":
            spectral_norm_(fade)
        return fade


def _steps(
    size: int, base: int, channels: Sequence[int], kernel: int, final_size: int
) -> tuple[int, ...]:
    """Return the widths from `base` to size / 2, those of `final_size` as far as they go."""
    if kernel not in KERNELS:
        raise ConfigError(f"kernel {kernel}: choose one of {', '.join(map(str, KERNELS))}")
    own = ladder(size, base, channels)
    if not final_size:
        return own
    if final_size < size:
        raise ConfigError(f"final_size {final_size}: at least the size of {size} px is wanted")
    return ladder(final_size, base, channels)[: len(own)]


def _double(inputs: int, outputs: int, kernel: int, bias: bool) -> nn.Module:
    """A transposed convolution that doubles the side."""
    return ConvTranspose2d(inputs, outputs, kernel, 2, kernel // 2, 1, bias=bias)


def _halve(
    inputs: int, outputs: int, kernel: int, norm: str, activation: str, dropout: float
) -> nn.Module:
    """A convolution that halves the side, and what follows it."""
    bias = norm not in _NORMS_WITH_BIAS
    conv = Conv2d(inputs, outputs, kernel, 2, kernel // 2, bias=bias)
    return Sequential(conv, *_behind(norm, activation, dropout, outputs))


def _behind(norm: str, activation: str, dropout: float, channels: int) -> list[nn.Module]:
    """The norm (if any), the activation and the dropout that follow a convolution."""
    layer = norm_layer(norm, channels)
    return [*([layer] if layer else []), activation_layer(activation), Dropout(dropout)]
