"""A measured number with its uncertainty."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

RESAMPLES = 1000
NORMAL = 1.96  # standard errors on each side of a 95 % interval


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; the value alone where no interval is known."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def with_error(cls, value: float, error: float) -> "Estimate":
        """Return the normal interval of a value and its standard error."""
        return cls(value, value - NORMAL * error, value + NORMAL * error)


def bootstrap_mean(scores: Tensor, seed: int, resamples: int = RESAMPLES) -> Estimate:
    """Return the mean of scores [N] with its percentile bootstrap interval (Efron, 1979)."""
    scores = scores.double().cpu()
    generator = torch.Generator().manual_seed(seed)
    rows = [
        scores[torch.randint(len(scores), (len(scores),), generator=generator)].mean()
        for _ in range(resamples)
    ]
    low, high = torch.stack(rows).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return Estimate(float(scores.mean()), float(low), float(high))


def share(flags: Tensor) -> Estimate:
    """Return how many of flags [N] are set, as a share, with Wilson's score interval (1927).

    Unlike a bootstrap it says something where none or all are set. Flags between 0 and 1 are means
    of several, and the interval is wider than need be.
    """
    count = len(flags)
    found = float(flags.double().mean())
    scale = 1 + NORMAL**2 / count
    middle = (found + NORMAL**2 / (2 * count)) / scale
    half = NORMAL * math.sqrt(found * (1 - found) / count + (NORMAL / (2 * count)) ** 2) / scale
    return Estimate(found, max(0.0, middle - half), min(1.0, middle + half))
