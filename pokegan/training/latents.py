"""Latent vectors from counted randomness, truncated or not."""

import math

import torch
from torch import Tensor

from pokegan.config import LatentConfig
from pokegan.errors import ConfigError
from pokegan.ops.random import Stream, normal, symmetric_uniform, uniform


def draw(
    latent: LatentConfig, seed: int, stream: Stream, step: Tensor | int, samples: Tensor
) -> Tensor:
    """Return [B, latent.size] float32: N(0, 1), or uniform in [-1, 1)."""
    if latent.distribution == "normal":
        return normal(seed, stream, step, samples, latent.size)
    return symmetric_uniform(seed, stream, step, samples, latent.size)


def truncate(
    latents: Tensor, latent: LatentConfig, seed: int, samples: Tensor, bound: float
) -> Tensor:
    """Draw anew every component outside of [-bound, bound], from inside of it.

    The result has the distribution of resampling until all components are inside (the truncation
    trick of arXiv 1809.11096), and a creature whose latents are inside already stays as it is.

    Raises:
        ConfigError: `bound` is not positive.
    """
    if not (bound > 0 and math.isfinite(bound)):
        raise ConfigError(f"--truncation {bound}: a positive number is wanted")
    anew = uniform(seed, Stream.TRUNCATION, 0, samples, latent.size)
    if latent.distribution == "normal":
        reach = math.erf(bound / math.sqrt(2))  # probability of being inside
        central = (anew.double() * 2 - 1) * reach
        inside = (torch.erfinv(central) * math.sqrt(2)).float().clamp(-bound, bound)
    else:
        inside = (anew * 2 - 1) * bound
    return torch.where(latents.abs() > bound, inside, latents)
