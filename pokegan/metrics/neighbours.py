"""Distances between every point of one set and every point of another, a few rows at a time."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

ROWS = 512  # of a distance matrix in memory at a time


def distances(
    queries: Tensor, points: Tensor | Sequence[Tensor], rows: int = ROWS
) -> Iterator[tuple[slice, Tensor]]:
    """Yield (which queries, [up to `rows`, N] Euclidean distances), in order.

    In float64, so that the squares that cancel leave distances true to 1e-7 of the points' lengths.

    Args:
        queries: [M, D].
        points: [N, D], or several such sets: variants of the same N points, of which the nearest
            counts.
        rows: queries at a time; memory is `rows` x N numbers, whatever M is.
    """
    variants = [points] if isinstance(points, Tensor) else list(points)
    centre = torch.stack([one.mean(dim=0, dtype=torch.float64) for one in variants]).mean(dim=0)
    centred = [one.double() - centre for one in variants]
    squares = [one.square().sum(dim=1) for one in centred]
    for start in range(0, len(queries), rows):
        some = queries[start : start + rows].double() - centre
        lengths = some.square().sum(dim=1, keepdim=True)
        nearest = torch.full((len(some), len(centred[0])), torch.inf, dtype=torch.float64)
        nearest = nearest.to(queries.device)
        for one, own in zip(centred, squares, strict=True):
            square = torch.addmm(own, some, one.T, alpha=-2).add_(lengths)
            torch.minimum(nearest, square, out=nearest)
        yield slice(start, start + len(some)), nearest.clamp_(min=0).sqrt_()


def nearest(
    queries: Tensor,
    points: Tensor | Sequence[Tensor],
    count: int = 1,
    others: bool = False,
    rows: int = ROWS,
    scales: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (distances, places) [M, count] of the nearest points, the nearest first.

    With `others` query i is point i, and is no neighbour of itself in any variant. With `scales`
    [N] the distances from each point are divided by its own.

    Raises:
        ValueError: there are fewer points than `count`.
    """
    available = len(points if isinstance(points, Tensor) else points[0]) - others
    if available < count:
        raise ValueError(f"{count} neighbours among {available} points")
    found, places = [], []
    for where, block in distances(queries, points, rows):
        if others:
            own = torch.arange(where.start, where.stop, device=block.device)
            block[own - where.start, own] = torch.inf
        if scales is not None:
            block /= scales
        values, indices = block.topk(count, largest=False, sorted=True)
        found.append(values)
        places.append(indices)
    return torch.cat(found), torch.cat(places)


def radii(points: Tensor, ranks: Sequence[int], rows: int = ROWS) -> list[Tensor]:
    """Return for each rank k the distance [N] of every point [N, D] to its k-th nearest other.

    Raises:
        ValueError: there are not more points than the largest rank.
    """
    ordered, _ = nearest(points, points, max(ranks), others=True, rows=rows)
    return [ordered[:, rank - 1] for rank in ranks]
