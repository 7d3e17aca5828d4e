"""Memorisation: which generated pictures are copies of training pictures.

A picture is flagged when it is less than half as far from its nearest training picture as that one
is from the nearest other training picture. Where a training picture has a near twin, the lower
quartile of those distances takes the place of its own, so that copies of twins are found too.
By pixels the blank ground and the mean of all pictures count as other training pictures: what is
washed out is near to every pale one and a copy of none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pokegan.metrics.neighbours import nearest
from pokegan.metrics.resize import as_floats, resize

NEAR = 0.5  # of the distance between training pictures
FLOOR = 0.25  # quantile of those distances, in place of a smaller one
EQUAL = 1e-4  # of the largest of those distances: such twins do not count in the quantile
SIDE = 32  # px at which pixels are compared
COARSE = 16  # px at which candidates are looked for
_CANDIDATES = 4
_REACH = 1  # px of 32 by which a copy may be moved
_PICTURES = 256  # at a time
_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class Copies:
    """What was found of N generated pictures.

    Attributes:
        nearest: [N] the training picture nearest to each.
        closeness: [N] distance to it, over half of the distance that training pictures keep from
            one another there: below 1 is a copy.
        twins: the share of training pictures that lie as near to another one.
    """

    nearest: Tensor
    closeness: Tensor
    twins: float

    @property
    def flagged(self) -> Tensor:
        """[N] whether each picture is a copy."""
        return self.closeness < 1

    @property
    def distance(self) -> Tensor:
        """[N] to the nearest, over that one's own distance to the next: 1 is as near as reals."""
        return NEAR * self.closeness


def copies_by_features(real: Tensor, mirrored: Tensor, fake: Tensor) -> Copies:
    """Compare features [R, D] of training pictures, and of their mirror images, with [N, D]."""
    sides = (real, mirrored)
    apart, _ = nearest(real, sides, others=True)
    found, places = nearest(fake, sides)
    limits, twins = _limits(apart[:, 0])
    return Copies(places[:, 0], found[:, 0].double() / limits[places[:, 0]], twins)


def copies_by_pixels(
    real: NDArray[np.uint8], fake: NDArray[np.uint8], background: Sequence[int]
) -> Copies:
    """Compare thumbnails [R, 32, 32, 3] uint8 of training pictures with [N, 32, 32, 3].

    `background` is the colour around the creatures, 3 levels 0..255.

    The distance is Euclidean; of a training picture moved by up to 1 px either way, mirrored or
    not, the nearest counts. It is taken to the 4 pictures that are nearest at 16 px.

    Nearest to a generated picture is the training picture with the least closeness, not with the
    least distance: whatever is blurred is at the least distance from the same few pale or small
    pictures. Since a copy is nearer to its original than to any other (by the triangle
    inequality), the same pictures are flagged either way.
    """
    small = coarse(real)
    apart, _ = _nearest_pixels(real, small[0], real, small, others=True)
    limits, twins = _limits(apart)
    limits = limits.minimum(NEAR * _from_no_picture(real, background)).clamp(min=_TINY)
    closeness, places = _nearest_pixels(fake, coarse(fake)[0], real, small, limits)
    return Copies(places, closeness, twins)


def thumbnails(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return [N, 32, 32, 3] of pictures [N, H, W, 3]; those that are smaller stay as they are."""
    if pictures.shape[1] <= SIDE:
        return np.array(pictures)
    parts = [
        resize(as_floats(pictures[start : start + _PICTURES]), SIDE)
        for start in range(0, len(pictures), _PICTURES)
    ]
    pixels = torch.cat(parts).mul_(255).round_().byte().permute(0, 2, 3, 1).contiguous()
    return pixels.numpy()


def _limits(apart: Tensor) -> tuple[Tensor, float]:
    """Return below which distance [R] from each training picture a copy lies, and the twins.

    Args:
        apart: [R] distance of each to the nearest other.
    """
    unequal = apart[apart > EQUAL * apart.max()]
    floor = unequal.double().quantile(FLOOR) if len(unequal) else torch.zeros(()).double()
    limits = NEAR * apart.double().maximum(floor)
    twins = float((apart < NEAR * floor).double().mean())
    return limits.clamp(min=_TINY), twins


def _from_no_picture(real: NDArray[np.uint8], background: Sequence[int]) -> Tensor:
    """Return [R] float64: how far each picture is from the blank ground or the mean of all."""
    whole = as_floats(real)
    blank = torch.tensor(background, dtype=torch.float32).view(3, 1, 1) / 255
    away = [(whole - one).flatten(1).norm(dim=1) for one in (blank, whole.mean(dim=0))]
    return torch.minimum(*away).double()


def _nearest_pixels(
    queries: NDArray[np.uint8],
    small_queries: Tensor,
    points: NDArray[np.uint8],
    small_points: Sequence[Tensor],
    scales: Tensor | None = None,
    others: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return (distance [M], place [M]) of the nearest point in any variant.

    Args:
        queries: [M, S, S, 3].
        small_queries: [M, 768] the same, coarse.
        points: [N, S, S, 3].
        small_points: the same, coarse, in both directions, each [N, 768].
        scales: [N] by which the distances from each point are divided.
        others: whether query i is point i, and no neighbour of itself.
    """
    count = min(_CANDIDATES, len(points) - others)
    _, candidates = nearest(small_queries, small_points, count, others, scales=scales)
    whole = as_floats(points)
    distances, places = [], []
    for start in range(0, len(queries), _PICTURES):
        some = as_floats(queries[start : start + _PICTURES]).flatten(1)
        among = candidates[start : start + _PICTURES]  # [m, count]
        found = torch.stack([_moved_distance(some, whole[one]) for one in among.T]).double()
        least = (found if scales is None else found / scales[among.T]).min(dim=0)
        distances.append(least.values)
        places.append(among.gather(1, least.indices[:, None])[:, 0])
    return torch.cat(distances), torch.cat(places)


def coarse(pictures: NDArray[np.uint8]) -> Sequence[Tensor]:
    """Return pictures at 16 px in [0, 1] and their mirror images, each [N, 768]."""
    size = min(COARSE, pictures.shape[1])
    small = torch.cat(
        [
            resize(as_floats(pictures[start : start + _PICTURES]), size)
            for start in range(0, len(pictures), _PICTURES)
        ]
    )
    return small.flatten(1), small.flip(3).flatten(1)


def _moved_distance(queries: Tensor, points: Tensor) -> Tensor:
    """Return [B]: the distance of each query [B, 3 S S] to the nearest variant of its own point."""
    size = points.shape[-1]
    wide = functional.pad(points, [_REACH] * 4, mode="replicate")
    found = torch.full((len(queries),), torch.inf)
    for down in range(2 * _REACH + 1):
        for across in range(2 * _REACH + 1):
            moved = wide[:, :, down : down + size, across : across + size]
            for variant in (moved, moved.flip(3)):
                found = found.minimum((queries - variant.flatten(1)).square().sum(dim=1))
    return found.sqrt()
