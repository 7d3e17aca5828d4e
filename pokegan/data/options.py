"""How pictures are prepared: one frozen, validated set of choices."""

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeAlias

from pokegan.errors import ConfigError

RGB: TypeAlias = tuple[int, int, int]

WHITE: RGB = (255, 255, 255)
MAX_PIXELS = 64_000_000
PILLOW_MAX_PIXELS = 178_956_970  # beyond this Pillow refuses on its own account
DECODERS = ("pillow", "torchvision", "dali")
NEAR_DUPLICATE_DISTANCE = 6.5  # JPEG twins: up to 5.9; other pairs of 749: 16 or more, but one


@dataclass(frozen=True)
class PrepareOptions:
    """Choices of `prepare`. Two equal sets of options give equal pictures from equal files.

    Attributes:
        size: side of the prepared squares in px, 8 to 1024.
        background: colour under transparent pixels and around pictures that are not square.
        fit: "pad" keeps the whole picture, "crop" its centre square.
        keep_duplicates: keep every readable picture.
        near_duplicate_distance: the largest `duplicates.distance` of pictures counted as the same,
            in levels of 0..255; 0 keeps all but exact duplicates.
        max_pixels: larger pictures are refused by their header.
        max_bytes: larger files are refused unread.
        seconds_per_picture: of processor time; what takes longer is given up, in a worker process.
        decoder: "pillow", "torchvision" or "dali"; the latter two for the files that they read as
            Pillow does, which reads the others.

    Raises ConfigError for values out of range.
    """

    size: int
    background: RGB = WHITE
    fit: str = "pad"
    keep_duplicates: bool = False
    near_duplicate_distance: float = NEAR_DUPLICATE_DISTANCE
    max_pixels: int = MAX_PIXELS
    max_bytes: int = 256 << 20
    seconds_per_picture: float = 10.0
    decoder: str = "pillow"

    def __post_init__(self) -> None:
        object.__setattr__(self, "background", tuple(self.background))
        _require(8 <= self.size <= 1024, f"size must be 8 to 1024 px, not {self.size}")
        levels = len(self.background) == 3 and all(0 <= c <= 255 for c in self.background)
        _require(levels, f"background must be three levels 0 to 255, not {self.background}")
        _require(self.fit in ("pad", "crop"), f"fit must be 'pad' or 'crop', not {self.fit!r}")
        near = self.near_duplicate_distance
        _require(0 <= near <= 255, f"near_duplicate_distance must be 0 to 255, not {near}")
        _require(
            1 <= self.max_pixels <= PILLOW_MAX_PIXELS,
            f"max_pixels must be 1 to {PILLOW_MAX_PIXELS:,}, not {self.max_pixels:,}",
        )
        _require(self.max_bytes >= 1, f"max_bytes must be 1 or more, not {self.max_bytes}")
        seconds = self.seconds_per_picture
        _require(seconds > 0, f"seconds_per_picture must be above 0, not {seconds}")
        known = ", ".join(DECODERS)
        _require(self.decoder in DECODERS, f"decoder must be one of {known}, not {self.decoder!r}")

    def to_json(self) -> dict[str, Any]:
        """The options as JSON values, complete."""
        return {**dataclasses.asdict(self), "background": list(self.background)}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
