"""Which of many 64-bit hashes lie within a few bits of each other, without comparing all pairs.

A hash is cut into `HASH_RADIUS + 1` bands. Two hashes within the radius differ in at most
`HASH_RADIUS` bits, so at least one band is equal (Norouzi, Punjani and Fleet, "Fast search in
Hamming space with multi-index hashing", CVPR 2012): only hashes that share a band are compared.
Within a band pictures are sorted by brightness, for those of one outline often share their bands.
"""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Hashes: TypeAlias = npt.NDArray[np.uint64]
Means: TypeAlias = npt.NDArray[np.float32]
Indices: TypeAlias = npt.NDArray[np.int64]

HASH_BITS = 64
HASH_RADIUS = 4

_CUTS = [HASH_BITS * k // (HASH_RADIUS + 1) for k in range(HASH_RADIUS + 2)]
_MARGIN = 0.01  # levels; means are rounded sums
_AT_ONCE = 1 << 21  # pairs looked at together
_STEPS = 256  # of brightness in one level


class HashTable:
    """M pictures by hash and by the mean colours of their parts.

    Args:
        hashes: [M] uint64.
        means: [M, C, 3] float32, colours of C parts of a picture, brightness first, in levels.
        near: how far apart the colours of a pair may be in each part, in levels.
    """

    def __init__(self, hashes: Hashes, means: Means, near: float) -> None:
        self._hashes = hashes
        self._means = means
        self._near = near + _MARGIN
        self._bands = []
        for band in range(HASH_RADIUS + 1):
            keys = _keys(hashes, means[:, :, 0].mean(axis=1), band)
            order = np.argsort(keys, kind="stable")
            self._bands.append((keys[order], order))

    def pairs(self, hashes: Hashes, means: Means) -> tuple[Indices, Indices]:
        """All pairs of a query of [Q] and a picture: `(queries, pictures)`, ascending, each once.

        They are within `HASH_RADIUS` bits and the colours of their parts within `near`.
        """
        size = max(1, len(self._hashes))
        found = [
            np.unique(queries * size + pictures)
            for band in range(HASH_RADIUS + 1)
            for queries, pictures in self._candidates(band, hashes, means)
        ]
        pairs = np.unique(np.concatenate([np.zeros(0, np.int64), *found]))
        return pairs // size, pairs % size

    def _candidates(
        self, band: int, hashes: Hashes, means: Means
    ) -> Iterator[tuple[Indices, Indices]]:
        """The pairs that share a band, in pieces."""
        keys, order = self._bands[band]
        brightness = means[:, :, 0].mean(axis=1)
        first = np.searchsorted(keys, _keys(hashes, brightness - self._near, band), "left")
        last = np.searchsorted(keys, _keys(hashes, brightness + self._near, band), "right")
        counts = np.maximum(last - first, 0)
        ends = np.cumsum(counts)
        start = 0
        while start < len(hashes):
            done = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, done + _AT_ONCE, "right")))
            queries = np.repeat(np.arange(start, stop), counts[start:stop])
            shift = np.repeat(
                first[start:stop] - (ends - counts)[start:stop] + done, counts[start:stop]
            )
            pictures = order[np.arange(len(queries)) + shift]
            near = _ones(hashes[queries] ^ self._hashes[pictures]) <= HASH_RADIUS
            queries, pictures = queries[near], pictures[near]
            apart = np.square(means[queries] - self._means[pictures]).sum(axis=2)  # [pairs, C]
            near = (apart <= self._near**2).all(axis=1)
            yield queries[near], pictures[near]
            start = stop


def _keys(hashes: Hashes, brightness: npt.NDArray[np.float32], band: int) -> npt.NDArray[np.uint32]:
    """[M] uint32: the bits of a band above 16 bits of brightness, which is cut to its range."""
    start, end = _CUTS[band], _CUTS[band + 1]
    bits = hashes >> np.uint64(start) & np.uint64((1 << end - start) - 1)
    steps = np.clip(brightness * _STEPS, 0, 255 * _STEPS).astype(np.uint32)
    keys: npt.NDArray[np.uint32] = bits.astype(np.uint32) << np.uint32(16) | steps
    return keys


def _ones(words: Hashes) -> Hashes:
    """How many bits of each word are set, by adding neighbours in ever wider fields."""
    pairs, fours, eights = (np.uint64(m) for m in (0x5 * _EACH4, 0x33 * _EACH8, 0x0F * _EACH8))
    words = words - (words >> np.uint64(1) & pairs)
    words = (words & fours) + (words >> np.uint64(2) & fours)
    words = words + (words >> np.uint64(4)) & eights
    counts: Hashes = words * np.uint64(_EACH8) >> np.uint64(56)
    return counts


_EACH4, _EACH8 = 0x1111111111111111, 0x0101010101010101
