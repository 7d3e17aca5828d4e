"""Which of many 64-bit hashes lie within a few bits of each other, without comparing all pairs.

A hash is cut into `HASH_RADIUS + 1` bands. Two hashes within the radius differ in at most
`HASH_RADIUS` bits, so at least one band is equal (Norouzi, Punjani and Fleet, "Fast search in
Hamming space with multi-index hashing", CVPR 2012): only hashes that share a band are compared.
Pictures of one outline often share their bands. So within a band they are sorted by the brightness
of two parts, those in which the pictures differ most: one in coarse cells, the other within these.
"""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Hashes: TypeAlias = npt.NDArray[np.uint64]
Means: TypeAlias = npt.NDArray[np.float32]
Levels: TypeAlias = npt.NDArray[np.float32]  # [M], 0 to 255
Keys: TypeAlias = npt.NDArray[np.uint32]  # [M]
Indices: TypeAlias = npt.NDArray[np.int64]

HASH_BITS = 64
HASH_RADIUS = 4

_CUTS = [HASH_BITS * k // (HASH_RADIUS + 1) for k in range(HASH_RADIUS + 2)]
_MARGIN = 0.01  # levels; means are rounded sums
_AT_ONCE = 1 << 21  # pairs looked at together
_STEPS = 64  # of brightness in one level, in 14 bits
_CELLS = 31  # of brightness at most, in 5 bits


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
        self._parts = _telling_parts(means)
        self._cell = max(2 * self._near, 255 / (_CELLS - 1))  # a query's are one or two
        self._bands = []
        one, other = (means[:, part, 0] for part in self._parts)
        for band in range(HASH_RADIUS + 1):
            keys = _keys(hashes, self._cells(other), one, band)
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
        one, other = (means[:, part, 0] for part in self._parts)
        lower, upper = self._cells(other - self._near), self._cells(other + self._near)
        for cells, wanted in ((lower, True), (upper, upper > lower)):
            low, high = (_keys(hashes, cells, one + by, band) for by in (-self._near, self._near))
            first = np.searchsorted(keys, low, "left")
            last = np.searchsorted(keys, high, "right")
            yield from self._near_ones(order, first, (last - first) * wanted, hashes, means)

    def _near_ones(
        self, order: Indices, first: Indices, counts: Indices, hashes: Hashes, means: Means
    ) -> Iterator[tuple[Indices, Indices]]:
        """Those of `counts` pictures from the `first` on that are near each query, in pieces."""
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

    def _cells(self, brightness: Levels) -> Keys:
        """The cell of each brightness, which is cut to its range."""
        return (np.clip(brightness, 0, 255) / self._cell).astype(np.uint32)


def _telling_parts(means: Means) -> tuple[int, int]:
    """The part whose brightness varies most, and the one that varies most besides."""
    if len(means) < 2:
        return 0, 0
    spread = np.cov(means[:, :, 0], rowvar=False).reshape(means.shape[1], -1)  # [C, C]
    variances = spread.diagonal()
    one = int(variances.argmax())
    explained = spread[one] ** 2 / max(variances[one], 1e-6)
    return one, int((variances - explained).argmax())


def _keys(hashes: Hashes, cells: Keys, brightness: Levels, band: int) -> Keys:
    """[M] uint32: 13 bits of a band, 5 of a cell, 14 of brightness, which is cut to its range."""
    start, end = _CUTS[band], _CUTS[band + 1]
    bits = hashes >> np.uint64(start) & np.uint64((1 << end - start) - 1)
    steps = np.clip(brightness * _STEPS, 0, 255 * _STEPS).astype(np.uint32)
    keys: Keys = bits.astype(np.uint32) << np.uint32(19) | cells << np.uint32(14) | steps
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
