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

SIDE = 7
PATCHES = 128
DIRECTIONS = 512
MOST_PICTURES = 2048  # of each side; their patches of a level take 154 MB
_PICTURES = 64  # at a time
_AT_ONCE = 32  # directions


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
    found = {}
    for index, side in enumerate(levels(real.shape[1])):
        one, two = (
            normalised(patches(pictures[:count], index, seed + order))
            for order, pictures in enumerate((real, fake))
        )
        found[side] = 1000 * _distance(one, two, seed)
    return found


def patches(pictures: NDArray[np.uint8], level: int, seed: int) -> Tensor:
    """Return [N * 128, 3, 7, 7] float32: patches of a level from anywhere in pictures [N, S, S, 3].

    The places are the same for the same seed, level and order of the pictures.
    """
    side = levels(pictures.shape[1])[level]
    generator = torch.Generator().manual_seed(seed * len(levels(1024)) + level)
    places = torch.randint(0, side - SIDE + 1, (len(pictures), PATCHES, 2), generator=generator)
    window = torch.arange(SIDE)
    rows = places[..., 0, None] + window  # [N, 128, 7]
    columns = places[..., 1, None] + window
    found = torch.empty(len(pictures), PATCHES, SIDE, SIDE, 3)
    for start in range(0, len(pictures), _PICTURES):
        some = slice(start, start + _PICTURES)
        band = laplacian(as_floats(pictures[some]))[level].permute(0, 2, 3, 1)
        which = torch.arange(len(band)).view(-1, 1, 1, 1)
        found[some] = band[which, rows[some][..., None], columns[some][..., None, :]]
    return found.flatten(0, 1).permute(0, 3, 1, 2)


def normalised(descriptors: Tensor) -> Tensor:
    """Return patches [K, 3, 7, 7] as [K, 147], each channel with mean 0 and deviation 1 overall.

    A channel that is the same everywhere becomes 0. The patches are written over.
    """
    mean = descriptors.mean(dim=(0, 2, 3), keepdim=True)
    deviation = descriptors.std(dim=(0, 2, 3), correction=0, keepdim=True)
    return descriptors.sub_(mean).div_(deviation.clamp(min=1e-6)).flatten(1)


def _distance(one: Tensor, two: Tensor, seed: int) -> float:
    """Return the mean over directions of the Wasserstein-1 distance of the projections."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(DIRECTIONS, one.shape[1], generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    total = torch.zeros((), dtype=torch.float64)
    for some in torch.split(directions, _AT_ONCE):
        difference = _sorted(some @ one.T) - _sorted(some @ two.T)
        total += difference.abs().mean(dim=1, dtype=torch.float64).sum()
    return float(total / DIRECTIONS)


def _sorted(rows: Tensor) -> Tensor:
    """Sort each row in place, by numpy: many times as fast as torch, as it keeps no indices."""
    rows.numpy().sort(axis=1)
    return rows
