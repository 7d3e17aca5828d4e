"""Latent vectors from counted randomness: truncated, drawn to the mean, walked between."""

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


def toward_mean(latents: Tensor, psi: float) -> Tensor:
    """Scale latents toward their mean, which is 0: psi 1 leaves them, 0 makes one creature of all.

    Raises:
        ConfigError: `psi` is outside of [0, 1].
    """
    if not 0 <= psi <= 1:
        raise ConfigError(f"--psi {psi}: a number from 0 to 1 is wanted")
    return latents if psi == 1 else latents * psi


def between(latent: LatentConfig, start: Tensor, end: Tensor, share: float) -> Tensor:
    """Return the latents that lie `share` of the way from `start` to `end`, both [B, size].

    Normal latents go along the great circle (slerp, arXiv 1609.04468 section 2.1), their lengths
    in proportion, since hardly any normal vector is as short as the middle of a straight line.
    Uniform ones go the same way as the normal ones of the same quantiles, for the same reason. At
    0 and 1 the ends come back bit for bit.
    """
    if share in (0, 1):
        return end if share else start
    if latent.distribution == "normal":
        return _slerp(start.double(), end.double(), share).float()
    middle = _slerp(_quantile(start), _quantile(end), share)
    return torch.erf(middle / math.sqrt(2)).float()


def _quantile(uniform: Tensor) -> Tensor:
    """Return the normal numbers of the same quantiles as numbers uniform in [-1, 1)."""
    inside = uniform.double().clamp(-1 + 2**-25, 1 - 2**-25)
    return torch.erfinv(inside) * math.sqrt(2)


def _slerp(start: Tensor, end: Tensor, share: float) -> Tensor:
    lengths = start.norm(dim=1, keepdim=True), end.norm(dim=1, keepdim=True)
    tiny = torch.finfo(start.dtype).tiny
    one, two = (v / n.clamp_min(tiny) for v, n in zip((start, end), lengths, strict=True))
    cosine = (one * two).sum(dim=1, keepdim=True).clamp(-1, 1)
    angle = torch.acos(cosine)
    sine = torch.sin(angle)
    straight = sine < 1e-6  # the ends point the same way, or opposite ways: no circle is given
    sine = torch.where(straight, 1, sine)
    near = torch.where(straight, 1 - share, torch.sin((1 - share) * angle) / sine)
    far = torch.where(straight, share, torch.sin(share * angle) / sine)
    found: Tensor = (near * one + far * two) * ((1 - share) * lengths[0] + share * lengths[1])
    return found
