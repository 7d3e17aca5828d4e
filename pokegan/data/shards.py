"""Shards read: pictures by number, and a folder of shards, ours or a stranger's, as a source."""

import contextlib
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np

from pokegan.data.entries import Entry, PieceEntry, natural_key
from pokegan.data.names import encodable
from pokegan.data.packed import checksum
from pokegan.data.shard_manifest import FILE, FORMAT, ShardManifest, read_manifest
from pokegan.data.sniff import foreign, sniff
from pokegan.errors import DataError

MAKING = ".making"  # a folder of shards that is not complete holds this one

_OPEN = 64  # files at a time; a thousand shards would be more than a process may have
_HEAD = 65_536  # as much as `sniff` looks at
_DAMAGE = (tarfile.TarError, ValueError, EOFError)
_BESIDE = {".idx", ".json", ".jsonl", ".txt", ".md", ".csv", ".yml", ".yaml"}
_NOTES = _BESIDE | {".cls", ".cls2", ".npy", ".npz", ".pth", ".pyd", ".id", ".index"}


class ShardPictures:
    """The encoded pictures of a folder of shards, read at random, N of them.

    Files are opened when they are first needed. An object may be used by several threads and sent
    to other processes.

    Attributes:
        folder: where the shards are.
        names: of the pictures in the source that the shards were made of.
        checksum: of all shards, in hexadecimal.
        manifest: the rest that is known.
    """

    def __init__(self, folder: Path, verify: bool = False) -> None:
        """Open the shards in `folder`; `verify` reads them once and compares their checksums.

        Raises DataError, one line, when it holds none, or one is missing, cut or damaged.
        """
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        self.names: Sequence[str] = self.manifest.names
        self.checksum = self.manifest.checksum
        self._files: dict[int, _File] = {}
        _check_files(self.folder, self.manifest, verify)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        """The file of picture `index`, 0 to N - 1: PNG or JPEG.

        Raises IndexError for another index, and DataError where the shard cannot be read.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
        shard = int(self.manifest.shard[index])
        offset, length = int(self.manifest.offsets[index]), int(self.manifest.lengths[index])
        path = self.folder / self.manifest.shards[shard][0]
        try:
            content = self._file(shard, path).read(offset, length)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        if len(content) < length:
            raise DataError(f"{path} ends early: it was cut while it was in use")
        return content

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def _file(self, shard: int, path: Path) -> "_File":
        file = self._files.get(shard)
        if file is None:
            file = _File(path)
            known = list(self._files)  # at once: other threads open and close files too
            for oldest in known[: max(0, len(known) - _OPEN + 1)]:
                self._files.pop(oldest, None)
            self._files[shard] = file
        return file


class ShardSource:
    """The pictures of a folder of shards, under the names and in the order of their own source."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError as `ShardPictures` does."""
        self.pictures = ShardPictures(folder)
        self.name = encodable(folder.resolve().name)
        self.origin = encodable(str(folder.resolve()))
        self.rejected: list[tuple[str, str]] = []

    def entries(self) -> list[Entry]:
        """One entry a picture."""
        known = self.pictures.manifest
        paths = [self.pictures.folder / file for file, _, _ in known.shards]
        columns = (known.shard.tolist(), known.offsets.tolist(), known.lengths.tolist())
        return [
            PieceEntry(name, paths[shard], offset, length)
            for name, shard, offset, length in zip(known.names, *columns, strict=True)
        ]


class TarSource:
    """The pictures in the uncompressed tars of a folder, such as WebDataset shards; none unpacked.

    A picture is called `TAR/NAME`. What lies beside pictures in such tars is `rejected`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = encodable(folder.resolve().name)
        self.origin = encodable(str(folder.resolve()))
        self.rejected: list[tuple[str, str]] = []

    def entries(self) -> list[Entry]:
        """Every member that may be a picture, in natural order of the names.

        Raises DataError when a tar is damaged or compressed, and when no picture is in any.
        """
        found: dict[str, PieceEntry] = {}
        self.rejected = []
        for path in sorted(self.folder.glob("*.tar")):
            for entry in _members(path, self.rejected):
                if entry.name in found:
                    self.rejected.append((entry.name, "second entry of its name"))
                else:
                    found[entry.name] = entry
        if not found:
            raise DataError(f"the tar files in {self.folder} hold no pictures")
        return sorted(found.values(), key=lambda entry: natural_key(entry.name))


def is_shards(folder: Path) -> bool:
    """Whether `folder` holds shards of ours, whole or damaged, of any version."""
    with contextlib.suppress(OSError), (folder / FILE).open("rb") as file:
        return f'"{FORMAT}"'.encode() in file.read(256)
    return False


def is_tars(folder: Path) -> bool:
    """Whether `folder` holds tar files and, but for notes and indices, nothing else.

    Raises DataError where they are shards of ours that are not complete.
    """
    try:
        if (folder / MAKING).is_dir():
            raise DataError(
                f"{folder} holds shards that are not complete: run the pokegan data shard that "
                "made them again"
            )
        items = [item for item in folder.iterdir() if not item.name.startswith(".")]
    except OSError:
        return False
    kinds = {item.suffix.lower() for item in items}
    return ".tar" in kinds and kinds <= {".tar", *_BESIDE} and all(map(Path.is_file, items))


class _File:
    """A file open for reading at any place, closed when nobody reads it any more."""

    def __init__(self, path: Path) -> None:
        self._handle = -1
        self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._path = path

    def read(self, offset: int, length: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._handle, length, offset)
        with self._path.open("rb", buffering=0) as file:  # no thread moves another's place
            file.seek(offset)
            return file.read(length)

    def __del__(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)


def _check_files(folder: Path, manifest: ShardManifest, verify: bool) -> None:
    """DataError where a shard is missing, of another length, or shorter than its pictures need."""
    ends = np.zeros(len(manifest.shards), np.int64)
    np.maximum.at(ends, manifest.shard, manifest.offsets + manifest.lengths)
    for (file, size, digest), end in zip(manifest.shards, ends.tolist(), strict=True):
        path = folder / file
        try:
            length = path.stat().st_size
            wrong = verify and length == size and checksum(path) != digest
        except FileNotFoundError:
            raise DataError(f"{folder} is not whole: {file} is missing") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        if length != size:
            raise DataError(f"{path} has {length:,} bytes, not {size:,}: make the shards again")
        if wrong or end > size or PurePosixPath(file).name != file:
            raise DataError(f"{path} does not match its checksum: make the shards again")


def _members(path: Path, rejected: list[tuple[str, str]]) -> list[PieceEntry]:
    entries = []
    try:
        with tarfile.open(path, "r:") as tar, path.open("rb") as file:
            while (member := tar.next()) is not None:
                cast(Any, tar).members.clear()  # tarfile keeps every header it has read
                name = f"{path.stem}/{encodable(member.name)}"
                reason = None if member.isfile() else "not a regular file"
                if member.isdir():
                    continue
                if member.isfile() and PurePosixPath(member.name.lower()).suffix in _NOTES:
                    file.seek(member.offset_data)
                    head = file.read(min(member.size, _HEAD))
                    reason = None if sniff(head) else foreign(head)
                if reason is None:
                    entries.append(PieceEntry(name, path, member.offset_data, member.size))
                else:
                    rejected.append((name, reason))
    except _DAMAGE as error:
        raise DataError(f"{path} is damaged or no plain tar file: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    return entries
