"""Pictures and grids of pictures: from the numbers of a generator to PNG files.

Below this file a picture is [H, W, 3] uint8; only `to_uint8` knows the range of a generator.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pokegan.errors import PokeganError
from pokegan.files import atomic_path

WHITE = (255, 255, 255)
FAST = 1  # zlib's level: half the time of the usual 6 for a twelfth more bytes
RULE = (160, 165, 174)  # a thin line between rows of pairs


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """Turn pictures of a generator into bytes: [N, 3, H, W] floats in [-1, 1] to [N, H, W, 3].

    -1 becomes 0 and 1 becomes 255, rounded to the nearest; values outside are clamped, infinite
    ones too. Any float type, memory format and device; the copy to the host is made of bytes.

    Raises:
        ValueError: the shape or the type is not that of such pictures.
        PokeganError: a value is NaN.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"expected floats [N, 3, H, W], got {images.dtype} {list(images.shape)}")
    images = images.detach()
    if bool(torch.isnan(images).any()):
        raise PokeganError(
            "the pictures contain NaN: training has diverged; go back to an earlier checkpoint "
            "or train with a lower learning rate"
        )
    scaled = images.float().add(1.0).mul(127.5).round().clamp(0.0, 255.0)
    interleaved = scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous()  # [N, H, W, 3] uint8
    return interleaved.cpu().numpy()


def save_picture(image: NDArray[np.uint8], path: Path) -> None:
    """Write one picture, [H, W, 3] uint8, to `path` as PNG, atomically.

    Raises:
        ValueError: the shape or the type is not that of a picture.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", compress_level=FAST)


def make_grid(
    images: NDArray[np.uint8],
    columns: int | None = None,
    padding: int = 2,
    background: Sequence[int] = WHITE,
) -> NDArray[np.uint8]:
    """Lay pictures out row by row: [N, H, W, 3] uint8 to one picture [rows, columns, 3].

    `padding` pixels of `background` stand around every picture and in places left empty. Without
    `columns` the grid is as near to a square as N allows; it never has more columns than pictures.

    Raises:
        ValueError: no picture, a wrong shape or type, `columns` below 1 or `padding` below 0.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"expected uint8 [N, H, W, 3], got {images.dtype} {list(images.shape)}")
    count, height, width, _ = images.shape
    if count == 0 or padding < 0 or (columns is not None and columns < 1):
        raise ValueError(f"no grid of {count} pictures, {columns} columns and padding {padding}")
    columns = min(count, columns or math.ceil(math.sqrt(count)))
    rows = math.ceil(count / columns)
    down, across = height + padding, width + padding
    grid = np.empty((rows * down + padding, columns * across + padding, 3), np.uint8)
    grid[:] = np.asarray(background, np.uint8)
    for index, image in enumerate(images):
        top = index // columns * down + padding
        left = index % columns * across + padding
        grid[top : top + height, left : left + width] = image
    return grid


def make_pairs(
    originals: NDArray[np.uint8],
    reconstructions: NDArray[np.uint8],
    columns: int | None = None,
    padding: int = 2,
    background: Sequence[int] = WHITE,
) -> NDArray[np.uint8]:
    """Lay out originals, each above its reconstruction: twice [N, H, W, 3] uint8 to one picture.

    Every row of pairs is a grid of two rows as `make_grid` makes it; a line of 1 pixel in `RULE`
    parts it from the next. So R rows of C columns are R (2 (H + padding) + padding + 1) - 1 pixels
    high and C (W + padding) + padding wide. Without `columns` there are as many as make the whole
    as near to a square as N allows.

    Raises:
        ValueError: the two differ in shape, or `make_grid` refuses them.
    """
    if originals.shape != reconstructions.shape:
        raise ValueError(f"pairs of {list(originals.shape)} and {list(reconstructions.shape)}")
    count = len(originals)
    if count == 0 or (columns is not None and columns < 1):
        raise ValueError(f"no grid of {count} pairs and {columns} columns")
    columns = min(count, columns or math.ceil(math.sqrt(2 * count)))
    pieces: list[NDArray[np.uint8]] = []
    for start in range(0, count, columns):
        halves = (half[start : start + columns] for half in (originals, reconstructions))
        row = np.concatenate([_filled(half, columns, background) for half in halves])
        strip = make_grid(row, columns, padding, background)
        rule = np.full_like(strip[:1], RULE)
        pieces += [rule, strip] if pieces else [strip]
    return np.concatenate(pieces)


def save_grid(
    images: NDArray[np.uint8],
    path: Path,
    columns: int | None = None,
    padding: int = 2,
    background: Sequence[int] = WHITE,
) -> None:
    """Write `make_grid` of [N, H, W, 3] uint8 pictures to `path` as PNG, atomically."""
    save_picture(make_grid(images, columns, padding, background), path)


def _filled(images: NDArray[np.uint8], count: int, background: Sequence[int]) -> NDArray[np.uint8]:
    """Return [count, H, W, 3]: the pictures, then empty ones."""
    whole = np.empty((count, *images.shape[1:]), images.dtype)
    whole[:] = np.asarray(background, np.uint8)
    whole[: len(images)] = images
    return whole
