"""A folder of pictures as a source: every regular file below it that may be a picture.

Files are taken by what they are, not by their ending; what an entry's content is worth is decided
in preparation. Only hidden files and the notes that often lie beside pictures are looked into here,
so that a folder of nothing else is told apart at once.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from pokegan.data.entries import Entry, FileEntry, natural_key
from pokegan.data.names import encodable, printable
from pokegan.data.packed import is_packed
from pokegan.data.shards import is_shards
from pokegan.data.sniff import foreign, sniff
from pokegan.errors import DataError

_HEAD = 65_536  # as much as `sniff` looks at
_BESIDE = (
    *(".txt", ".json", ".jsonl", ".csv", ".tsv", ".md", ".xml", ".yml", ".yaml", ".html", ".htm"),
    *(".ini", ".db", ".log", ".pdf", ".py", ".ipynb", ".npy", ".npz", ".pkl", ".url"),
)


class FolderSource:
    """The pictures below a folder, nested or not, named by their path inside it.

    Attributes:
        path: the folder.
        name: of the source: the folder's own name unless another one is given.
        origin: where the pictures come from: the folder's full path unless another is given.
        rejected: `(name, reason)` of what is no entry, complete after `entries()`: links in a loop
            or to nothing, folders and files that cannot be read, notes that are no pictures.
    """

    def __init__(
        self,
        path: Path,
        name: str | None = None,
        left_out: Iterable[tuple[str, str]] = (),
        origin: str | None = None,
    ) -> None:
        """`left_out` is what whoever filled the folder did not put there: it is rejected too."""
        self.path = path
        self.name = encodable(name or path.resolve().name or "pictures")
        self.origin = encodable(origin or str(path.resolve()))
        self.rejected: list[tuple[str, str]] = []
        self._left_out = list(left_out)

    def entries(self) -> list[Entry]:
        """Every file that may be a picture, as of now, in natural order of the names.

        Raises DataError when the folder cannot be read or holds no such file.
        """
        walk = _Walk(self.path)
        rejected = [*self._left_out, *walk.rejected]
        self.rejected = sorted(rejected, key=lambda row: natural_key(row[0]))
        if not walk.entries:
            raise DataError(f"{self.path} holds no pictures: {_first_reason(self.rejected)}")
        return sorted(walk.entries, key=lambda entry: natural_key(entry.name))


class _Walk:
    """One pass over a folder: real folders first, then the folders that links lead to."""

    def __init__(self, root: Path) -> None:
        self.entries: list[Entry] = []
        self.rejected: list[tuple[str, str]] = []
        self._root = root
        self._seen: set[tuple[int, int]] = set()
        self._folders = deque([root])
        self._links: deque[Path] = deque()
        while self._folders or self._links:
            self._read(self._folders.popleft() if self._folders else self._links.popleft())

    def _read(self, folder: Path) -> None:
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in self._seen:
                self._reject(folder, "link: to a folder that is read already")
                return
            self._seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as found:
                items = sorted(found, key=lambda item: item.name)
        except OSError as error:
            if folder == self._root:
                raise DataError(f"{folder} {_cannot(error)}") from error
            self._reject(folder, _cannot(error))
            return
        inside = "" if folder == self._root else folder.relative_to(self._root).as_posix() + "/"
        for item in items:
            self._sort(item, inside)

    def _sort(self, item: os.DirEntry[str], inside: str) -> None:
        path = Path(item.path)
        try:
            mode = item.stat().st_mode
        except OSError as error:
            self._reject(path, _broken_link(error) if item.is_symlink() else _cannot(error))
            return
        if stat.S_ISDIR(mode):
            self._sort_folder(path, item)
        elif stat.S_ISREG(mode):
            self._sort_file(path, inside + item.name)
        else:
            self._reject(path, "not a regular file")

    def _sort_folder(self, path: Path, item: os.DirEntry[str]) -> None:
        if _is_hidden_folder(path.name):
            self._reject(path, "hidden folder")
        elif is_packed(path):
            self._reject(path, "prepared set")
        elif is_shards(path):
            self._reject(path, "shards")
        elif not item.is_symlink():
            self._folders.append(path)
        elif path.parent.resolve().is_relative_to(path.resolve()):
            self._reject(path, "link: in a loop")
        else:
            self._links.append(path)

    def _sort_file(self, path: Path, name: str) -> None:
        if not os.access(path, os.R_OK):
            self._reject(path, "cannot be read: Permission denied")
            return
        reason = _why_no_picture(path) if _lies_beside(name.rpartition("/")[2]) else None
        if reason is None:
            self.entries.append(FileEntry(encodable(name), path))
        else:
            self._reject(path, reason)

    def _reject(self, path: Path, reason: str) -> None:
        self.rejected.append((self._name(path), reason))

    def _name(self, path: Path) -> str:
        return encodable(path.relative_to(self._root).as_posix())


def _is_hidden_folder(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _lies_beside(name: str) -> bool:
    """Whether a file is hidden, or of a kind that lies beside pictures rather than being one."""
    return name.startswith(".") or name.lower().endswith(_BESIDE)


def _why_no_picture(path: Path) -> str | None:
    """None when the content of `path` begins as a picture does, else the reason to leave it out."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        return _cannot(error)
    return None if sniff(head) else foreign(head)


def _broken_link(error: OSError) -> str:
    return "link: in a loop" if error.errno == errno.ELOOP else "link: to nothing"


def _cannot(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"


def _first_reason(rejected: list[tuple[str, str]]) -> str:
    if not rejected:
        return "it is empty"
    name, reason = rejected[0]
    return f"{len(rejected)} left out, the first is {printable(name)}: {reason}"
