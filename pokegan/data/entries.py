"""What a source of pictures hands to `prepare`: names, and where each picture is to be had.

Entries are small and picklable: they travel to worker processes. This file knows no decoder.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias


@dataclass(frozen=True)
class FileEntry:
    """A picture in a file. `name` is its path below the source's folder, with forward slashes."""

    name: str
    path: Path


@dataclass(frozen=True)
class DrawnEntry:
    """Creature `index` of the embedded demo set drawn with `seed`."""

    name: str
    index: int
    seed: int


@dataclass(frozen=True)
class PieceEntry:
    """A picture inside a larger file: `length` bytes from byte `offset` of the file `path`.

    With `side` 0 the bytes are those of a picture file. Otherwise they are the pixels of a square
    of `side` px: uint8 [side, side, 3], RGB.
    """

    name: str
    path: Path
    offset: int
    length: int
    side: int = 0


Entry: TypeAlias = FileEntry | DrawnEntry | PieceEntry


class Source(Protocol):
    """Where pictures come from: a folder, an unpacked archive, a fetched set, the demo set."""

    @property
    def name(self) -> str:
        """What the reports call this source."""
        ...

    @property
    def origin(self) -> str:
        """Where it is: tells apart sources of one name."""
        ...

    @property
    def rejected(self) -> list[tuple[str, str]]:
        """`(name, reason)` of what the source itself refused, complete after `entries()`."""
        ...

    def entries(self) -> Sequence[Entry]:
        """Every candidate once, in natural order of the names."""
        ...


def natural_key(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """A sort key: folder by folder, numbers by value (`2.png` before `10.png`).

    The name itself comes last, so that `1.png` and `01.png` have one order on every machine.
    """
    runs = (run for part in name.split("/") for run in (*_runs(part), (-1, 0, "")))
    return tuple(runs), name


def _runs(part: str) -> tuple[tuple[int, int, str], ...]:
    """The letters and the numbers of one path component, in comparable form."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", part)
    return tuple((0, int(p), "") if p[0] in "0123456789" else (1, 0, p) for p in pieces)
