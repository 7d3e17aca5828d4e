"""Prepared pixels in raw files, written by many processes at once, each picture in its own row.

What a file of rows lacks where a picture was refused is never read: `keep_rows` closes the gaps.
"""

from pathlib import Path
from typing import IO, NamedTuple

from pokegan.data.filters import Original
from pokegan.data.square import Square

_PIECE = 1 << 24


class Store(NamedTuple):
    """The files that pixels and thumbnails go to; both must exist."""

    images: Path
    thumbnails: Path


class Kept(NamedTuple):
    """A `Square` whose pixels and thumbnail are in the store."""

    sha256: str
    digest: bytes
    luma: bytes
    lossy: bool
    original: Original
    replaced: bool


class Rows:
    """A store opened for writing by one process."""

    def __init__(self, store: Store) -> None:
        self._images = store.images.open("r+b", buffering=0)
        self._thumbnails = store.thumbnails.open("r+b", buffering=0)

    def keep(self, row: int, square: Square) -> Kept:
        """Write a picture into its row. Raises OSError where that cannot be done."""
        _write(self._images, row, square.pixels)
        _write(self._thumbnails, row, square.thumbnail)
        return Kept(
            *(square.sha256, square.digest, square.luma),
            *(square.lossy, square.original, square.replaced),
        )

    def __enter__(self) -> "Rows":
        return self

    def __exit__(self, *exception: object) -> None:
        self._images.close()
        self._thumbnails.close()


def keep_rows(path: Path, rows: list[int], row_bytes: int) -> bool:
    """Keep only the given rows of a raw file, in place; `rows` ascends. False where it was so."""
    if rows == list(range(len(rows))) and path.stat().st_size == len(rows) * row_bytes:
        return False
    with path.open("r+b") as file:
        new = start = 0
        while start < len(rows):
            end = start + 1
            most = start + max(1, _PIECE // row_bytes)
            while end < min(len(rows), most) and rows[end] == rows[end - 1] + 1:
                end += 1
            if rows[start] != new:
                file.seek(rows[start] * row_bytes)
                piece = file.read((end - start) * row_bytes)
                file.seek(new * row_bytes)
                file.write(piece)
            new += end - start
            start = end
        file.truncate(len(rows) * row_bytes)
    return True


def _write(file: IO[bytes], row: int, content: bytes) -> None:
    file.seek(row * len(content))
    written = 0
    while written < len(content):  # a disk that fills up takes a part, then refuses the rest
        written += file.write(content[written:])
