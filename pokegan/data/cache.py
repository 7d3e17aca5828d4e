"""Prepared sets kept between runs, found again by content.

Two steps. The *state* of a source (names, sizes and times of its files) leads to a content key
without opening a single file; it is trusted only when every file was already so old that another
change would show in its times. Otherwise the files are hashed, which gives the *content key*: the
hashes of all files, the options, and the versions of whatever shapes the pixels.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pokegan.cache_folder import cache_folder
from pokegan.data import decoders, packed
from pokegan.data.entries import DrawnEntry, Entry, PieceEntry, Source
from pokegan.data.manifest import VERSION, Manifest, origin_digest
from pokegan.data.options import PrepareOptions
from pokegan.data.packed import PackedImages
from pokegan.data.preparation import Progress, pack, tool_versions
from pokegan.data.refusals import is_passing
from pokegan.data.square import content_hash, drawn_identity
from pokegan.errors import DataError
from pokegan.files import write_text

PREPARATION = 2  # to be raised when the same files and options begin to give other pixels

_ATTEMPTS = 3
_SETTLED_SECONDS = 3.0  # the coarsest clock of a file system in use ticks every 2 s
_ABANDONED_SECONDS = 24 * 3600.0
_VERIFIED_BYTES = 256 << 20


def cached(
    source: Source,
    options: PrepareOptions,
    workers: int | None = None,
    progress: Progress | None = None,
    refresh: bool = False,
) -> PackedImages:
    """The packed set of `source`, from the cache where it is there, else prepared into it.

    Never gives a set of other content than the source has now. A damaged set is made anew (sets up
    to 256 MiB are compared with their checksum, larger ones with their length), and so is one that
    lacks a picture for want of time or memory, and any set with `refresh`. Several processes may
    call this at once. Parameters as for `prepare`.

    Raises DataError as `prepare` does, and when files change each time while they are read.
    """
    for _ in range(_ATTEMPTS):
        entries = source.entries()
        state = _State(source, entries, options)
        found = None if refresh else _find_whole(state.known_key())
        if found:
            return _named(found, source)
        hashes = _hashes(entries, options)
        key = _content_key(hashes, source, options)
        found = None if refresh else _find_whole(key)
        if found is None:
            found = _make(key, hashes, source, entries, options, workers, progress)
        if found:
            state.save(key)
            return _named(found, source)
    raise DataError(f"the pictures of {source.name} change while they are read: try again later")


def _make(
    key: str,
    hashes: dict[str, str | None],
    source: Source,
    entries: Sequence[Entry],
    options: PrepareOptions,
    workers: int | None,
    progress: Progress | None,
) -> PackedImages | None:
    """Prepare the set of `key`; None when it must be tried again: a file was changed meanwhile."""
    path = _sets() / key
    _remove_abandoned(path.parent)
    with suppress(_ChangedError):
        with packed.staged(path, owned=True) as folder:
            manifest = pack(source, entries, options, folder, workers, progress)
            _check_unchanged(manifest, hashes)
            write_text(folder / packed.MANIFEST, manifest.to_json())
        return _find(key)  # None when another process is just replacing it: then try again
    return None


class _ChangedError(Exception):
    """A file changed between its hashing and its preparation."""


def _check_unchanged(manifest: Manifest, hashes: dict[str, str | None]) -> None:
    for name, sha256 in manifest.hashes().items():
        if sha256 is not None and sha256 != hashes[name]:
            raise _ChangedError


class _State:
    """What the file system says about a source, as a shortcut to its content key."""

    def __init__(self, source: Source, entries: Sequence[Entry], options: PrepareOptions) -> None:
        self._seen_at = time.time()
        self._newest = 0.0
        self._archives: dict[Path, list[Any]] = {}  # each holds many pictures: looked at once
        rows = [self._row(entry) for entry in entries]
        self._file = cache_folder() / "states" / _digest([rows, _common(source, options)])

    def known_key(self) -> str | None:
        """The content key that was saved for this state, if any."""
        with suppress(OSError):
            return self._file.read_text(encoding="ascii").strip()
        return None

    def save(self, key: str) -> None:
        """Remember the key, unless a file is so young that its next change might not show."""
        if self._newest <= self._seen_at - _SETTLED_SECONDS:
            with suppress(OSError):
                write_text(self._file, key)

    def _row(self, entry: Entry) -> list[Any]:
        if isinstance(entry, DrawnEntry):
            return [entry.name, drawn_identity(entry)]
        if not isinstance(entry, PieceEntry):
            return [entry.name, *self._status(entry.path)]
        if entry.path not in self._archives:
            self._archives[entry.path] = self._status(entry.path)
        state = self._archives[entry.path]
        return [entry.name, entry.offset, entry.length, entry.side, *state]

    def _status(self, path: Path) -> list[Any]:
        path = path.absolute()
        try:
            status = path.stat()
        except OSError:
            return [str(path)]
        self._newest = max(self._newest, status.st_mtime, status.st_ctime)
        return [str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _hashes(entries: Sequence[Entry], options: PrepareOptions) -> dict[str, str | None]:
    """The SHA-256 of each entry's content by name; None where it cannot be read."""
    return {entry.name: content_hash(entry, options.max_bytes) for entry in entries}


def _content_key(hashes: dict[str, str | None], source: Source, options: PrepareOptions) -> str:
    return _digest([list(hashes.items()), _common(source, options)])


def _common(source: Source, options: PrepareOptions) -> list[Any]:
    """What decides about a set besides the files that are in it."""
    tools = tool_versions() | decoders.versions(options.decoder)
    return [VERSION, PREPARATION, options.to_json(), tools, source.rejected]


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()


def _find(key: str | None) -> PackedImages | None:
    """The set of a content key; None when it is not there, or damaged."""
    if not key:
        return None
    path = _sets() / key
    with suppress(DataError):
        images = PackedImages.open(path)
        if images.images.nbytes > _VERIFIED_BYTES:
            return images
        return PackedImages.open(path, verify=True)
    return None


def _find_whole(key: str | None) -> PackedImages | None:
    """The set of a content key, unless it lacks a picture that might be read another time."""
    found = _find(key)
    if found and any(is_passing(row.reason) for row in found.manifest.skipped):
        return None
    return found


def _named(images: PackedImages, source: Source) -> PackedImages:
    """The set under the name of the source that was asked for: others may have the same content."""
    origin = origin_digest(source.origin)
    images.manifest = replace(images.manifest, source=source.name, origin=origin)
    return images


def _sets() -> Path:
    return cache_folder() / "prepared"


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left behind a day or longer ago."""
    with suppress(OSError):
        for path in folder.glob(".*.part"):
            newest = max(item.stat().st_mtime for item in (path, *path.iterdir()))
            if newest < time.time() - _ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
