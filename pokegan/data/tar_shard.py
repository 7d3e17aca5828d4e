"""One shard: a WebDataset tar whose bytes follow from its pictures alone, and DALI's index of it.

A sample is one file, `KEY.EXTENSION`, its key the picture's number. Headers are plain ustar without
owner or time. The index is DALI's `v1.2` form: a line a sample of extension, offset, size and name.
"""

import hashlib
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pokegan.data.packed import checksum
from pokegan.files import atomic_path, write_text

INDEX_VERSION = "v1.2"

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)


class Member(NamedTuple):
    """A file in a shard: `length` bytes from byte `offset` of the tar."""

    name: str
    offset: int
    length: int


class Shard(NamedTuple):
    """A written shard.

    Attributes:
        file: its name.
        bytes: its length.
        checksum: BLAKE2b, 128 bits, in hexadecimal.
        offsets: [K] int64, where the pictures begin.
        lengths: [K] int64, of the pictures in bytes.
    """

    file: str
    bytes: int
    checksum: str
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"shard-{number:06d}.tar"


def write_shard(path: Path, first: int, pictures: Iterable[tuple[str, bytes]]) -> Shard:
    """Write `(extension, content)` of the pictures `first`, `first` + 1, ... as `path`, atomically.

    The index is put in its place before the tar: where the tar stands, both are whole.
    """
    members = []
    digest = hashlib.blake2b(digest_size=16)
    with atomic_path(path) as temporary:
        with temporary.open("wb") as file:
            for number, (extension, content) in enumerate(pictures, start=first):
                name = f"{number:09d}.{extension}"
                info = tarfile.TarInfo(name)
                info.size = len(content)
                header = info.tobuf(tarfile.USTAR_FORMAT)
                members.append(Member(name, file.tell() + len(header), len(content)))
                for piece in (header, content, bytes(-len(content) % _BLOCK)):
                    file.write(piece)
                    digest.update(piece)
            file.write(_END)
            digest.update(_END)
            size = file.tell()
        write_text(path.with_suffix(".idx"), _index(members))
    return _shard(path, size, digest.hexdigest(), members)


def find_shard(path: Path, first: int, count: int) -> Shard | None:
    """The shard at `path` where it is whole and holds `count` pictures from number `first` on."""
    try:
        size = path.stat().st_size
        members = _read_index(path.with_suffix(".idx"))
    except (OSError, ValueError):
        return None
    keys = [member.name.partition(".")[0] for member in members]
    if keys != [f"{number:09d}" for number in range(first, first + count)]:
        return None
    last = members[-1]
    if size != last.offset + last.length + -last.length % _BLOCK + len(_END):
        return None
    return _shard(path, size, checksum(path), members)


def _shard(path: Path, size: int, digest: str, members: Sequence[Member]) -> Shard:
    offsets = np.array([member.offset for member in members], np.int64)
    lengths = np.array([member.length for member in members], np.int64)
    return Shard(path.name, size, digest, offsets, lengths)


def _index(members: Sequence[Member]) -> str:
    lines = [f"{INDEX_VERSION} {len(members)}"]
    for name, offset, length in members:
        lines.append(f"{name.partition('.')[2]} {offset} {length} {name}")
    return "\n".join(lines) + "\n"


def _read_index(path: Path) -> list[Member]:
    """The members of an index that `write_shard` wrote. Raises OSError and ValueError."""
    version, *lines = path.read_text(encoding="utf-8").splitlines()
    if version != f"{INDEX_VERSION} {len(lines)}" or not lines:
        raise ValueError("not the index of a shard")
    rows = [line.split(" ") for line in lines]
    return [Member(name, int(offset), int(length)) for _, offset, length, name in rows]
