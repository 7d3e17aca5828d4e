"""Unpack zip and tar archives that strangers made.

Nothing is written outside the target, no link or device is made, sizes are counted while they are
written, and the target appears whole or not at all. Knows nothing of pictures.
"""

import bz2
import contextlib
import errno
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from pokegan.data.names import printable
from pokegan.data.packed import beside
from pokegan.errors import DataError

MAX_BYTES = 8 * 2**30
MAX_FILES = 500_000
ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")

Skipped = list[tuple[str, str]]
Keep = Callable[[PurePosixPath], bool]

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_GZIP = b"\x1f\x8b"
_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\x00"

_LINK = "link: not unpacked"
_SPECIAL = "not a regular file"
_CHUNK = 1 << 20
_LARGEST_HEADER = 1 << 24
_DRIVE = re.compile(r"[A-Za-z]:")
_UNWRITABLE_NAME = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ENOTDIR, errno.EISDIR}
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile),
    *(EOFError, ValueError, IndexError, OverflowError, NotImplementedError, RuntimeError),
)


def is_archive(path: Path) -> bool:
    """Whether the file `path` begins, or is called, as an archive that `extract` reads is."""
    if path.name.lower().endswith(ENDINGS):
        return True
    with path.open("rb") as file:
        head = file.read(512)
    return head.startswith((*_ZIP, _GZIP, _BZIP2, _XZ)) or head[257:262] == b"ustar"


def stem(name: str) -> str:
    """The name of an archive without its ending, `.tar.gz` being one ending."""
    endings = [ending for ending in ENDINGS if name.lower().endswith(ending)]
    return name[: -max(map(len, endings))] if endings else name


def extract(
    archive: Path,
    target: Path,
    max_bytes: int = MAX_BYTES,
    max_files: int = MAX_FILES,
    keep: Keep | None = None,
) -> Skipped:
    """Unpack the regular files of a zip or a tar (plain, gzip, bzip2, xz) into a new folder.

    The format is told by the content. `keep` chooses files by their path inside the archive; what
    it refuses is left out silently. Returns `(name, reason)` of every entry that was not unpacked:
    links, devices, paths that leave the target, second files of a name. The result is written
    beside `target` and renamed, so `target` is whole or not there.

    Raises DataError when `target` exists, when the archive is no archive, damaged or encrypted,
    when it holds no file, more than `max_files` entries or more than `max_bytes` bytes unpacked.
    """
    if target.exists() or target.is_symlink():
        raise DataError(f"{target} exists already: remove it or choose another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(target)
    temporary.mkdir()
    try:
        writer = _Writer(archive, temporary, max_bytes, max_files, keep)
        with _as_data_errors(archive):
            _unpack(archive, writer)
        if not writer.written:
            raise DataError(f"{archive} holds no file that can be unpacked{_why(writer.skipped)}")
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return writer.skipped


class _Writer:
    """Writes entries below a fresh folder that holds nothing but what this object wrote."""

    def __init__(
        self, archive: Path, root: Path, max_bytes: int, max_files: int, keep: Keep | None
    ) -> None:
        self.skipped: Skipped = []
        self.written = 0
        self._archive = archive
        self._root = root
        self._keep = keep
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._entries = 0
        self._bytes = 0

    def count_entry(self) -> None:
        """Count one entry of any kind; raises DataError above the limit."""
        self._entries += 1
        if self._entries > self._max_files:
            raise DataError(f"{self._archive} holds more than {self._max_files:,} entries: refused")

    def count_bytes(self, count: int) -> None:
        """Count unpacked bytes, written or passed over; raises DataError above the limit."""
        self._bytes += count
        if self._bytes > self._max_bytes:
            raise DataError(
                f"{self._archive} unpacks to more than {self._max_bytes:,} bytes: refused"
            )

    def skip(self, name: str, reason: str) -> None:
        """Note that the entry `name` is left out."""
        self.skipped.append((printable(name), reason))

    def place(self, name: str) -> Path | None:
        """Where the file called `name` goes, or None when it is unsafe or not wanted."""
        reason = _unsafe(name)
        if reason:
            self.skip(name, reason)
            return None
        inside = PurePosixPath(*_parts(name))
        if self._keep is not None and not self._keep(inside):
            return None
        return self._root.joinpath(*inside.parts)

    def write(self, name: str, path: Path, content: IO[bytes]) -> None:
        """Copy `content` to the new file `path`, counting the bytes as they come."""
        file = self._create(name, path)
        if file is None:
            return
        with file:
            while chunk := content.read(_CHUNK):
                self.count_bytes(len(chunk))
                file.write(chunk)
        self.written += 1

    def _create(self, name: str, path: Path) -> IO[bytes] | None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.open("xb")
        except FileExistsError:
            self.skip(name, "second entry of its name")
        except OSError as error:
            if error.errno not in _UNWRITABLE_NAME:
                raise
            self.skip(name, f"cannot be written: {error.strerror}")
        return None


def _unpack(archive: Path, writer: _Writer) -> None:
    with archive.open("rb") as file:
        magic = file.read(6)
        file.seek(0)
        if magic.startswith(_ZIP):
            _unpack_zip(archive, file, writer)
            return
        with _decompressed(file, magic) as content:
            _unpack_tar(content, writer)


def _unpack_zip(archive: Path, file: IO[bytes], writer: _Writer) -> None:
    with zipfile.ZipFile(file) as members:
        for member in members.infolist():
            writer.count_entry()
            if member.is_dir():
                continue
            if member.flag_bits & 1:
                raise DataError(
                    f"{archive} is encrypted: unpack it with its password and give the folder"
                )
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                writer.skip(member.filename, _LINK if kind == stat.S_IFLNK else _SPECIAL)
                continue
            path = writer.place(member.filename)
            if path is not None:
                with _opened(archive, members, member) as content:
                    writer.write(member.filename, path, content)


def _opened(archive: Path, members: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    try:
        return members.open(member)
    except (NotImplementedError, RuntimeError) as error:  # raised before anything is read
        raise DataError(
            f"{archive} is compressed in a way that cannot be read here (method "
            f"{member.compress_type}): unpack it with the program that made it and give the folder"
        ) from error


def _unpack_tar(content: "_Bounded", writer: _Writer) -> None:
    with tarfile.open(fileobj=content, mode="r:") as members:
        while (member := members.next()) is not None:
            cast(Any, members).members.clear()  # tarfile keeps every header it has read
            writer.count_entry()
            if member.size < 0:
                raise tarfile.ReadError("a negative size")
            path = _tar_place(member, writer)
            source = members.extractfile(member) if path is not None else None
            if path is None or source is None:
                writer.count_bytes(member.size)
                continue
            with source:
                writer.write(member.name, path, source)
    content.require_end()


def _tar_place(member: tarfile.TarInfo, writer: _Writer) -> Path | None:
    if member.isdir():
        return None
    if member.issym() or member.islnk():
        writer.skip(member.name, _LINK)
        return None
    if not member.isfile():
        writer.skip(member.name, _SPECIAL)
        return None
    return writer.place(member.name)


class _Bounded(io.RawIOBase):
    """A readable stream that refuses huge single reads and remembers the last tar header.

    tarfile reads a header's extension in one piece and ends silently at a broken header; this
    bounds the first and makes the second visible.
    """

    def __init__(self, stream: IO[bytes] | io.BufferedIOBase) -> None:
        super().__init__()
        self._stream = stream
        self._last = b""

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true; going back may cost a second decompression."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes; raises DataError when more than 16 MiB are asked for at once."""
        if size < 0 or size > _LARGEST_HEADER:
            raise tarfile.ReadError("a header larger than any honest one")
        self._last = self._stream.read(size)
        return self._last

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move as `io.IOBase.seek` does."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """The position in the decompressed stream, in bytes."""
        return self._stream.tell()

    def require_end(self) -> None:
        """Raise tarfile.ReadError unless the last block read was an end mark or nothing."""
        if self._last.strip(b"\0"):
            raise tarfile.ReadError("a broken header")


@contextlib.contextmanager
def _decompressed(file: IO[bytes], magic: bytes) -> Iterator[_Bounded]:
    if magic.startswith(_GZIP):
        with gzip.GzipFile(fileobj=file) as plain:
            yield _Bounded(plain)
    elif magic.startswith(_BZIP2):
        with bz2.BZ2File(file) as plain:
            yield _Bounded(plain)
    elif magic.startswith(_XZ):
        with lzma.LZMAFile(file) as plain:
            yield _Bounded(plain)
    else:
        yield _Bounded(file)


@contextlib.contextmanager
def _as_data_errors(archive: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{archive} is damaged or not a zip or tar archive: {reason}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{archive} cannot be unpacked: {reason}") from error


def _unsafe(name: str) -> str | None:
    """Why `name` may not be written, or None. Backslashes separate folders, as on Windows."""
    if not name or "\0" in name:
        return "unsafe path: no file name"
    if name[0] in "/\\" or _DRIVE.match(name):
        return "unsafe path: absolute"
    parts = _parts(name)
    if ".." in parts:
        return "unsafe path: leaves the archive"
    return None if parts else "unsafe path: no file name"


def _parts(name: str) -> list[str]:
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]


def _why(skipped: Skipped) -> str:
    return f" ({skipped[0][0]}: {skipped[0][1]})" if skipped else ""
