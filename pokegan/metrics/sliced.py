"""The sliced Wasserstein distance of patches, level by level: no network is involved.

Karras et al., arXiv 1710.10196, section 5: 128 patches of 7 x 7 x 3 pixels a picture from each
level of a Laplacian pyramid, every colour channel of a level brought to mean 0 and deviation 1 over
the set, 512 random directions, 10^3 times the mean distance of the sorted projections.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pokegan.metrics.pyramid import laplacian, levels
from pokegan.metrics.resize import as_floats
from pokegan.metrics.rows import pieces

SIDE = 7
PATCHES = 128
DIRECTIONS = 512
MOST_PICTURES = 2048  # of each side; their patches of a level take 154 MB
_PICTURES = 64  # at a time
_AT_ONCE = 32  # directions
_ROWS = 8192  # patches in float64 at a time


def sliced_wasserstein(
    real: NDArray[np.uint8], fake: NDArray[np.uint8], seed: int = 0
) -> dict[int, float]:
    """Return the distance of each level, by its side in px, times 10^3.

    Equally many pictures of both sides are compared, at most 2,048: the first ones.

    Args:
        real: [M, S, S, 3], S at least 7.
        fake: [N, S, S, 3].
        seed: of the patches' places and of the directions.
    """
    count = min(len(real), len(fake), MOST_PICTURES)
    return {
        side: 1000 * _of_level(real[:count], fake[:count], index, seed)
        for index, side in enumerate(levels(real.shape[1]))
    }


def _of_level(real: NDArray[np.uint8], fake: NDArray[np.uint8], level: int, seed: int) -> float:
    """Return the distance of one level; its patches are gone before those of the next are cut."""
    one = normalised(patches(real, level, seed))
    two = normalised(patches(fake, level, seed + 1))
    return _distance(one, two, seed)


def patches(pictures: NDArray[np.uint8], level: int, seed: int) -> Tensor:
    """Return [N * 128, 3, 7, 7] float32: patches of a level from anywhere in pictures [N, S, S, 3].

    The places are the same for the same seed, level and order of the pictures.
    """
    side = levels(pictures.shape[1])[level]
    own = (seed * len(levels(1024)) + level) % 2**63
    generator = torch.Generator().manual_seed(own)
    places = torch.randint(0, side - SIDE + 1, (len(pictures), PATCHES, 2), generator=generator)
    window = torch.arange(SIDE)
    rows = places[..., 0, None] + window  # [N, 128, 7]
    columns = places[..., 1, None] + window
    found = torch.empty(len(pictures), PATCHES, 3, SIDE, SIDE)
    for start in range(0, len(pictures), _PICTURES):
        some = slice(start, start + _PICTURES)
        band = laplacian(as_floats(pictures[some]))[level].permute(0, 2, 3, 1)
        which = torch.arange(len(band)).view(-1, 1, 1, 1)
        cut = band[which, rows[some][..., None], columns[some][..., None, :]]
        found[some] = cut.permute(0, 1, 4, 2, 3)
    return found.flatten(0, 1)


def normalised(descriptors: Tensor) -> Tensor:
    """Return patches [K, 3, 7, 7] as [K, 147], each channel with mean 0 and deviation 1 overall.

    A channel that is the same everywhere becomes 0. The patches are written over, and nothing as
    large as they are is made beside them.
    """
    count = descriptors[:, 0].numel()
    sums = torch.zeros(2, 3, 1, 1, dtype=torch.float64)
    for some in pieces(descriptors, _ROWS):
        exact = some.double()
        for total, values in zip(sums, (exact, exact.square()), strict=True):
            total += values.sum(dim=(0, 2, 3)).view(3, 1, 1)
    mean, square = sums / count
    deviation = (square - mean.square()).clamp(min=0).sqrt().clamp(min=1e-6)
    return descriptors.sub_(mean.float()).div_(deviation.float()).flatten(1)


def _distance(one: Tensor, two: Tensor, seed: int) -> float:
    """Return the mean over directions of the Wasserstein-1 distance of the projections."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(DIRECTIONS, one.shape[1], generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    total = torch.zeros((), dtype=torch.float64)
    for some in torch.split(directions, _AT_ONCE):
        difference = _sorted(some @ one.T).sub_(_sorted(some @ two.T)).abs_()
        total += difference.mean(dim=1, dtype=torch.float64).sum()
    return float(total / DIRECTIONS)


def _sorted(rows: Tensor) -> Tensor:
    """Sort each row in place, by numpy: many times as fast as torch, as it keeps no indices."""
    rows.numpy().sort(axis=1)
    return rows
