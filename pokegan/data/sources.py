"""Where pictures come from: what the text after `--data` means.

A folder, an archive, a fetched collection and the demo set become a `Source` that `prepare` reads;
a set that is prepared already is opened as it is.
"""

import difflib
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pokegan.cache_folder import cache_folder
from pokegan.config import FILTERS
from pokegan.data import stored
from pokegan.data.archives import extract, is_archive, stem
from pokegan.data.cache import cached
from pokegan.data.creatures import COUNT, MOST
from pokegan.data.entries import DrawnEntry, Entry, Source
from pokegan.data.fetch import FETCHABLE, Say, fetch, is_fetchable, tell
from pokegan.data.folder_source import FolderSource
from pokegan.data.options import PrepareOptions
from pokegan.data.packed import PackedImages, checksum, is_packed
from pokegan.data.preparation import Progress
from pokegan.data.shards import ShardSource, TarSource, is_shards, is_tars
from pokegan.errors import DataError

DEMO = "demo"
NAMES = (DEMO, *FETCHABLE)

_ACCEPTED = (
    "a folder of pictures, a prepared set, a folder of shards, a .zip or .tar archive, demo, "
    "pokeapi, or kaggle:OWNER/NAME"
)
_NEIGHBOURS = 10_000
_IN_A_FOLDER = 10_000

__all__ = ["DEMO", "NAMES", "DemoSource", "FolderSource", "open_data", "resolve"]


class DemoSource:
    """The embedded demo set: the first `count` creatures of `seed`; no file is involved.

    More than 10,000 are named in folders of 10,000: files under these names stay easy to handle.
    """

    def __init__(self, seed: int = 0, count: int = COUNT) -> None:
        """`seed` is 0 to 2^64 - 1, `count` 1 to 1,000,000; DataError for anything else."""
        if not 1 <= count <= MOST:
            raise DataError(f"the demo set has 1 to {MOST:,} creatures, not {count:,}")
        if not 0 <= seed < 2**64:
            raise DataError(f"the demo set's seed is 0 to 2**64 - 1, not {seed}")
        self.name = self.origin = DEMO
        self.seed = seed
        self.count = count
        self.rejected: list[tuple[str, str]] = []

    def entries(self) -> list[Entry]:
        """One entry a creature, in the order of their numbers."""
        return [DrawnEntry(self._name(i), i, self.seed) for i in range(self.count)]

    def _name(self, i: int) -> str:
        if self.count <= _IN_A_FOLDER:
            return f"creature-{i:04d}"
        return f"{i // _IN_A_FOLDER:02d}/creature-{i:06d}"


def is_name(data: str) -> bool:
    """Whether `data` is a name that `resolve` takes before it looks for a file."""
    return data == DEMO or is_fetchable(data)


def expanded(data: str) -> Path:
    """`data` as a path; DataError where it begins with `~` and that user's folder is not known."""
    try:
        return Path(data).expanduser()
    except RuntimeError:
        raise DataError(f"{data}: no folder is known for {Path(data).parts[0]}") from None


def resolve(data: str, say: Say = tell) -> Source | PackedImages:
    """What `data` means: a source to prepare, or a set that is prepared already.

    The names `demo`, `pokeapi` and `kaggle:OWNER/NAME` come first: a folder that is called like one
    is given as `./demo`. A collection that is not here yet is fetched, an archive is unpacked into
    the cache (once for the same content); `say` is told so. Raises DataError, one line, when `data`
    is nothing of the kind, or cannot be fetched or unpacked.
    """
    path = expanded(data)
    if data == DEMO or is_fetchable(data):
        if path.exists():
            say(f"{data} is a collection's name; for the {path.name} that is here write ./{data}")
        if data == DEMO:
            return DemoSource()
        return FolderSource(fetch(data, say=say), name=data, origin=data)
    if data and path.is_dir():
        return _folder(path)
    if data and path.is_file():
        return _archive(path, say)
    raise DataError(_unknown(data))


def open_data(
    data: str,
    options: PrepareOptions,
    progress: Progress | None = None,
    workers: int | None = None,
    say: Say = tell,
) -> PackedImages:
    """The pictures that `data` means, prepared with `options`, or as they were prepared before.

    A source is prepared once and then found in the cache. `progress` is called with (pictures done,
    pictures found); without it `say` is told that preparation begins. `workers` as for `prepare`.

    Raises DataError as `resolve` and `prepare` do, and when `data` is a prepared set of another
    size than `options.size`, or one that was made without a filter that `options` asks for.
    """
    found = resolve(data, say)
    if isinstance(found, PackedImages):
        _require_size(found, data, options.size)
        require_filters(found.manifest.options, f"{data} is a prepared set", options)
        return found
    return cached(found, options, workers=workers, progress=progress or announcing(options, say))


def _folder(path: Path) -> Source | PackedImages:
    if is_packed(path):
        return PackedImages.open(path)
    if is_shards(path):
        return ShardSource(path)
    return TarSource(path) if is_tars(path) else FolderSource(path)


def _archive(path: Path, say: Say) -> FolderSource:
    try:
        digest = checksum(path) if is_archive(path) else ""
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if not digest:
        raise DataError(f"{path} is one file: give the folder it is in, or a .zip or .tar archive")
    with stored.keeping(path.name):
        folder = cache_folder() / "archives" / digest
        found = stored.find(folder)
        if found is None:
            say(f"unpacking {path} ...")
            with stored.making(folder) as new:
                new.left_out.extend(extract(path, new.pictures))
            found = stored.find(folder)
    if found is None:
        raise DataError(f"{folder} changed while {path} was unpacked into it: try again")
    return FolderSource(found.pictures, stem(path.name), found.left_out, str(path.resolve()))


def _require_size(images: PackedImages, data: str, size: int) -> None:
    if images.size != size:
        raise DataError(
            f"{data} is a set prepared at {images.size} px, not at {size} px: use "
            f"--size {images.size}, or prepare its pictures again at {size} px"
        )


def require_filters(made: Mapping[str, Any], what: str, options: PrepareOptions) -> None:
    """Refuse a filter of `options` that would have no effect: the set was `made` without it.

    Raises DataError, which begins with `what`.
    """
    plain = PrepareOptions(options.size)
    for name in FILTERS:
        asked = getattr(options, name)
        if asked not in (getattr(plain, name), made.get(name)):
            raise DataError(
                f"{what}, so --{name.replace('_', '-')} has no effect: make it again with that "
                "filter, or leave it out"
            )


def announcing(options: PrepareOptions, say: Say) -> Progress:
    """A progress that says once, at the first picture, that preparation has begun."""

    def progress(done: int, total: int) -> None:
        if done == 1:
            say(f"preparing {total:,} pictures at {options.size} px ...")

    return progress


def _unknown(data: str) -> str:
    near = difflib.get_close_matches(data, [*NAMES, *_neighbours(data)], n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"there is no data {data!r}: {hint}DATA is {_ACCEPTED}"


def _neighbours(data: str) -> list[str]:
    """What stands beside the missing path `data`, written as `data` is."""
    parent = expanded(data).parent
    written = data[: len(data) - len(Path(data).name)] if data else ""
    try:
        return [written + path.name for path in islice(parent.iterdir(), _NEIGHBOURS)]
    except OSError:
        return []
