"""Which pictures of a set show the same thing twice.

Two questions are asked of every pair. Is the 64-bit perceptual hash within `HASH_RADIUS` bits?
That can be looked up without comparing all pairs, but creatures of one outline on white often
agree in it, whatever their colours. So: is `distance`, taken on 16 x 16 thumbnails in colour, small
everywhere in the picture? Mirrored, shifted and recoloured pictures are no duplicates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pokegan.data.fingerprints import LUMA
from pokegan.data.hash_search import HASH_BITS, HashTable

Pixels: TypeAlias = npt.NDArray[np.uint8]

SAME_FILE = "same file"
SAME_PIXELS = "same pixels"
NEAR = "near duplicate"

_BLOCK = 2048
_LUMA_AND_HALF_CHROMA = np.array(  # RGB to Y, Cb / 2, Cr / 2 (ITU-R BT.601)
    [[0.299, 0.587, 0.114], [-0.0843, -0.1656, 0.25], [0.25, -0.2094, -0.0406]], np.float32
)


@dataclass(frozen=True)
class Fingerprints:
    """What is compared of N pictures, one row each.

    Attributes:
        sha256: of the source files.
        digests: of the prepared pixels.
        hashes: [N] uint64, `perceptual_hashes`.
        thumbnails: [N, 16, 16, 3] uint8, `fingerprints.thumbnail`; may be mapped from a file.
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
    search = _NearSearch(prints, near) if near > 0 else None
    exact: dict[str | bytes, int] = {}
    matches: list[Match] = []
    order = np.argsort(np.array(prints.lossy, bool), kind="stable")
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK].tolist()
        if search:
            search.begin(_without_known(prints, block, exact))
        for i in block:
            keys = (prints.sha256[i], prints.digests[i])
            kept = next((exact[key] for key in keys if key in exact), None)
            if kept is None and search:
                kept = _nearest(prints, search.candidates(i), i, near)
            if kept is not None:
                matches.append(Match(i, kept, _kind(prints, i, kept)))
            elif search:
                search.keep(i)
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


def perceptual_hashes(lumas: Pixels) -> npt.NDArray[np.uint64]:
    """64 bits of each picture that hardly change when it is rescaled or compressed: [N] uint64.

    The signs, against their median, of the 64 lowest frequencies but the mean of a 32 x 32
    discrete cosine transform of the luma [N, 32, 32], in diagonal order.
    """
    cosines = _cosines()
    spectra = cosines @ lumas.astype(np.float64) @ cosines.T
    lowest = spectra.reshape(len(lumas), LUMA**2)[:, _diagonals()]
    medians = np.median(lowest, axis=1, keepdims=True)
    bits = np.packbits(lowest - medians > 1e-3, axis=1)  # rounding errors have no sign
    return np.ascontiguousarray(bits).view(">u8")[:, 0].astype(np.uint64)


class _NearSearch:
    """The kept pictures that may be near duplicates of a picture, worked out block by block.

    Pictures kept long ago are in one table, made anew when an eighth has been added; those kept
    since, and the block itself, are in a small one, made for each block. Mean colours of any part
    are no farther apart than `distance`, the largest of a cell: the tables look at those too.
    """

    def __init__(self, prints: Fingerprints, near: float) -> None:
        self._near = near
        self._hashes = np.array(prints.hashes, np.uint64)
        self._means = _mean_colours(prints.thumbnails)
        self._kept = np.zeros(len(self._hashes), bool)
        self._old = np.zeros(0, np.int64)
        self._old_table = self._table(self._old)
        self._recent: list[int] = []
        self._found: dict[int, npt.NDArray[np.int64]] = {}

    def begin(self, block: list[int]) -> None:
        """Look up the pictures of a block; they are asked for and kept in this order."""
        if len(self._recent) > _BLOCK + len(self._old) // 8:
            self._old = np.concatenate([self._old, np.array(self._recent, np.int64)])
            self._old_table, self._recent = self._table(self._old), []
        queries = np.array(block, np.int64)
        recent = np.array(self._recent + block, np.int64)
        hashes, means = self._hashes[queries], self._means[queries]
        of_old, old = self._old_table.pairs(hashes, means)
        of_new, new = self._table(recent).pairs(hashes, means)
        earlier = new < of_new + len(self._recent)
        asked = np.concatenate([of_old, of_new[earlier]])
        found = np.concatenate([self._old[old], recent[new[earlier]]])
        order = np.lexsort((found, asked))
        ends = np.searchsorted(asked[order], np.arange(1, len(block)))
        pieces = np.split(found[order], ends) if block else []
        self._found = {i: piece for i, piece in zip(block, pieces, strict=True) if len(piece)}

    def candidates(self, i: int) -> list[int]:
        """The kept pictures within `HASH_RADIUS` bits of picture `i`, but those of other colour."""
        found = self._found.get(i)
        return [] if found is None else found[self._kept[found]].tolist()

    def keep(self, i: int) -> None:
        """Note that picture `i` of the block is kept."""
        self._kept[i] = True
        self._recent.append(i)

    def _table(self, pictures: npt.NDArray[np.int64]) -> HashTable:
        return HashTable(self._hashes[pictures], self._means[pictures], self._near)


def _without_known(
    prints: Fingerprints, block: list[int], exact: dict[str | bytes, int]
) -> list[int]:
    """The pictures of a block whose file and pixels come for the first time."""
    seen: set[str | bytes] = set()
    fresh = []
    for i in block:
        keys = (prints.sha256[i], prints.digests[i])
        if not any(key in exact or key in seen for key in keys):
            fresh.append(i)
        seen.update(keys)
    return fresh


def _mean_colours(thumbnails: Pixels) -> npt.NDArray[np.float32]:
    """The means of a 4 x 4 grid over thumbnails [N, 16, 16, 3], as `distance` sees colours.

    [N, 16, 3] float32.
    """
    means = np.empty((len(thumbnails), 16, 3), np.float32)
    for row in range(0, len(thumbnails), _BLOCK):
        cells = thumbnails[row : row + _BLOCK].astype(np.uint16)
        rows = cells[:, ::4] + cells[:, 1::4] + cells[:, 2::4] + cells[:, 3::4]  # [n, 4, 16, 3]
        sums = rows[:, :, ::4] + rows[:, :, 1::4] + rows[:, :, 2::4] + rows[:, :, 3::4]
        colours = sums.reshape(-1, 16, 3).astype(np.float32) @ _LUMA_AND_HALF_CHROMA.T
        means[row : row + _BLOCK] = colours / 16
    return means


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
    k = np.arange(LUMA)
    angles = np.pi * (2 * k[None, :] + 1) * k[:, None] / (2 * LUMA)
    return np.cos(angles)


@cache
def _diagonals() -> npt.NDArray[np.int64]:
    """Flat indices of the 64 lowest frequencies of the spectrum without the mean."""
    cells = sorted(np.ndindex(LUMA, LUMA), key=lambda cell: (sum(cell), cell))
    return np.array([row * LUMA + column for row, column in cells[1 : HASH_BITS + 1]])
