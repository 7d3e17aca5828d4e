"""A packed set as a source: its squares, for those who write them in another form."""

from pokegan.data import packed
from pokegan.data.entries import Entry, PieceEntry
from pokegan.data.names import encodable
from pokegan.data.packed import PackedImages


class PackedSource:
    """The pictures of a packed set, in its order, under its names."""

    def __init__(self, images: PackedImages) -> None:
        self.images = images
        self.name = encodable(images.path.resolve().name)
        self.origin = encodable(str(images.path.resolve()))
        self.rejected: list[tuple[str, str]] = []

    def entries(self) -> list[Entry]:
        """One entry a picture."""
        side = self.images.size
        length, path = side * side * 3, self.images.path / packed.IMAGES
        return [
            PieceEntry(name, path, i * length, length, side)
            for i, name in enumerate(self.images.names)
        ]
