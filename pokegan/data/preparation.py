"""Any collection of pictures to a packed set: decode, fit, drop duplicates, write, once.

Pictures are prepared by worker processes and written as they come, so memory does not grow with
the number of pixels. What cannot be used is counted and listed in the manifest, with its reason.
"""

import sys
import warnings
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TypeAlias

import numpy as np

from pokegan.data import decoders, packed
from pokegan.data.duplicates import (
    Fingerprints,
    Match,
    find_duplicates,
    perceptual_hashes,
)
from pokegan.data.entries import Entry, Source
from pokegan.data.fingerprints import LUMA, THUMBNAIL
from pokegan.data.manifest import Duplicate, Manifest, Picture, Skipped, by_number, origin_digest
from pokegan.data.options import PrepareOptions
from pokegan.data.packed import PackedImages
from pokegan.data.square import Refusal
from pokegan.data.store import Store, keep_rows
from pokegan.data.thread_pool import ThreadPool
from pokegan.data.worker_process import Result
from pokegan.data.workers import default_workers, prepare_all
from pokegan.errors import DataError
from pokegan.files import sync, write_text

Progress: TypeAlias = Callable[[int, int], None]

_THUMBNAILS = "thumbnails.u8"
_LUMAS = 512  # that are hashed together


def prepare(
    source: Source,
    options: PrepareOptions,
    out: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> PackedImages:
    """Prepare every picture of `source` and pack them into the folder `out`.

    The order is that of the source. `workers` processes share the work: None takes one per
    processor, 0 works in this process. `progress` is called with (pictures done, pictures found).
    Without `out` the set is kept in the cache and made only when it is not there (`cache.cached`).
    A packed set at `out` is replaced when the new one is complete; nothing half written is left.

    Raises DataError when no picture could be used, or `out` cannot be written or holds other files.
    """
    if out is None:
        from pokegan.data.cache import cached

        return cached(source, options, workers=workers, progress=progress)
    entries = source.entries()
    with packed.staged(Path(out)) as folder:
        manifest = pack(source, entries, options, folder, workers, progress)
        write_text(folder / packed.MANIFEST, manifest.to_json())
    return PackedImages.open(out)


def pack(
    source: Source,
    entries: Sequence[Entry],
    options: PrepareOptions,
    folder: Path,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Write `images.u8` of a packed set into an empty `folder`; returns the manifest to write.

    Raises DataError when no picture could be used, ConfigError when the decoder is not installed.
    """
    decoders.require(options.decoder)
    workers = default_workers(len(entries)) if workers is None else workers
    gathered = _Gathered(folder)
    with closing(prepare_all(entries, options, workers, gathered.store)) as results:
        gathered.take(entries, _counted(results, len(entries), progress))
    skipped = [Skipped(name, None, reason) for name, reason in source.rejected]
    skipped += gathered.skipped
    if not gathered.pictures:
        raise DataError(f"no picture of {source.name} can be used: {_why(skipped)}")
    if gathered.replaced:
        warnings.warn(
            _replacement(options.decoder, gathered.replaced), RuntimeWarning, stacklevel=2
        )
    with closing(_Sealed(folder / packed.IMAGES)) as seal:
        matches, changed = gathered.drop_duplicates(options)
        checksum = seal.checksum(changed)
    dropped = {match.index for match in matches}
    pictures = gathered.pictures
    return Manifest(
        source=source.name,
        size=options.size,
        background=options.background,
        options=options.to_json(),
        pictures=tuple(p for i, p in enumerate(pictures) if i not in dropped),
        duplicates=tuple(_duplicate(match, pictures) for match in matches),
        skipped=tuple(skipped),
        checksum=checksum,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        tools=tool_versions() | decoders.versions(options.decoder),
        origin=origin_digest(source.origin),
    )


def tool_versions() -> dict[str, str]:
    """The versions of the programs whose work shows in prepared pixels; "none" where missing."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("pillow", "resvg_py"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "none"
    return versions


class _Sealed:
    """A file's checksum and its way to the disk, while duplicates are still searched for.

    Where none is found, and nothing was refused before, the file is what it was.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = ThreadPool(2)
        self._synced = self._threads.submit(sync, path)
        self._checksum = self._threads.submit(packed.checksum, path)

    def checksum(self, changed: bool) -> str:
        """The file's, which may have `changed` since. Raises OSError where it cannot be stored."""
        if changed:
            return packed.checksum(self._path)
        self._synced.result()
        return self._checksum.result()

    def close(self) -> None:
        self._threads.close()


class _Gathered:
    """The results so far: pixels and thumbnails in files, everything small in columns."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / packed.IMAGES, folder / _THUMBNAILS)
        for path in self.store:
            path.touch()
        self.pictures: list[Picture] = []
        self.skipped: list[Skipped] = []
        self.replaced: list[str] = []
        self._rows: list[int] = []  # where the pictures are in the store
        self._digests: list[bytes] = []
        self._lumas = bytearray()  # of pictures that are not hashed yet
        self._hashes = array("Q")
        self._lossy: list[bool] = []

    def take(self, entries: Sequence[Entry], results: Iterator[Result]) -> None:
        """Note what became of every entry, in order."""
        for row, (entry, result) in enumerate(zip(entries, results, strict=True)):
            if isinstance(result, Refusal):
                self.skipped.append(Skipped(entry.name, result.sha256, result.reason))
                continue
            if result.replaced:
                self.replaced.append(entry.name)
            self._rows.append(row)
            self.pictures.append(Picture(entry.name, result.sha256, *result.original))
            self._digests.append(result.digest)
            self._lumas += result.luma
            if len(self._lumas) >= _LUMAS * LUMA**2:
                self._hash()
            self._lossy.append(result.lossy)

    def drop_duplicates(self, options: PrepareOptions) -> tuple[list[Match], bool]:
        """Find the duplicates, unless they are to stay, and close all gaps in the file.

        Returns the duplicates and whether the file has changed.
        """
        matches = [] if options.keep_duplicates else self._find(options.near_duplicate_distance)
        self.store.thumbnails.unlink()
        dropped = {match.index for match in matches}
        rows = [row for i, row in enumerate(self._rows) if i not in dropped]
        return matches, keep_rows(self.store.images, rows, options.size**2 * 3)

    def _hash(self) -> None:
        lumas = np.frombuffer(bytes(self._lumas), np.uint8).reshape(-1, LUMA, LUMA)
        self._hashes.extend(perceptual_hashes(lumas).tolist())
        self._lumas.clear()

    def _find(self, near: float) -> list[Match]:
        shape = (len(self.pictures), THUMBNAIL, THUMBNAIL, 3)
        self._hash()
        keep_rows(self.store.thumbnails, self._rows, THUMBNAIL**2 * 3)
        thumbnails = np.memmap(self.store.thumbnails, np.uint8, mode="r", shape=shape)
        hashes = [picture.sha256 for picture in self.pictures]
        prints = Fingerprints(hashes, self._digests, self._hashes, thumbnails, self._lossy)
        return find_duplicates(prints, near)


def _counted(results: Iterator[Result], total: int, progress: Progress | None) -> Iterator[Result]:
    for done, result in enumerate(results, start=1):
        yield result
        if progress:
            progress(done, total)


def _duplicate(match: Match, pictures: Sequence[Picture]) -> Duplicate:
    name, sha256, *_ = pictures[match.index]
    return Duplicate(name, sha256, pictures[match.kept].name, match.kind)


def _replacement(decoder: str, names: Sequence[str]) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"decoder {decoder!r} failed at {len(names)} pictures, which Pillow read: {shown}"


def _why(skipped: Sequence[Skipped]) -> str:
    """The three most frequent reasons, in one line."""
    if not skipped:
        return "there is none"
    reasons = list(by_number(entry.reason for entry in skipped).items())
    shown = "; ".join(f"{reason} ({count})" for reason, count in reasons[:3])
    return shown + (f"; and {len(reasons) - 3} more reasons" if len(reasons) > 3 else "")
