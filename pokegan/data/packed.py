"""The packed set: a folder with all pictures in one raw file and a manifest beside it.

`images.u8` is uint8 [N, size, size, 3], RGB, C order, nothing else; `manifest.json` says the rest.
Readers map the file into memory: opening a set costs the same at any size.
"""

import contextlib
import hashlib
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pokegan.data.entries import Source
from pokegan.data.manifest import FORMAT, Manifest, origin_digest
from pokegan.data.names import encodable, printable
from pokegan.data.options import RGB
from pokegan.data.rows import RowFile
from pokegan.errors import DataError
from pokegan.files import sync

IMAGES = "images.u8"
MANIFEST = "manifest.json"
CONTACT_SHEET = "contact-sheet.png"

_CHUNK = 1 << 24
_OWN = frozenset({IMAGES, MANIFEST, CONTACT_SHEET})
_ABANDONED_SECONDS = 24 * 3600.0


class PackedImages:
    """A packed set, open for reading. It stays readable when another set takes its place.

    Attributes:
        path: the folder.
        manifest: what is in it and where it came from.
        images: uint8 [N, size, size, 3], read-only, mapped into memory.
        file: the same pictures, a row each, to be read without mapping.
    """

    def __init__(
        self, path: Path, manifest: Manifest, images: npt.NDArray[np.uint8], file: RowFile
    ) -> None:
        """Use `PackedImages.open`, which checks what it opens."""
        self.path = path
        self.manifest = manifest
        self.images = images
        self.file = file

    @classmethod
    def open(cls, path: Path, verify: bool = False) -> "PackedImages":
        """Open the packed set in folder `path`; `verify` reads it once and compares the checksum.

        Raises DataError when it is no packed set, is of another version, cut short, or damaged.
        """
        path = Path(path)
        try:
            manifest = Manifest.from_json((path / MANIFEST).read_text(encoding="utf-8"))
            shape = (len(manifest.pictures), manifest.size, manifest.size, 3)
            images, file = _map(path / IMAGES, shape)
            if verify and checksum(path / IMAGES) != manifest.checksum:
                raise DataError(f"{IMAGES} does not match its checksum")
        except FileNotFoundError as error:
            missing = Path(error.filename).name
            raise DataError(f"{path} is not a packed set: {missing} is missing") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path} cannot be used: the manifest is damaged") from error
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        except DataError as error:
            raise DataError(f"{path} cannot be used: {error}") from error
        return cls(path, manifest, images, file)

    @cached_property
    def names(self) -> list[str]:
        """The name of each picture: its path inside its source."""
        return [picture.name for picture in self.manifest.pictures]

    @property
    def size(self) -> int:
        """Side of the pictures in px."""
        return self.manifest.size

    @property
    def background(self) -> RGB:
        """The colour around and under the pictures, three levels 0 to 255."""
        return self.manifest.background

    @property
    def checksum(self) -> str:
        """What the pixels are told by, in hexadecimal."""
        return self.manifest.checksum

    def squares(self, chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return a copy of the pictures `chosen` [K]: [K, size, size, 3] uint8."""
        return np.array(self.images[chosen])

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels."""
        return len(self) * self.size**2 * 3

    def __len__(self) -> int:
        return len(self.manifest.pictures)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the set anew instead of being sent the pictures."""
        return PackedImages.open, (self.path,)

    def __repr__(self) -> str:
        return f"PackedImages({str(self.path)!r}: {len(self)} of {self.size} px)"


def is_packed(path: Path) -> bool:
    """Whether folder `path` holds a packed set, whole or damaged, of any version."""
    try:
        with (Path(path) / MANIFEST).open("rb") as file:
            return f'"{FORMAT}"'.encode() in file.read(256)
    except OSError:
        return False


def is_made_of(path: Path, source: Source) -> bool:
    """Whether the set in folder `path` says that it was made of `source`, as it is now or was."""
    with contextlib.suppress(DataError):
        manifest = PackedImages.open(path).manifest
        same_place = manifest.origin in ("", origin_digest(source.origin))
        return manifest.source == source.name and same_place
    return False


@contextlib.contextmanager
def staged(path: Path, owned: bool = False) -> Iterator[Path]:
    """Yield a new folder beside `path`; on a clean exit it becomes `path`.

    What stood there before is replaced when it is a packed set with no other file in it, or an
    empty folder, or when the place is `owned` by pokegan. Otherwise, where `path` is or holds the
    current folder or is a mount point, and when the system does not let us write, DataError. Where
    `path` is a link, what it leads to is replaced. When the body raises, the new folder is removed
    and the old one untouched. What killed processes left beside `path` a day or longer ago is
    removed.
    """
    path = _resolved(path)
    if not owned:
        _refuse_to_replace(path)
    temporary = beside(path)
    try:
        try:
            temporary.mkdir(parents=True)
            _remove_abandoned(path)
            yield temporary
            if not owned:
                _refuse_to_replace(path)  # files may have come in the meantime
            _publish(temporary, path)
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def beside(path: Path) -> Path:
    """A new name for a temporary neighbour of `path`, on the same file system."""
    return path.parent / f".{path.name}-{secrets.token_hex(6)}.part"


def checksum(path: Path) -> str:
    """BLAKE2b, 128 bits, of a file, in hexadecimal."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _map(path: Path, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.uint8], RowFile]:
    """Open the file once, mapped and to be read: another set may take its name at any moment."""
    with path.open("rb") as file:
        length, expected = os.fstat(file.fileno()).st_size, math.prod(shape)
        if length != expected:
            raise DataError(f"{IMAGES} has {length:,} bytes, not {expected:,}")
        if not expected:
            raise DataError("there is no picture in it")
        mapped = np.memmap(file, np.uint8, mode="r", shape=shape)
        return mapped, RowFile(file.fileno(), path, math.prod(shape[1:]))


def _resolved(path: Path) -> Path:
    """`path` without links; DataError where it goes round in circles."""
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError) as error:
        raise DataError(f"cannot write {path}: it cannot be followed: {error}") from error


def _refuse_to_replace(path: Path) -> None:
    """Raise DataError where anything but a packed set would be lost, and what cannot be moved."""
    with contextlib.suppress(FileNotFoundError):  # the current folder may be gone
        if Path.cwd().is_relative_to(path):
            raise DataError(f"{path} is the current folder or holds it: name a new or empty folder")
    if path.is_mount():
        raise DataError(f"{path} is a mount point and cannot be replaced: name a folder in it")
    if not path.exists():
        return
    if not path.is_dir():
        raise DataError(f"{path} is a file: name a folder for the packed set")
    try:
        found = {item.name for item in path.iterdir()}
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if found and not is_packed(path):
        raise DataError(f"{path} is not a packed set: name a new or empty folder")
    if foreign := sorted(found - _OWN):
        name = printable(encodable(foreign[0]))
        raise DataError(
            f"{path} holds {name}, which is no part of the set and would be lost: move it away, "
            "or name another folder"
        )


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary neighbours of `path` in which nothing was written for a day."""
    own = re.compile(rf"\.{re.escape(path.name)}-[0-9a-f]{{12}}\.part")
    with contextlib.suppress(OSError):
        for folder in path.parent.iterdir():
            if own.fullmatch(folder.name):
                newest = max(item.stat().st_mtime for item in (folder, *folder.iterdir()))
                if newest < time.time() - _ABANDONED_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)


def _publish(temporary: Path, path: Path) -> None:
    """Make `temporary` durable and give it the name `path`; put an older set back on failure."""
    for child in temporary.iterdir():
        sync(child)
    sync(temporary)
    while not swap(temporary, path):
        pass
    sync(path.parent)


def swap(temporary: Path, path: Path) -> bool:
    """Give `temporary` the name `path`; False when another process was there in between.

    What stood there before goes when the new folder is there and not earlier: whatever is raised in
    between, by the handler of a signal too, one of them has the name.
    """
    old = beside(path)
    try:
        with contextlib.suppress(FileNotFoundError):
            path.rename(old)
        return _renamed(temporary, path)
    finally:
        if path.exists():
            _remove(old)
        else:
            with contextlib.suppress(OSError):  # it was not there, or another process is faster
                old.rename(path)


def _renamed(temporary: Path, path: Path) -> bool:
    """Rename `temporary`, unless the name is taken."""
    try:
        temporary.rename(path)
    except OSError:
        if path.exists():
            return False
        raise
    return True


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
