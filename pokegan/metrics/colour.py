"""Colours and the share of a picture that its creature covers, as distributions over a set.

No network is involved. Colours are OKLab (B. Ottosson, 2020), in which equal distances look about
equally large: L in [0, 1], a and b within 0.4 of 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pokegan.metrics.resize import as_floats, resize

SIDE = 32  # px at which colours are looked at
FOREGROUND = 0.06  # OKLab distance from the background beyond which a pixel belongs to the creature
_DIRECTIONS = 32
_BINS = 4096
_REACH = 1.25  # no colour lies further from black along any direction
_QUANTILES = 1024
_PICTURES = 64  # at a time

_TO_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


@dataclass(frozen=True)
class Colours:
    """What the distances need of a set.

    Attributes:
        cumulative: [32, 4096] float64, the share of pixels up to each bin along 32 directions.
        coverage: [N] the share of each picture that differs from the background, in [0, 1].
    """

    cumulative: Tensor
    coverage: Tensor


def colours(pictures: NDArray[np.uint8], background: Sequence[int]) -> Colours:
    """Return the distributions of pictures [N, H, W, 3] uint8 on `background`, 3 levels 0..255."""
    ground = oklab(torch.tensor(background, dtype=torch.float32).view(1, 3, 1, 1) / 255)
    counts = torch.zeros(_DIRECTIONS, _BINS, dtype=torch.float64)
    directions, coverage = _directions(), []
    for start in range(0, len(pictures), _PICTURES):
        small = resize(as_floats(pictures[start : start + _PICTURES]), SIDE)
        lab = oklab(small)
        coverage.append(((lab - ground).norm(dim=1) > FOREGROUND).float().mean(dim=(1, 2)))
        along = directions @ lab.permute(1, 0, 2, 3).flatten(1)  # [32, n * 32 * 32]
        counts += torch.stack([row.histc(_BINS, -_REACH, _REACH) for row in along])
    cumulative = counts.cumsum(dim=1) / counts.sum(dim=1, keepdim=True)
    return Colours(cumulative, torch.cat(coverage))


def colour_distance(real: Colours, fake: Colours) -> float:
    """Return 100 times the sliced Wasserstein-1 distance of the pixels' colours, in OKLab.

    Along each direction it is the area between the cumulative histograms (of bins 0.0006 wide). 1
    is about the smallest difference of two large patches that a person sees.
    """
    area = (real.cumulative - fake.cumulative).abs().sum(dim=1) * (2 * _REACH / _BINS)
    return 100 * float(area.mean())


def coverage_distance(real: Colours, fake: Colours) -> float:
    """Return the Wasserstein-1 distance of the covered shares over the pictures, in per cent."""
    one, two = (_quantiles(side.coverage[None]) for side in (real, fake))
    return 100 * float((one - two).abs().mean())


def oklab(images: Tensor) -> Tensor:
    """Return [N, 3, H, W] OKLab of sRGB in [0, 1]."""
    linear = torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055) ** 2.4)
    cones = torch.einsum("ij,njhw->nihw", torch.tensor(_TO_CONES), linear)
    roots = cones.clamp_(min=0).pow_(1 / 3)
    return torch.einsum("ij,njhw->nihw", torch.tensor(_TO_LAB), roots)


def _directions() -> Tensor:
    """Return [32, 3] unit vectors spread evenly over half a sphere (a Fibonacci lattice)."""
    index = torch.arange(_DIRECTIONS, dtype=torch.float64)
    height = (index + 0.5) / _DIRECTIONS
    angle = index * math.pi * (3 - math.sqrt(5))
    around = (1 - height**2).sqrt()
    return torch.stack([around * angle.cos(), around * angle.sin(), height], dim=1).float()


def _quantiles(rows: Tensor) -> Tensor:
    """Return [R, 1024]: the middles of 1,024 equal shares of each sorted row."""
    ordered = torch.from_numpy(np.sort(rows.numpy(), axis=1))
    places = (torch.arange(_QUANTILES, dtype=torch.float64) + 0.5) / _QUANTILES * rows.shape[1]
    return ordered[:, places.long().clamp(max=rows.shape[1] - 1)]
