"""A set of picture files that is decoded while a run trains on it, instead of once before."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pokegan.data.cache import cached
from pokegan.data.decode import decode
from pokegan.data.encoded import EncodedPictures, SourcePictures
from pokegan.data.fetch import Say, tell
from pokegan.data.manifest import Manifest
from pokegan.data.options import RGB, PrepareOptions
from pokegan.data.packed import PackedImages
from pokegan.data.preparation import Progress
from pokegan.data.refusals import DecodeError
from pokegan.data.shards import ShardPictures, is_shards
from pokegan.data.sources import announcing, expanded, require_filters, resolve
from pokegan.data.square import fit
from pokegan.errors import DataError

Pixels = npt.NDArray[np.uint8]


class StreamedSet:
    """Picture files, and how each becomes a square.

    Attributes:
        pictures: the files.
        options: size, background, fit and limits.
        manifest: of the packed set with the same pictures; None where none was made.
    """

    def __init__(
        self, pictures: EncodedPictures, options: PrepareOptions, manifest: Manifest | None = None
    ) -> None:
        self.pictures = pictures
        self.options = options
        self.manifest = manifest

    @property
    def size(self) -> int:
        """Side of the squares in px."""
        return self.options.size

    @property
    def background(self) -> RGB:
        """The colour around and under the pictures, three levels 0 to 255."""
        return self.options.background

    @property
    def checksum(self) -> str:
        """What the files are told by."""
        return self.pictures.checksum

    def __len__(self) -> int:
        return len(self.pictures)

    def squares(self, chosen: npt.NDArray[np.int64]) -> Pixels:
        """Decode the pictures `chosen` [K]: [K, size, size, 3] uint8. Raises DataError."""
        read, names = self.pictures.read, self.pictures.names
        squares = [pillow_square(read(i), names[i], self.options) for i in chosen.tolist()]
        return np.stack(squares)


def open_streamed(
    data: str, options: PrepareOptions, progress: Progress | None = None, say: Say = tell
) -> StreamedSet:
    """The picture files that `data` means, for `--loader torch` and `dali`.

    Of a folder, an archive or a collection these are the files that preparation accepts, in the
    order of the packed set, which is made in the cache unless it is there. Shards are read as they
    are: what wrote them has looked at every picture.

    Raises DataError as `open_data` does, and when `data` is a packed set, which has no files.
    """
    shards = _shards(expanded(data)) if data else None
    if shards is not None:
        job = shards.manifest.job
        require_filters(job.get("options", {}), f"{data} holds shards, read as they are", options)
        return StreamedSet(shards, options)
    found = resolve(data, say)
    if isinstance(found, PackedImages):
        raise DataError(
            f"{data} is a prepared set, which has no picture files to decode: use --loader mapped, "
            "or give the folder that it was made of"
        )
    packed = cached(found, options, progress=progress or announcing(options, say))
    return StreamedSet(SourcePictures(found, packed.manifest), options, packed.manifest)


def pillow_square(content: bytes, name: str, options: PrepareOptions) -> Pixels:
    """Decode one file as `prepare` does: [size, size, 3] uint8; a DataError calls it `name`."""
    target = options.size if options.fit == "pad" else 2 * options.size
    try:
        picture = decode(content, options.background, options.max_pixels, target)
    except DecodeError as error:
        raise DataError(f"{name}: {error}") from error
    return np.asarray(fit(picture, options.size, options.fit, options.background))


def _shards(path: Path) -> ShardPictures | None:
    """The pictures of a folder of shards; None of any other folder."""
    if not path.is_dir() or not any(path.glob("*.tar")):
        return None
    return ShardPictures(path) if is_shards(path) else None
