"""Memorisation: which generated pictures are copies of training pictures.

A picture is flagged when it is less than half as far from its nearest training picture as that one
is from the nearest other training picture. Where a training picture has a near twin, the lower
quartile of those distances takes the place of its own, so that copies of twins are found too.
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


def copies_by_features(real: Tensor, mirrored: Tensor, fake: Tensor) -> Copies:
    """Compare features [R, D] of training pictures, and of their mirror images, with [N, D]."""
    sides = (real, mirrored)
    apart, _ = nearest(real, sides, others=True)
    found, places = nearest(fake, sides)
    return _judge(apart[:, 0], found[:, 0], places[:, 0])


def copies_by_pixels(real: NDArray[np.uint8], fake: NDArray[np.uint8]) -> Copies:
    """Compare thumbnails [R, 32, 32, 3] uint8 of training pictures with [N, 32, 32, 3].

    The distance is Euclidean; of a training picture moved by up to 1 px either way, mirrored or
    not, the nearest counts. It is taken to the 4 pictures that are nearest at 16 px.
    """
    apart, _ = _nearest_pixels(real, real, others=True)
    found, places = _nearest_pixels(fake, real, others=False)
    return _judge(apart, found, places)


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


def _judge(apart: Tensor, found: Tensor, places: Tensor) -> Copies:
    """Compare distances of fakes [N] with those of the R training pictures from one another."""
    unequal = apart[apart > EQUAL * apart.max()]
    floor = unequal.double().quantile(FLOOR) if len(unequal) else torch.zeros(()).double()
    limits = NEAR * apart.double().maximum(floor)  # [R]
    tiny = torch.finfo(torch.float64).tiny
    closeness = found.double() / limits[places].clamp(min=tiny)
    return Copies(places, closeness, float((apart < NEAR * floor).double().mean()))


def _nearest_pixels(
    queries: NDArray[np.uint8], points: NDArray[np.uint8], others: bool
) -> tuple[Tensor, Tensor]:
    """Return (distance [M], place [M]) of the nearest point in any variant."""
    small = coarse(points)
    count = min(_CANDIDATES, len(points) - others)
    _, candidates = nearest(coarse(queries)[0], small, count, others)  # [M, count]
    whole = as_floats(points)
    distances, places = [], []
    for start in range(0, len(queries), _PICTURES):
        some = as_floats(queries[start : start + _PICTURES]).flatten(1)
        best = torch.stack(
            [_moved_distance(some, whole[one]) for one in candidates[start : start + _PICTURES].T]
        )
        least = best.min(dim=0)
        distances.append(least.values)
        places.append(candidates[start : start + _PICTURES].gather(1, least.indices[:, None])[:, 0])
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
