"""Files that are either complete or not there: write beside, fsync, rename."""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on a clean exit it becomes `path`.

    The parent folder is created. When the body raises, the temporary file is removed and whatever
    stood at `path` before is untouched. The temporary name ends with the suffix of `path`, so
    libraries that choose a format by the ending do the right thing.

    A link stays: what it leads to is written. A device or a pipe is no file that could be replaced,
    so `path` itself is yielded. Raises IsADirectoryError for a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; a file is wanted", str(path))
    if path.exists() and not path.is_file():
        yield path
        return
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix or ".part"
    temporary = path.with_name(f".{path.stem[:80]}-{os.getpid()}-{secrets.token_hex(4)}{suffix}")
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
