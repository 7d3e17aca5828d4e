"""The kernel distance: the squared maximum mean discrepancy of two sets of features.

Binkowski et al., arXiv 1801.01401: the kernel (x'y / D + 1)^3 and the unbiased estimator, whose
expectation does not depend on the number of pictures. It may be below 0.
"""

import torch
from torch import Tensor

from pokegan.metrics.estimate import Estimate
from pokegan.metrics.rows import pieces

_ROWS = 512  # of a kernel matrix in memory at a time


def kernel_distance(real: Tensor, fake: Tensor) -> Estimate:
    """Return the distance of features [M, D] and [N, D], M and N at least 3.

    Every pair is used once, so this is the mean over all subsets that one could draw. The interval
    is normal; its standard error is the jackknife's, which leaves out each picture of either side
    in turn.
    """
    if min(len(real), len(fake)) < 3:
        raise ValueError(f"kernel distance of {len(real)} and {len(fake)} pictures")
    inside = [_row_sums(one, one) - _kernel_of_itself(one) for one in (real, fake)]
    across = [_row_sums(real, fake), _row_sums(fake, real)]
    value, variance = _value(inside[0].sum(), inside[1].sum(), across[0].sum(), real, fake), 0.0
    for own, other, crossing in ((0, 1, across[0]), (1, 0, across[1])):
        variance += _jackknife(inside[own], inside[other].sum(), crossing, len(across[other]))
    return Estimate.with_error(value, variance**0.5)


def _value(real: Tensor, fake: Tensor, across: Tensor, reals: Tensor, fakes: Tensor) -> float:
    m, n = len(reals), len(fakes)
    return float(real / (m * (m - 1)) + fake / (n * (n - 1)) - 2 * across / (m * n))


def _jackknife(own: Tensor, other: Tensor, across: Tensor, n: int) -> float:
    """Return the variance that the M pictures of one side bring.

    Args:
        own: [M] sums of the kernel with each other picture of its side.
        other: the sum over all pairs of the other side.
        across: [M] sums of the kernel with each picture of the other side.
        n: pictures of the other side.
    """
    m = len(own)
    within = (own.sum() - 2 * own) / ((m - 1) * (m - 2))
    without = within + other / (n * (n - 1)) - 2 * (across.sum() - across) / ((m - 1) * n)
    return float((m - 1) * without.var(correction=0))


def _row_sums(one: Tensor, two: Tensor) -> Tensor:
    """Return [M] float64: for each picture of `one` the sum of the kernel with all of `two`."""
    two = two.double()
    return torch.cat(
        [
            (rows.double() @ two.T / two.shape[1] + 1).pow_(3).sum(dim=1)
            for rows in pieces(one, _ROWS)
        ]
    )


def _kernel_of_itself(features: Tensor) -> Tensor:
    return torch.cat(
        [
            (rows.double().square().sum(dim=1) / rows.shape[1] + 1) ** 3
            for rows in pieces(features, _ROWS)
        ]
    )
