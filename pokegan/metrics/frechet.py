"""The Fréchet distance of two sets of features, each taken for a Gaussian.

Heusel et al., arXiv 1706.08500, equation 6: |m - n|^2 + Tr(S + T - 2 (S T)^(1/2)).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pokegan.metrics.estimate import Estimate
from pokegan.metrics.rows import pieces

_ROWS = 2048  # of features turned to float64 at a time
GROUPS = 24
RESAMPLES = 50


@dataclass(frozen=True)
class Gaussian:
    """The mean of features and a factor of their covariance.

    Attributes:
        mean: [D] float64.
        factor: [R, D] float64, R at most the count and at most D, once beyond it: its transpose
            times itself is the unbiased covariance.
        count: pictures.
    """

    mean: Tensor
    factor: Tensor
    count: int

    @property
    def singular(self) -> bool:
        """Whether there are too few pictures for a covariance of full rank."""
        return self.count <= len(self.mean)


def fit(features: Tensor) -> Gaussian:
    """Return the Gaussian of features [N, D], N at least 2.

    The factor is the R of a QR decomposition taken rows by rows (Golub and Van Loan, section 5.2),
    so squares of singular values, which would cost half of the digits, never appear.
    """
    count, dimensions = features.shape
    if count < 2:
        raise ValueError(f"a covariance of {count} pictures")
    mean = _mean(features)
    factor = torch.empty(0, dimensions, dtype=torch.float64, device=features.device)
    for rows in pieces(features, _ROWS):
        factor = torch.cat([factor, rows.double() - mean])
        if len(factor) > dimensions:
            factor = torch.linalg.qr(factor, mode="r").R
    return Gaussian(mean, factor / (count - 1) ** 0.5, count)


def frechet_distance(one: Gaussian, two: Gaussian) -> float:
    """Return the squared Fréchet distance of two Gaussians, at least 0.

    With S = F'F and T = G'G the trace of (S T)^(1/2) is the sum of the singular values of F G'.
    They come to full precision where the eigenvalues of S T, whose roots would be wanted, lose half
    of it; no root of a matrix, no offset on its diagonal and no complex number is involved.
    """
    shared = torch.linalg.svdvals(one.factor @ two.factor.T).sum()
    spread = one.factor.square().sum() + two.factor.square().sum()
    return max(0.0, float((one.mean - two.mean).square().sum() + spread - 2 * shared))


def frechet_estimate(real: Gaussian, fakes: Tensor, seed: int) -> Estimate:
    """Return the distance of `fakes` [N, D] from `real` with a normal interval around it.

    Its standard error is that of a bootstrap over the fakes, drawn in `GROUPS` groups: resampling
    with replacement raises the distance itself (as a smaller N does), so only the spread is used.
    The reals are taken as they are, and the bias of a finite N is not in the interval.
    """
    value = frechet_distance(real, fit(fakes))
    parts = _Parts.of(real, fakes)
    generator = torch.Generator().manual_seed(seed)
    count = len(parts.counts)
    draws = torch.randint(count, (RESAMPLES, count), generator=generator)
    weights = torch.stack([row.bincount(minlength=count) for row in draws]).double()
    again = torch.tensor([parts.distance(row.to(fakes.device)) for row in weights])
    return Estimate.with_error(value, float(again.std()))


@dataclass(frozen=True)
class _Parts:
    """What the distance needs of G groups of fakes, so that any of them add up.

    Features are taken less the mean of all fakes; F is the reals' factor.

    Attributes:
        trace: of the reals' covariance.
        offset: [D] mean of the reals, less that of all fakes.
        counts: [G].
        sums: [G, D] of features.
        squares: [G] of their squared lengths.
        products: [G, R, R] float32, F x x' F' summed over a group.
        factor: [R, D] F.
    """

    trace: Tensor
    offset: Tensor
    counts: Tensor
    sums: Tensor
    squares: Tensor
    products: Tensor
    factor: Tensor

    @classmethod
    def of(cls, real: Gaussian, fakes: Tensor) -> "_Parts":
        mean = _mean(fakes)
        groups = fakes.tensor_split(min(GROUPS, len(fakes)))
        rank = len(real.factor)
        products = torch.empty(len(groups), rank, rank, device=fakes.device)
        sums, squares = [], []
        for index, group in enumerate(groups):
            centred = group.double() - mean
            projected = centred @ real.factor.T  # [n, R]
            products[index] = projected.T @ projected
            sums.append(centred.sum(dim=0))
            squares.append(centred.square().sum())
        counts = torch.tensor([len(group) for group in groups], device=fakes.device)
        return cls(
            real.factor.square().sum(),
            real.mean - mean,
            counts.double(),
            torch.stack(sums),
            torch.stack(squares),
            products,
            real.factor,
        )

    def distance(self, weights: Tensor) -> float:
        """Return the distance of the fakes in which each group stands `weights` [G] times."""
        count = weights @ self.counts
        mean = weights @ self.sums / count
        spread = (weights @ self.squares - count * mean.square().sum()) / (count - 1)
        along = self.factor @ mean
        product = torch.einsum("g,gij->ij", weights.float(), self.products).double()
        product = (product - count * torch.outer(along, along)) / (count - 1)
        shared = torch.linalg.eigvalsh(product).clamp(min=0).sqrt().sum()
        return float((self.offset - mean).square().sum() + self.trace + spread - 2 * shared)


def _mean(features: Tensor) -> Tensor:
    """Return the mean [D] float64 of features [N, D] of any float type."""
    return torch.stack([rows.double().sum(dim=0) for rows in pieces(features, _ROWS)]).sum(
        dim=0
    ) / len(features)
