"""A look at a prepared set: figures about its pictures, for people and for programs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pokegan.data.contact_sheet import save_contact_sheet
from pokegan.data.filters import DRAWN, SVG
from pokegan.data.inspection_text import inspection_text
from pokegan.data.measures import Measures, measure
from pokegan.data.options import RGB
from pokegan.data.outliers import FEWEST, THRESHOLD, Outlier, find_outliers
from pokegan.data.packed import PackedImages

NEARLY_EMPTY = 0.02  # share of the square: 9 x 9 px of 64 x 64
OUTLIER_COLOUR: RGB = (230, 0, 0)
EMPTY_COLOUR: RGB = (0, 90, 255)

_SIZES = 10
_CHANNELS = ("red", "green", "blue")
_QUANTILES = {"least": 0.0, "p5": 0.05, "median": 0.5, "p95": 0.95, "most": 1.0}


@dataclass(frozen=True)
class Inspection:
    """Figures about a prepared set.

    Attributes:
        images: the set.
        measures: of its pixels.
        outliers: the pictures unlike the others, the farthest out first.
    """

    images: PackedImages
    measures: Measures
    outliers: Sequence[Outlier]

    @cached_property
    def nearly_empty(self) -> list[int]:
        """The pictures with less than `NEARLY_EMPTY` foreground, the emptiest first."""
        share = self.measures.foreground
        found = np.flatnonzero(share < NEARLY_EMPTY)
        return [int(i) for i in found[np.argsort(share[found], kind="stable")]]

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values, as docs/data.md says; lists are complete."""
        manifest = self.images.manifest
        return {
            "path": str(self.images.path),
            "source": manifest.source,
            "created": manifest.created,
            "options": manifest.options,
            "size": self.images.size,
            "background": list(self.images.background),
            "found": manifest.found,
            "count": len(self.images),
            "counts": manifest.counts(),
            "originals": self._originals(),
            "colour": self._colour(),
            "border": self._border(),
            "foreground": self._foreground(),
            "nearly_empty": self._nearly_empty(),
            "outliers": self._outliers(),
            "duplicates": self._duplicates(),
            "skipped": [row._asdict() for row in manifest.skipped],
        }

    def to_text(self, listed: int = 10) -> str:
        """The same in a few lines, with up to `listed` names in each list."""
        return inspection_text(self.to_json(), self.images, listed)

    def save_sheet(self, path: Path) -> Path:
        """Save a contact sheet of up to 100 pictures; returns `path`.

        Outliers are framed in red and nearly empty pictures in blue, each with its index in the
        set; the first fifty of them are shown, the others are evenly spaced over the set.
        """
        outliers = (outlier.index for outlier in self.outliers)
        marks = dict.fromkeys(outliers, OUTLIER_COLOUR)
        marks |= dict.fromkeys(self.nearly_empty, EMPTY_COLOUR)
        return save_contact_sheet(self.images, path, marks=marks)

    def _originals(self) -> dict[str, Any]:
        pictures = self.images.manifest.pictures
        formats = Counter(picture.format or "unknown" for picture in pictures)
        sides = [
            (picture.width, picture.height)
            for picture in pictures
            if picture.width and picture.height and picture.format not in (SVG, DRAWN)
        ]
        found: dict[str, Any] = {
            "formats": dict(formats.most_common()),
            "known": len(sides),
            "sizes": [],
        }
        if not sides:
            return found
        width, height = np.array(sides).T
        cropped = self.images.manifest.options.get("fit") == "crop"
        decisive = np.minimum(width, height) if cropped else np.maximum(width, height)
        top = Counter(sides).most_common(_SIZES)
        return found | {
            "width": _quantiles(width),
            "height": _quantiles(height),
            "aspect": _quantiles(np.maximum(width, height) / np.minimum(width, height)),
            "enlarged": int((decisive < self.images.size).sum()),
            "sizes": [{"width": w, "height": h, "pictures": n} for (w, h), n in top],
        }

    def _colour(self) -> dict[str, Any]:
        histogram = self.measures.histogram  # [3, 256]
        levels, pixels = np.arange(256), histogram.sum(axis=1)
        mean = histogram @ levels / pixels
        spread = np.sqrt(np.maximum(histogram @ levels**2 / pixels - mean**2, 0))
        share = self.measures.foreground.astype(np.float64)
        saturation = (self.measures.saturation * share).sum() / max(share.sum(), 1e-12)
        return {
            "mean": mean.tolist(),
            "spread": spread.tolist(),
            "saturation": float(saturation),
            "histogram": dict(zip(_CHANNELS, histogram.tolist(), strict=True)),
        }

    def _border(self) -> dict[str, Any]:
        plain, names = self.measures.plain, self.images.names
        return {
            "plain": int(plain.sum()),
            "share": float(plain.mean()),
            "other": [names[i] for i in np.flatnonzero(~plain)],
        }

    def _foreground(self) -> dict[str, Any]:
        share, names = self.measures.foreground, self.images.names
        return {
            **_quantiles(share),
            "least_name": names[int(share.argmin())],
            "most_name": names[int(share.argmax())],
        }

    def _nearly_empty(self) -> dict[str, Any]:
        share, names = self.measures.foreground, self.images.names
        rows = [
            {"index": i, "name": names[i], "foreground": float(share[i])} for i in self.nearly_empty
        ]
        return {"under": NEARLY_EMPTY, "pictures": rows}

    def _outliers(self) -> dict[str, Any]:
        names = self.images.names
        rows = [{"name": names[outlier.index], **asdict(outlier)} for outlier in self.outliers]
        return {"threshold": THRESHOLD, "fewest": FEWEST, "pictures": rows}

    def _duplicates(self) -> list[Mapping[str, Any]]:
        groups: dict[str, list[dict[str, str]]] = {}
        for row in self.images.manifest.duplicates:
            groups.setdefault(row.kept, []).append({"name": row.name, "kind": row.kind})
        return [{"kept": kept, "dropped": dropped} for kept, dropped in groups.items()]


def inspect(images: PackedImages) -> Inspection:
    """Read every pixel of a set once, a megabyte at a time."""
    measures = measure(images)
    return Inspection(images, measures, find_outliers(measures))


def _quantiles(values: npt.NDArray[Any]) -> dict[str, float]:
    return {name: float(np.quantile(values, q)) for name, q in _QUANTILES.items()}
