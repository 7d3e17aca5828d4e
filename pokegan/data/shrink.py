"""Prepared pictures at a fraction of their size, for the earlier stages of a run that grows."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pokegan.errors import ConfigError

Pictures = npt.NDArray[np.uint8]

_CHUNK = 1 << 22  # values of the larger pictures at a time


def downscaled(images: Pictures, size: int) -> Pictures:
    """Shrink pictures by a whole factor: each value is the mean of its block, ties rounded up.

    Args:
        images: [N, H, H, 3] uint8; may be mapped from a file, it is read a piece at a time.
        size: px, a divisor of H.

    Returns:
        [N, size, size, 3] uint8; `images` itself when H is `size`.

    Raises:
        ConfigError: `size` does not divide H.
    """
    count, side = images.shape[:2]
    if not 1 <= size <= side or side % size:
        raise ConfigError(
            f"--stages: pictures of {side} px cannot become {size} px by whole blocks"
        )
    if size == side:
        return images
    result = np.empty((count, size, size, 3), np.uint8)
    chunk = max(1, _CHUNK // (side * side * 3))
    for start in range(0, count, chunk):
        result[start : start + chunk] = _block_means(images[start : start + chunk], side // size)
    return result


def _block_means(images: Pictures, factor: int) -> npt.NDArray[Any]:
    """Add the rows of each block, then its columns, in the narrowest integers that hold the sum."""
    area = factor * factor
    kind = np.uint16 if (2 * 255 + 1) * area < 1 << 16 else np.uint32
    rows = images[:, ::factor].astype(kind)
    for row in range(1, factor):
        rows += images[:, row::factor]
    sums: npt.NDArray[Any] = rows[:, :, ::factor].copy()
    for column in range(1, factor):
        sums += rows[:, :, column::factor]
    sums *= 2
    sums += kind(area)
    sums //= kind(2 * area)
    return sums
