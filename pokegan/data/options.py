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
        min_size: pictures with a side of fewer px are refused; vector graphics have none.
        max_aspect: pictures longer than this many times their shorter side are refused, 1 or more;
            None: no limit.
        plain_background: refuse pictures whose border is neither transparent nor `background`.
        min_foreground: the least share of the square that differs from `background`, 0 to 1.
        max_pixels: larger pictures are refused by their header.
        max_bytes: larger files are refused unread.
        seconds_per_picture: of processor time; what takes longer is given up, in a worker process.
            A picture has two tries, each of half of it.
        decoder: "pillow", "torchvision" or "dali"; the latter two for the files that they read as
            Pillow does, which reads the others.

    Raises ConfigError for values out of range.
    """

    size: int
    background: RGB = WHITE
    fit: str = "pad"
    keep_duplicates: bool = False
    near_duplicate_distance: float = NEAR_DUPLICATE_DISTANCE
    min_size: int = 0
    max_aspect: float | None = None
    plain_background: bool = False
    min_foreground: float = 0.0
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
        _require(self.min_size >= 0, f"min_size must be 0 px or more, not {self.min_size}")
        aspect = self.max_aspect
        _require(aspect is None or aspect >= 1, f"max_aspect must be 1 or more, not {aspect}")
        least = self.min_foreground
        _require(0 <= least <= 1, f"min_foreground must be 0 to 1, not {least}")
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

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "PrepareOptions":
        """Read what `to_json` gave; what an older pokegan did not know has its default.

        Raises ConfigError for an option that is not known here, and for values out of range.
        """
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        _require(not unknown, f"the option {', '.join(unknown)} is not known to this pokegan")
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"the options are damaged: {error}") from error


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
