"""Precision, recall, density and coverage: which pictures lie among those of the other set.

A set's manifold is the union of balls around its pictures, each reaching to the k-th nearest other
of its own set. Precision and recall: Kynkäänniemi et al., arXiv 1904.06991, equation 2, k = 3.
Density and coverage: Naeem et al., arXiv 2002.09797, equations 4 and 6, k = 5.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pokegan.metrics.neighbours import ROWS, distances, radii

PRECISION_RANK = 3
DENSITY_RANK = 5


@dataclass(frozen=True)
class Manifold:
    """What each picture contributes; the means are the measures.

    Attributes:
        precision: [F] 1 for a fake within the reals' manifold, else 0.
        density: [F] in how many of the reals' balls a fake is, over k.
        recall: [R] 1 for a real within the fakes' manifold, or a share of several sets of fakes.
        coverage: [R] 1 for a real that has a fake within its ball, or a share as above.
        spread: the fakes' median distance to their third neighbour over that of the reals: about 1
            when fakes vary as reals do, 0 when they are copies of one another.
    """

    precision: Tensor
    density: Tensor
    recall: Tensor
    coverage: Tensor
    spread: float


def manifold(real: Tensor, fake: Tensor, rows: int = ROWS) -> Manifold:
    """Compare features [R, D] of reals with [F, D] of fakes.

    All four depend on the numbers of pictures, so equally many of both are compared: with more
    fakes, as many sets of R fakes as there are, and the mean over them; with more reals, the first
    F of them. A picture on the edge of a ball is in it for precision and recall, not for density
    and coverage, as in the papers.

    Raises:
        ValueError: a side has not more than 5 pictures.
    """
    real, sets = equal_sets(real, fake)
    near, far = radii(real, (PRECISION_RANK, DENSITY_RANK), rows)
    parts = [_compare(real, near, far, one, rows) for one in sets]
    return Manifold(
        torch.cat([one.precision for one in parts]),
        torch.cat([one.density for one in parts]),
        torch.stack([one.recall for one in parts]).mean(dim=0),
        torch.stack([one.coverage for one in parts]).mean(dim=0),
        sum(one.spread for one in parts) / len(parts),
    )


def spread(real: Tensor, fake: Tensor, rows: int = ROWS) -> float:
    """Return `Manifold.spread` alone, of points [R, D] and [F, D] in any space."""
    real, sets = equal_sets(real, fake)
    (near,) = radii(real, (PRECISION_RANK,), rows)
    return sum(_ratio(near, *radii(one, (PRECISION_RANK,), rows)) for one in sets) / len(sets)


def equal_sets(real: Tensor, fake: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return reals, and sets of as many fakes, none of them in two sets."""
    real = real[: len(fake)]
    starts = range(0, len(fake) - len(real) + 1, len(real))
    return real, [fake[start : start + len(real)] for start in starts]


def _ratio(near: Tensor, reach: Tensor) -> float:
    tiny = torch.finfo(torch.float64).tiny
    return float(reach.median() / near.median().clamp(min=tiny))


def _compare(real: Tensor, near: Tensor, far: Tensor, fake: Tensor, rows: int) -> Manifold:
    (reach,) = radii(fake, (PRECISION_RANK,), rows)
    precision, density, recall, covered = [], [], [], []
    for where, block in distances(real, fake, rows):  # [r, F]
        recall.append((block <= reach).any(dim=1))
        covered.append((block < far[where, None]).any(dim=1))
    for _, block in distances(fake, real, rows):  # [f, R]
        precision.append((block <= near).any(dim=1))
        density.append((block < far).sum(dim=1).double() / DENSITY_RANK)
    return Manifold(
        torch.cat(precision).double(),
        torch.cat(density).double(),
        torch.cat(recall).double(),
        torch.cat(covered).double(),
        _ratio(near, reach),
    )
