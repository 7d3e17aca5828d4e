"""Noise inside networks: dropout, additive and multiplicative noise, from counted randomness.

In eval mode every layer is the identity. In training a layer draws from the `CountedNoise` that
`attach` gave it, so that a run does not depend on ranks, resumes or graph replays; a network that
is used on its own draws from PyTorch's generator.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pokegan.errors import ConfigError
from pokegan.ops import dropout, random

_FIRST_STREAM = 1 << 16  # streams below it are named in `pokegan.ops.random.Stream`
_STREAMS_PER_NETWORK = 1 << 16


class CountedNoise:
    """Where the noise layers of one network get their numbers.

    Each draw of a step has a stream of its own: the first layer's first call gets the first one.

    Args:
        seed: the run's seed.
        network: number of the network in the run, so that no two share numbers; in [0, 2^15).
    """

    def __init__(self, seed: int, network: int) -> None:
        self.seed = seed
        self.first = _FIRST_STREAM + network * _STREAMS_PER_NETWORK
        self.next = self.first
        self.step: Tensor | None = None
        self.samples: Tensor | None = None

    def begin(self, step: Tensor, samples: Tensor) -> None:
        """Start a step: [] int64 step and [B] int64 global sample indices, on the device."""
        self.step, self.samples, self.next = step, samples, self.first

    def dropout(self, values: Tensor, p: float, maps: bool = False) -> Tensor:
        """Return [N, ...] `values` with some set to 0, as `ops.dropout` does.

        N is a multiple of the step's samples.
        """
        step, samples, streams = self._draw(values.shape[0])
        return dropout(values, p, self.seed, streams.start, step, samples, maps=maps)

    def normal(self, batch: int, count: int, mean: float, std: float, dtype: torch.dtype) -> Tensor:
        """Return [batch, count] of N(mean, std^2), float32 or bfloat16.

        `batch` is a multiple of the step's samples.
        """
        step, samples, streams = self._draw(batch)
        parts = [
            random.normal(self.seed, stream, step, samples, count, mean, std, dtype)
            for stream in streams
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def pass_over(self, batch: int) -> None:
        """Leave out a draw for `batch` values: what comes behind it is as if it had been made."""
        self._draw(batch)

    def _draw(self, batch: int) -> tuple[Tensor, Tensor, range]:
        """Return the step, its samples, and a new stream for each pass over them."""
        if self.step is None or self.samples is None:
            raise RuntimeError("noise was asked for before its first step began")
        share = self.samples.shape[0]
        if batch % share:
            raise RuntimeError(f"a batch of {batch} is no multiple of the step's {share} samples")
        streams = range(self.next, self.next + batch // share)
        self.next = streams.stop
        return self.step, self.samples, streams


class _Noise(nn.Module):
    """A layer that adds or multiplies noise in training and is the identity otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: CountedNoise | None = None

    @property
    def amount(self) -> float:
        """Return how much noise there is in training."""
        raise NotImplementedError

    def _normal(self, like: Tensor, mean: float, std: float) -> Tensor:
        """Return N(mean, std^2) of the shape and dtype of `like`, drawn in float32."""
        if self.counted is None:
            drawn = torch.randn_like(like, dtype=torch.float32).mul_(std)
            return (drawn.add_(mean) if mean else drawn).to(like.dtype)
        dtype = like.dtype if like.dtype == torch.bfloat16 else torch.float32
        drawn = self.counted.normal(like.shape[0], like[0].numel(), mean, std, dtype)
        return _shaped(drawn, like).to(like.dtype)


class Dropout(_Noise):
    """Dropout (Srivastava et al., JMLR 2014): values become 0 with probability `p`.

    The others are divided by 1 - p. Args: p in [0, 1).
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ConfigError(f"dropout {p:g}: a probability in [0, 1) is wanted")
        self.p = p

    @property
    def amount(self) -> float:
        """Return the probability."""
        return self.p

    def forward(self, values: Tensor) -> Tensor:
        """[N, ...] to the same."""
        if not self.training or self.p == 0:
            return values
        if self.counted is None:
            return functional.dropout(values, self.p)
        return self.counted.dropout(values, self.p)

    def extra_repr(self) -> str:
        """Return what `print` shows."""
        return f"p={self.p:g}"


class Dropout2d(Dropout):
    """Dropout of whole feature maps (arXiv 1411.4280)."""

    def forward(self, values: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        if not self.training or self.p == 0:
            return values
        if self.counted is None:
            return functional.dropout2d(values, self.p)
        return self.counted.dropout(values, self.p, maps=True)


class GaussianNoise(_Noise):
    """x + sigma n with n of N(0, 1), for each value anew. Args: sigma >= 0."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        if not (sigma >= 0 and math.isfinite(sigma)):
            raise ConfigError(f"noise {sigma:g}: a number of 0 or more is wanted")
        self.sigma = sigma

    @property
    def amount(self) -> float:
        """Return the standard deviation."""
        return self.sigma

    def forward(self, values: Tensor) -> Tensor:
        """[N, ...] to the same."""
        if not self.training or self.sigma == 0:
            return values
        return values + self._normal(values, 0, self.sigma)

    def extra_repr(self) -> str:
        """Return what `print` shows."""
        return f"sigma={self.sigma:g}"


class MultiplicativeNoise(GaussianNoise):
    """x (1 + sigma n) with n of N(0, 1), for each value anew. Args: sigma >= 0."""

    def forward(self, values: Tensor) -> Tensor:
        """[N, ...] to the same."""
        if not self.training or self.sigma == 0:
            return values
        return values * self._normal(values, 1, self.sigma)


def attach(network: nn.Module, counted: CountedNoise | None) -> int:
    """Let the noise layers of `network` draw from `counted`; return how many there are."""
    layers = [module for module in network.modules() if isinstance(module, _Noise)]
    for layer in layers:
        layer.counted = counted
    return len(layers)


def pass_over(network: nn.Module, batch: int) -> None:
    """Leave out a pass of `batch` values through `network`: other layers draw what they would."""
    for layer in network.modules():
        if isinstance(layer, _Noise) and layer.training and layer.amount and layer.counted:
            layer.counted.pass_over(batch)


def _shaped(numbers: Tensor, like: Tensor) -> Tensor:
    """Give [N, count] numbers the shape of `like`; channels vary fastest, as in channels_last."""
    if like.dim() != 4:
        return numbers.view(like.shape)
    n, c, h, w = like.shape
    return numbers.view(n, h, w, c).permute(0, 3, 1, 2)
