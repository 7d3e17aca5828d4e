"""What the pixels of a set say: figures of each picture and of all, read in one pass.

A megabyte of pixels is in memory at a time, and some 240 bytes a picture to the end.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from pokegan.data.background import PLAIN_BORDER, Mask, Pixels, border_share, foreground
from pokegan.data.geometry import pad_geometry
from pokegan.data.manifest import Picture
from pokegan.data.packed import PackedImages

Floats: TypeAlias = npt.NDArray[np.float32]

GRID = 8

_BLOCK = 1 << 20  # bytes of pixels at a time
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Measures:
    """Figures of N pictures, all as they are in the set.

    Attributes:
        histogram: [3, 256] int64, how many pixels of each channel have each level.
        brightness: [N] mean luma, 0 to 255.
        contrast: [N] standard deviation of the luma, 0 to 127.5.
        saturation: [N] mean HSV saturation of the foreground, 0 to 1; 0 where there is none.
        foreground: [N] share of the pixels that differ from the background, 0 to 1.
        plain: [N] whether the border is the background: `PLAIN_BORDER` of the outermost pixels,
            without the bars that made the picture square.
        layout: [N] distance to the median picture: root mean square, 0 to 255, over the mean
            colours of an 8 x 8 grid.
    """

    histogram: npt.NDArray[np.int64]
    brightness: Floats
    contrast: Floats
    saturation: Floats
    foreground: Floats
    plain: Mask
    layout: Floats


def measure(images: PackedImages) -> Measures:
    """Read every pixel of a set once."""
    count = len(images)
    histogram = np.zeros((3, 256), np.int64)
    columns = np.zeros((4, count), np.float32)
    plain = np.zeros(count, bool)
    grids = np.zeros((count, GRID, GRID, 3), np.uint8)
    for start, block in _blocks(images):
        rows = slice(start, start + len(block))
        for channel in range(3):
            histogram[channel] += np.bincount(block[..., channel].ravel(), minlength=256)
        shown = foreground(block, images.background)
        luma = (block.reshape(-1, 3) @ _LUMA).reshape(len(block), -1)
        columns[0, rows], columns[1, rows] = luma.mean(axis=1), luma.std(axis=1)
        columns[2, rows] = _saturation(block, shown)
        columns[3, rows] = shown.mean(axis=(1, 2))
        plain[rows] = _plain(images, shown, start)
        for i, picture in enumerate(block, start):
            size = (GRID, GRID)
            grids[i] = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
    brightness, contrast, saturation, share = columns
    layout = _layout(grids)
    return Measures(histogram, brightness, contrast, saturation, share, plain, layout)


def _blocks(images: PackedImages) -> Iterator[tuple[int, Pixels]]:
    """The pictures in pieces of about a megabyte, each forgotten when the next one is read."""
    step = max(1, _BLOCK // (images.size**2 * 3))
    for start in range(0, len(images), step):
        yield start, np.ascontiguousarray(images.images[start : start + step])
        _forget(images)


def _forget(images: PackedImages) -> None:
    """Give back the memory of the pixels that were read, where the system can do that."""
    mapped = images.images.base
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _saturation(block: Pixels, shown: Mask) -> npt.NDArray[Any]:
    """Mean of (max - min) / max over the foreground of each picture: [B]."""
    most, least = block.max(axis=-1), block.min(axis=-1)
    share = (most - least) / np.maximum(most, 1).astype(np.float32)
    counted = np.maximum(shown.sum(axis=(1, 2)), 1)
    mean: npt.NDArray[Any] = np.where(shown, share, 0).sum(axis=(1, 2)) / counted
    return mean


def _plain(images: PackedImages, shown: Mask, start: int) -> Mask:
    """Whether the border of each picture, inside its bars, is background: [B]."""
    padded = images.manifest.options.get("fit", "pad") == "pad"
    pictures = images.manifest.pictures[start : start + len(shown)]
    boxes = [_inside(picture, images.size) if padded else None for picture in pictures]
    shares = border_share(shown)  # [B]
    for i, box in enumerate(boxes):
        if box is not None:
            left, top, right, bottom = box
            shares[i] = border_share(shown[i, top:bottom, left:right])
    plain: Mask = shares >= PLAIN_BORDER
    return plain


def _inside(picture: Picture, size: int) -> tuple[int, int, int, int] | None:
    """`(left, top, right, bottom)` of a padded picture inside its bars; None: it has no bars."""
    if not picture.width or not picture.height or picture.width == picture.height:
        return None
    width, height, left, top = pad_geometry(picture.width, picture.height, size)
    return left, top, left + width, top + height


def _layout(grids: Pixels) -> Floats:
    """The distance of each grid [N, 8, 8, 3] to the median of all, cell by cell: [N]."""
    flat = grids.reshape(len(grids), -1)
    median = np.median(flat, axis=0).astype(np.float32)
    distances = np.zeros(len(flat), np.float32)
    for start in range(0, len(flat), 4096):
        apart = flat[start : start + 4096] - median
        distances[start : start + 4096] = np.sqrt(np.square(apart).mean(axis=1))
    return distances
