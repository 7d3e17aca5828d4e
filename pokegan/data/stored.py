"""Folders of raw pictures in the cache: whole or not there, with a note of what was left out.

A stored folder holds `pictures/` and `stored.json`, which says how many files and bytes there must
be: a folder that was cut short by a power failure, or tidied by its user, is made anew.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pokegan import files
from pokegan.cache_folder import cache_folder
from pokegan.data.packed import beside, swap
from pokegan.errors import DataError

_NOTE = "stored.json"
_PICTURES = "pictures"
_ABANDONED_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Stored:
    """A folder of pictures, and `(name, reason)` of what was left out when it was made."""

    pictures: Path
    left_out: list[tuple[str, str]] = field(default_factory=list)


def find(folder: Path) -> Stored | None:
    """The pictures stored in `folder`, or None where there are none or not all of them."""
    try:
        note = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
        if [note["files"], note["bytes"]] != list(_measure(folder / _PICTURES)):
            return None
        left_out = [(str(name), str(reason)) for name, reason in note["left_out"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Stored(folder / _PICTURES, left_out)


@contextlib.contextmanager
def keeping(what: str) -> Iterator[None]:
    """Turn a failure to write in the cache into a DataError that names `what` and the way out."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot keep {what} in {cache_folder()}: {error.strerror or error}; "
            "set POKEGAN_CACHE to a folder on a disk with room"
        ) from error


@contextlib.contextmanager
def making(folder: Path, replace: bool = False) -> Iterator[Stored]:
    """Yield a place for pictures that becomes `folder` on a clean exit.

    The body makes the folder `pictures` of what it gets and may add to its `left_out`. When it
    raises, what stood at `folder` is untouched. When another process made the same folder
    meanwhile, its work is kept, unless `replace` asks for this one.
    """
    temporary = beside(folder)
    temporary.mkdir(parents=True)
    _remove_abandoned(folder.parent)
    try:
        new = Stored(temporary / _PICTURES)
        yield new
        count, size = _measure(new.pictures)
        note = {"files": count, "bytes": size, "left_out": new.left_out}
        files.write_text(temporary / _NOTE, json.dumps(note, indent=1))
        if replace or find(folder) is None:
            while not swap(temporary, folder) and find(folder) is None:
                pass
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _measure(folder: Path) -> tuple[int, int]:
    """The number of files below `folder` and the sum of their sizes, in bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left behind a day or longer ago."""
    with contextlib.suppress(OSError):
        for path in folder.glob(".*.part"):
            if path.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
