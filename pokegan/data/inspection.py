"""A look at a prepared set: figures about its pictures, for people and for programs."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pokegan.data.contact_sheet import report_text
from pokegan.data.packed import PackedImages

_ROWS = 256


@dataclass(frozen=True)
class Inspection:
    """Figures about a prepared set.

    Attributes:
        images: the set.
        mean_colour: mean red, green and blue over all pixels, 0 to 255.
    """

    images: PackedImages
    mean_colour: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values; lists are complete."""
        manifest = self.images.manifest
        return {
            "path": str(self.images.path),
            "source": manifest.source,
            "found": manifest.found,
            "count": len(self.images),
            "size": self.images.size,
            "background": list(self.images.background),
            "mean_colour": list(self.mean_colour),
            "counts": manifest.counts(),
            "skipped": [row._asdict() for row in manifest.skipped],
            "duplicates": [row._asdict() for row in manifest.duplicates],
            "options": manifest.options,
            "created": manifest.created,
        }

    def to_text(self, listed: int = 10) -> str:
        """The same in a few lines, with up to `listed` names for each reason."""
        lines = [
            report_text(self.images.manifest, listed),
            f"background {_hexadecimal(self.images.background)}, "
            f"mean colour {_hexadecimal(self.mean_colour)}",
            f"set {self.images.path}: {self.images.nbytes / 1e6:,.1f} MB",
        ]
        return "\n".join(lines)


def inspect(images: PackedImages) -> Inspection:
    """Read every pixel of a set once, a few hundred pictures at a time."""
    total = np.zeros(3)
    for start in range(0, len(images), _ROWS):
        total += images.images[start : start + _ROWS].sum(axis=(0, 1, 2), dtype=np.uint64)
    red, green, blue = (total / (len(images) * images.size**2)).tolist()
    return Inspection(images, (red, green, blue))


def _hexadecimal(colour: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(level):02x}" for level in colour)
