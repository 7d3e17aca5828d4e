"""Which pictures of a set show the same thing twice.

Two questions are asked of every pair. Is the 64-bit perceptual hash within `HASH_RADIUS` bits?
That can be looked up without comparing all pairs, but creatures of one outline on white often
agree in it, whatever their colours. So: is `distance`, taken on 16 x 16 thumbnails in colour, small
everywhere in the picture? Mirrored, shifted and recoloured pictures are no duplicates.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels: TypeAlias = npt.NDArray[np.uint8]

HASH_BITS = 64
HASH_RADIUS = 4
THUMBNAIL = 16

SAME_FILE = "same file"
SAME_PIXELS = "same pixels"
NEAR = "near duplicate"

_GRID = 32
_LUMA_AND_HALF_CHROMA = np.array(  # RGB to Y, Cb / 2, Cr / 2 (ITU-R BT.601)
    [[0.299, 0.587, 0.114], [-0.0843, -0.1656, 0.25], [0.25, -0.2094, -0.0406]], np.float32
)


@dataclass(frozen=True)
class Fingerprints:
    """What is compared of N pictures, one row each.

    Attributes:
        sha256: of the source files.
        digests: of the prepared pixels.
        hashes: [N] uint64, `perceptual_hash`.
        thumbnails: [N, 16, 16, 3] uint8, `thumbnail`; may be mapped from a file.
        lossy: whether the source file was lossy.
    """

    sha256: Sequence[str]
    digests: Sequence[bytes]
    hashes: Sequence[int]
    thumbnails: Pixels
    lossy: Sequence[bool]


@dataclass(frozen=True)
class Match:
    """Picture `index` shows what picture `kept` shows; `kind` is one of the three above."""

    index: int
    kept: int
    kind: str


def find_duplicates(prints: Fingerprints, near: float) -> list[Match]:
    """The pictures to drop, by index.

    Of pictures that show the same the first is kept, though a lossless one before a lossy one.
    Every dropped picture is a duplicate of the kept one itself, not of one that was dropped: chains
    of small differences do not add up. `near` is the largest `distance` of near duplicates; 0 finds
    exact ones only.
    """
    index = HashIndex()
    exact: dict[str | bytes, int] = {}
    matches = []
    for i in sorted(range(len(prints.lossy)), key=lambda i: (prints.lossy[i], i)):
        keys = (prints.sha256[i], prints.digests[i])
        kept = next((exact[key] for key in keys if key in exact), None)
        if kept is None and near > 0:
            kept = _nearest(prints, index.within(prints.hashes[i]), i, near)
        if kept is None:
            index.add(prints.hashes[i], i)
        else:
            matches.append(Match(i, kept, _kind(prints, i, kept)))
        for key in keys:
            exact.setdefault(key, i if kept is None else kept)
    return sorted(matches, key=lambda match: match.index)


def distance(thumbnails: Pixels, thumbnail: Pixels) -> npt.NDArray[np.float32]:
    """How differently pictures look at the place where they differ most: [K], 0 to 255.

    The maximum over the 16 x 16 cells of sqrt(dY^2 + dCb^2 / 4 + dCr^2 / 4), of `thumbnails`
    [K, 16, 16, 3] against one `thumbnail` [16, 16, 3]. Chroma counts for less because JPEG keeps
    it at half the resolution: saturated blue may be off by 20 levels in twins.
    """
    difference = thumbnails.astype(np.float32) - thumbnail.astype(np.float32)
    squares = np.square(difference @ _LUMA_AND_HALF_CHROMA.T).sum(axis=-1)  # [K, 16, 16]
    worst: npt.NDArray[np.float32] = np.sqrt(squares.reshape(len(thumbnails), -1).max(axis=1))
    return worst


def thumbnail(pixels: Pixels) -> Pixels:
    """The mean colours of a 16 x 16 grid over a picture [H, W, 3]: [16, 16, 3] uint8."""
    size = (THUMBNAIL, THUMBNAIL)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def perceptual_hash(pixels: Pixels) -> int:
    """64 bits that hardly change when a picture [H, W, 3] is rescaled or compressed.

    The signs, against their median, of the 64 lowest frequencies but the mean of a 32 x 32
    discrete cosine transform of the luma, in diagonal order.
    """
    grey = Image.fromarray(pixels).convert("L").resize((_GRID, _GRID), Image.Resampling.BOX)
    cosines, order = _cosines(), _diagonals()
    spectrum = cosines @ np.asarray(grey, np.float64) @ cosines.T
    lowest = spectrum.ravel()[order]
    bits = np.packbits(lowest - np.median(lowest) > 1e-3)  # rounding errors have no sign
    return int.from_bytes(bits.tobytes(), "big")


class HashIndex:
    """The hashes of the kept pictures, found by nearness without looking at all of them.

    A hash is cut into `HASH_RADIUS + 1` bands. Two hashes within the radius differ in at most
    `HASH_RADIUS` bits, so at least one band is equal: only hashes that share a band are compared.
    """

    def __init__(self) -> None:
        self._bands: list[dict[int, tuple[array[int], array[int]]]] = [{} for _ in _CUTS]

    def add(self, value: int, i: int) -> None:
        """Remember that picture `i` has the hash `value`."""
        for bucket, key in zip(self._bands, _bands(value), strict=True):
            hashes, indices = bucket.setdefault(key, (array("Q"), array("q")))
            hashes.append(value)
            indices.append(i)

    def within(self, value: int) -> list[int]:
        """The pictures whose hash is within `HASH_RADIUS` bits of `value`, in ascending order."""
        found: set[int] = set()
        for bucket, key in zip(self._bands, _bands(value), strict=True):
            if key in bucket:
                hashes, indices = bucket[key]
                near = _near_bits(np.array(hashes, np.uint64), value)
                found.update(np.array(indices)[near].tolist())
        return sorted(found)


def _near_bits(hashes: npt.NDArray[np.uint64], value: int) -> npt.NDArray[np.bool_]:
    differing = hashes ^ np.uint64(value)
    bits = np.unpackbits(differing.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)
    return np.asarray(bits <= HASH_RADIUS)


_CUTS = [HASH_BITS * k // (HASH_RADIUS + 1) for k in range(HASH_RADIUS + 1)]


def _bands(value: int) -> list[int]:
    """The bits of a hash from each cut to the next."""
    ends = [*_CUTS[1:], HASH_BITS]
    return [value >> start & (1 << end - start) - 1 for start, end in zip(_CUTS, ends, strict=True)]


def _nearest(prints: Fingerprints, candidates: list[int], i: int, near: float) -> int | None:
    """The candidate of the smallest distance, the first of them, where it is at most `near`."""
    if not candidates:
        return None
    distances = distance(prints.thumbnails[candidates], prints.thumbnails[i])
    best = int(distances.argmin())
    return candidates[best] if distances[best] <= near else None


def _kind(prints: Fingerprints, i: int, kept: int) -> str:
    if prints.sha256[i] == prints.sha256[kept]:
        return SAME_FILE
    return SAME_PIXELS if prints.digests[i] == prints.digests[kept] else NEAR


@cache
def _cosines() -> npt.NDArray[np.float64]:
    """The 32 x 32 matrix of the unnormalised DCT-II."""
    k = np.arange(_GRID)
    angles = np.pi * (2 * k[None, :] + 1) * k[:, None] / (2 * _GRID)
    return np.cos(angles)


@cache
def _diagonals() -> npt.NDArray[np.int64]:
    """Flat indices of the 64 lowest frequencies of the spectrum without the mean."""
    cells = sorted(np.ndindex(_GRID, _GRID), key=lambda cell: (sum(cell), cell))
    return np.array([row * _GRID + column for row, column in cells[1 : HASH_BITS + 1]])
