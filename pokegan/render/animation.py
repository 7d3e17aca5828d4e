"""The progress of a run as a GIF, made from the sample grids that lie on disk.

Two passes over the chosen files, one full-size picture at a time. One palette serves all frames:
measured on 120 grids of 530 px it gives files a third smaller than a palette a frame at the same
error, and a still background does not flicker.
"""

import itertools
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pokegan.errors import PokeganError
from pokegan.files import atomic_path

HOLD_MS = 1500  # how long the last frame stands
LONGEST_MS = 500  # a run of three epochs should not stand still for seconds
SHORTEST_MS = 20  # browsers slow down anything shorter to 100 ms
COLOURS = 255  # one index stays free: Pillow marks pixels that do not change with it
SURVEYED_PIXELS = 32768
STILL = 6  # a change of at most this in each channel is not drawn: a third less to store
ALIKE = 11  # Pillow seeks the nearest colour to c & ~3, which is up to 5.2 from c

_Item = TypeVar("_Item")
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    zlib.error,
    Image.DecompressionBombError,
)


def save_animation(
    frames: Sequence[Path],
    path: Path,
    seconds: float = 8.0,
    max_frames: int = 120,
    max_side: int = 768,
    hold_ms: int | None = HOLD_MS,
) -> None:
    """Write the pictures `frames`, in their order, to `path` as a GIF that loops; atomically.

    Args:
        frames: picture files. Missing and damaged ones are left out; one of another size (an early
            stage of progressive growing) is brought to the size of the last one.
        path: where the GIF is written.
        seconds: how long the change lasts, at most 0.5 s a frame when the last one holds.
        max_frames: evenly thinned to this many, 2 or more; the first and the last always stay.
        max_side: longest side of the GIF in pixels; larger pictures are scaled down.
        hold_ms: how long the last frame stands; None: as long as every other, for a closed loop.

    Raises:
        ValueError: `seconds`, `max_frames` or `max_side` is out of range.
        PokeganError: none of `frames` can be read.
    """
    if not (seconds > 0 and max_frames >= 2 and max_side >= 1):
        raise ValueError(f"no animation of {seconds} s, {max_frames} frames, {max_side} px")
    usable = _trim(frames)
    if not usable:
        raise PokeganError(
            f"no picture to animate for {path}: none of the {len(frames)} frames can be read"
        )
    chosen = thinned(usable, max(2, min(max_frames, int(seconds * 1000 / SHORTEST_MS))))
    readable, colours = _survey(chosen)
    drawn = _drawn(readable, max_side, _palette(colours))
    with atomic_path(path) as temporary:
        next(drawn).save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=drawn,
            duration=_durations(len(readable), seconds, hold_ms),
            loop=0,
            optimize=True,
        )


def progress_frames(
    frames: Sequence[Path], count: int, hold: int, max_side: int
) -> Iterator[NDArray[np.uint8]]:
    """Yield `count` times [H, W, 3] uint8: the pictures `frames` in their order, evenly spread.

    The last `hold` of them, fewer than `count`, show the last picture. Files that cannot be read
    are left out, sizes made one, as in `save_animation`.

    Raises:
        PokeganError: none of `frames` can be read.
    """
    readable = [path for path in _trim(frames) if read_picture(path) is not None]
    if not readable:
        raise PokeganError(f"no picture to animate: none of the {len(frames)} frames can be read")
    full, size = _sizes(readable[-1], max_side)
    shown, pixels = -1, np.empty(0, np.uint8)
    moving = max(1, count - hold)
    for frame in range(count):
        place = min(frame * len(readable) // moving, len(readable) - 1)
        if place != shown:
            shown, pixels = place, np.asarray(_fit(_must_read(readable[place]), full, size))
        yield pixels


def _sizes(last: Path, max_side: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the size of the last picture, and that of the frames."""
    full = _must_read(last).size
    scale = min(1.0, max_side / max(full))
    return full, (max(1, round(full[0] * scale)), max(1, round(full[1] * scale)))


def _trim(frames: Sequence[Path]) -> Sequence[Path]:
    """Cut unreadable files off both ends, so that the first and the last of the rest are good."""
    start, stop = 0, len(frames)
    while stop > start and read_picture(frames[stop - 1]) is None:
        stop -= 1
    while start < stop and read_picture(frames[start]) is None:
        start += 1
    return frames[start:stop]


def thinned(items: Sequence[_Item], count: int) -> list[_Item]:
    """Return `count` >= 2 of `items`, evenly spaced, with both ends; all if there are fewer."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def read_picture(path: Path) -> Image.Image | None:
    """Return the picture in RGB, or None when the file is missing or damaged."""
    try:
        with Image.open(path) as image:
            picture: Image.Image = image.convert("RGB")
            return picture
    except _DAMAGED:
        return None


def _survey(frames: Sequence[Path]) -> tuple[list[Path], NDArray[np.uint8]]:
    """Return the frames that can be read and [1, n, 3] of their colours, a third of the last."""
    generator = np.random.default_rng(0)
    readable: list[Path] = []
    colours: list[NDArray[np.uint8]] = []
    for index, path in enumerate(frames):
        image = read_picture(path)
        if image is None:
            continue
        pixels = np.asarray(image).reshape(-1, 3)
        last = index == len(frames) - 1
        share = SURVEYED_PIXELS // 3 if last else SURVEYED_PIXELS // len(frames) + 1
        readable.append(path)
        colours.append(pixels[generator.integers(0, len(pixels), share)])
    return readable, np.concatenate(colours)[None]


def _palette(colours: NDArray[np.uint8]) -> Image.Image:
    """Return a picture whose palette stands for `colours`, [1, n, 3] uint8.

    The commonest colour, the background, stays as it is, and what is hardly different becomes it:
    an average would turn white to grey.
    """
    image = Image.fromarray(colours).quantize(COLOURS, Image.Quantize.MEDIANCUT, kmeans=1)
    palette = np.array(image.getpalette()).reshape(-1, 3)
    unique, counts = np.unique(colours[0], axis=0, return_counts=True)
    common = unique[counts.argmax()]
    distance = np.sqrt(np.square(palette - common).sum(axis=1))
    palette[distance <= max(ALIKE, distance.min())] = common
    image.putpalette(palette.ravel().tolist())
    return image


def _drawn(frames: Sequence[Path], max_side: int, palette: Image.Image) -> Iterator[Image.Image]:
    """Yield the frames at their final size in the colours of `palette`, reading one at a time."""
    full, size = _sizes(frames[-1], max_side)
    shown: NDArray[np.int16] | None = None  # [H, W, 3]
    for path in frames:
        picture = _fit(_must_read(path), full, size)
        pixels = np.asarray(picture).astype(np.int16)
        if shown is not None:
            still = np.abs(pixels - shown).max(axis=2, keepdims=True) <= STILL
            pixels = np.where(still, shown, pixels)
        shown = pixels
        picture = Image.fromarray(pixels.astype(np.uint8))
        yield picture.quantize(palette=palette, dither=Image.Dither.NONE)


def _must_read(path: Path) -> Image.Image:
    image = read_picture(path)
    if image is None:
        raise PokeganError(f"{path} changed while it was being animated: try again")
    return image


def _fit(image: Image.Image, full: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """Bring a picture to the size `full` with hard pixels, then down to `size` smoothly."""
    if image.size != full:
        image = image.resize(full, Image.Resampling.NEAREST)
    return image if size == full else image.resize(size, Image.Resampling.LANCZOS)


def _durations(count: int, seconds: float, hold_ms: int | None) -> list[int]:
    """Return milliseconds a frame, in the hundredths of a second that GIF counts in."""
    moving = count if hold_ms is None else count - 1
    total = seconds * 1000 if hold_ms is None else min(seconds * 1000, moving * LONGEST_MS)
    edges = [round(i * total / max(1, moving) / 10) * 10 for i in range(moving + 1)]
    durations = [b - a for a, b in itertools.pairwise(edges)]
    return durations if hold_ms is None else [*durations, hold_ms]
