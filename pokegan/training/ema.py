"""The moving average of the generator that samples are drawn from."""

import copy
from typing import TypeAlias

import torch
from torch import nn

from pokegan.networks.spectral_norm import spectral_norms

Tensors: TypeAlias = list[torch.Tensor]


class MovingAverage:
    """An exponential moving average of a network's weights and of its buffers.

    The half-life is in pictures seen and grows with the run, at most 5 % of what was seen so far,
    so that the first weights are forgotten quickly (as in arXiv 1912.04958's training code, where
    the same ramp is used). The vectors of a spectral norm are copied: a mean of unit vectors is
    shorter than 1 and would give too small a norm.

    Args:
        network: what is averaged.
        half_life_kimg: thousands of pictures; 0 keeps an exact copy.
    """

    RAMP = 0.05

    def __init__(self, network: nn.Module, half_life_kimg: float) -> None:
        self.half_life = half_life_kimg * 1000
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._averages, self._sources, self._copies = self._pair(network)

    @torch.no_grad()
    def update(self, images_seen: int, batch: int) -> None:
        """Move towards the network after a step of `batch` images, `images_seen` in all."""
        half_life = min(self.half_life, self.RAMP * images_seen)
        weight = 1.0 - 0.5 ** (batch / half_life) if half_life > 0 else 1.0
        torch._foreach_lerp_(self._averages, self._sources, weight)
        for averages, sources in self._copies:
            torch._foreach_copy_(averages, sources)

    def _pair(self, network: nn.Module) -> tuple[Tensors, Tensors, list[tuple[Tensors, Tensors]]]:
        """Return what is averaged, from what, and what is only copied, a pair a dtype."""
        vectors = {id(v) for norm in spectral_norms(self.network) for v in norm.vectors()}
        pairs = list(
            zip(
                [*self.network.parameters(), *self.network.buffers()],
                [*network.parameters(), *network.buffers()],
                strict=True,
            )
        )
        mean = [a.is_floating_point() and id(a) not in vectors for a, _ in pairs]
        floating = [(a, b.detach()) for (a, b), one in zip(pairs, mean, strict=True) if one]
        others = [pair for pair, one in zip(pairs, mean, strict=True) if not one]
        copies = [
            ([a for a, _ in others if a.dtype == dtype], [b for a, b in others if a.dtype == dtype])
            for dtype in dict.fromkeys(a.dtype for a, _ in others)  # one call each on a GPU
        ]
        return [a for a, _ in floating], [b for _, b in floating], copies
