"""Pictures as the files that they came in, for the sources that decode them anew each epoch."""

import hashlib
import io
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from pokegan.data.entries import DrawnEntry, Source
from pokegan.data.manifest import Manifest
from pokegan.data.refusals import DecodeError
from pokegan.data.square import read_file
from pokegan.errors import DataError


class EncodedPictures(Protocol):
    """Picture files by number. Picklable: worker processes read for themselves."""

    @property
    def names(self) -> Sequence[str]:
        """What each picture is called."""
        ...

    @property
    def checksum(self) -> str:
        """What the files are told by: others have another one."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """Return the file of picture `index`.

        Raises:
            DataError: it cannot be read; the message names it.
        """
        ...


class SourcePictures:
    """The files of a source that `prepare` accepted, in the order of the packed set.

    Args:
        source: what was prepared.
        manifest: of the set that became of it.

    Raises:
        DataError: the source no longer has one of the pictures.
    """

    def __init__(self, source: Source, manifest: Manifest) -> None:
        entries = {entry.name: entry for entry in source.entries()}
        self.names: Sequence[str] = [picture.name for picture in manifest.pictures]
        for name in self.names:
            if name not in entries:
                raise DataError(f"{name} is no longer in {source.name}: start the run again")
        digest = hashlib.blake2b(digest_size=16)
        for picture in manifest.pictures:
            digest.update(bytes.fromhex(picture.sha256))
        self.checksum = digest.hexdigest()
        self._entries = [entries[name] for name in self.names]
        self._size = manifest.size
        self._max_bytes = int(manifest.options["max_bytes"])

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        """Return the file of picture `index`; a creature of the demo set is drawn, as PNG.

        Raises:
            DataError: it cannot be read; the message names it.
        """
        entry = self._entries[index]
        if isinstance(entry, DrawnEntry):
            return _drawn(entry, self._size)
        try:
            return read_file(entry, self._max_bytes)
        except DecodeError as error:
            raise DataError(f"{entry.path}: {error}") from error


class Chosen:
    """Some pictures of a store, in a new order.

    Args:
        pictures: the store.
        rows: [K] int64, which of them.
    """

    def __init__(self, pictures: EncodedPictures, rows: npt.NDArray[np.int64]) -> None:
        self.names: Sequence[str] = [pictures.names[row] for row in rows.tolist()]
        self.checksum = hashlib.blake2b(
            pictures.checksum.encode() + rows.tobytes(), digest_size=16
        ).hexdigest()
        self._pictures = pictures
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> bytes:
        """Return the file of picture `index`."""
        return self._pictures.read(int(self._rows[index]))


def _drawn(entry: DrawnEntry, size: int) -> bytes:
    from pokegan.data.creatures import draw_creature

    file = io.BytesIO()
    picture = Image.fromarray(draw_creature(entry.index, size, entry.seed))
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()
