"""What an evaluation found: the numbers, what they were taken from, and what they say together."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pokegan.metrics.estimate import Estimate

COLLAPSED = 0.25  # of the reals' spread, in features or in pixels
LITTLE_VARIETY = 0.5
DROPPED = 0.5  # recall below this share of precision
COPYING = 0.05  # share of copies beyond what twins among the reals explain

ROWS = {  # name: (unit or range, what is better)
    "fid": ("Fréchet distance", "lower"),
    "kid": ("kernel distance x 1000", "near 0"),
    "swd": ("sliced Wasserstein of patches x 1000", "lower"),
    "colour": ("colours, OKLab x 100", "lower"),
    "coverage_distance": ("covered share of pictures, %", "lower"),
    "precision": ("fakes that look like reals", "to 1"),
    "recall": ("reals that fakes look like", "to 1"),
    "density": ("fakes in dense places of the reals", "to 1"),
    "coverage": ("reals with a fake nearby", "to 1"),
    "feature_spread": ("variety in features, reals 1", "about 1"),
    "pixel_spread": ("variety in pixels, reals 1", "about 1"),
    "memorised": ("copies of training pictures", "0"),
    "memorised_features": ("... by features", "0"),
    "memorised_pixels": ("... by pixels", "0"),
}


@dataclass(frozen=True)
class Conditions:
    """What an evaluation was made of; two results compare only where these are alike.

    Attributes:
        name: of what was evaluated.
        reals: real pictures.
        fakes: generated ones.
        size: side of both, px.
        features: name of the source of features.
        identity: of that source, weights, input size and arithmetic included.
        dimensions: of a feature.
        seed: of the latents and of all that is drawn in measuring.
        truncation: bound of the latents, or None.
        ema: whether the weights are a moving average; None where that is not known.
        kimg: thousands of pictures that the generator was trained on, or None.
        data: name of the real pictures.
        checksum: of the real pictures.
    """

    name: str
    reals: int
    fakes: int
    size: int
    features: str
    identity: str
    dimensions: int
    seed: int
    truncation: float | None = None
    ema: bool | None = None
    kimg: float | None = None
    data: str = ""
    checksum: str = ""


@dataclass(frozen=True)
class Near:
    """A generated picture and the training picture that is nearest to it.

    Attributes:
        space: "features" or "pixels", in which it is.
        sample: number of the generated picture.
        picture: number of the training picture.
        distance: over that of this training picture to the nearest other one; below 0.5 is a copy.
    """

    space: str
    sample: int
    picture: int
    distance: float


@dataclass(frozen=True)
class Evaluation:
    """The measures of a generator, by the names in `ROWS`, and their conditions.

    Attributes:
        conditions: what was compared with what.
        measures: value and 95 % interval of each.
        levels: sliced Wasserstein distance of each level, by its side in px.
        twins: share of the reals as near to another real as a copy would be, by "features" and
            "pixels".
        seconds: wall time by part.
        nearest: the generated pictures that are nearest to training pictures, as on the sheet.
    """

    conditions: Conditions
    measures: Mapping[str, Estimate]
    levels: Mapping[int, float] = field(default_factory=dict)
    twins: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    nearest: Sequence[Near] = ()

    def value(self, name: str) -> float:
        """Return a measure's value."""
        return self.measures[name].value

    @property
    def collapsed(self) -> bool:
        """Whether the fakes vary so little, in features or in pixels, that they are a few modes."""
        return min(self.value("feature_spread"), self.value("pixel_spread")) < COLLAPSED

    @property
    def score(self) -> float:
        """One number to order generators by, lower is better: sqrt(FID x SWD) / variety.

        The first looks through a network, the second through none, so fooling one of them is not
        enough; variety is the lesser spread, at most 1.
        """
        variety = min(1.0, self.value("feature_spread"), self.value("pixel_spread"))
        return math.sqrt(self.value("fid") * self.value("swd")) / max(variety, 1e-9)

    @property
    def warnings(self) -> list[str]:
        """What the numbers say beyond themselves, each in one line."""
        return [*self._about_variety(), *self._about_copies(), *self._about_numbers()]

    def _about_variety(self) -> list[str]:
        value = self.value
        spreads = f"variety {value('feature_spread'):.2f} of the reals' in features, "
        spreads += f"{value('pixel_spread'):.2f} in pixels"
        found = []
        if self.collapsed:
            found.append(f"collapsed: {spreads}; a low distance says nothing here")
        elif min(value("feature_spread"), value("pixel_spread")) < LITTLE_VARIETY:
            found.append(f"little variety: {spreads}")
        if value("recall") < DROPPED * value("precision"):
            found.append(
                f"modes are missing: recall {value('recall'):.2f} at precision "
                f"{value('precision'):.2f}"
            )
        return found

    def _about_copies(self) -> list[str]:
        found = []
        for space, twins in self.twins.items():
            share = self.value(f"memorised_{space}")
            if share > twins + COPYING:
                found.append(
                    f"copies: {share:.0%} of the pictures by {space} (of the reals {twins:.0%} "
                    "have a twin)"
                )
        return found

    def _about_numbers(self) -> list[str]:
        known = self.conditions
        few = {"reals": known.reals, "fakes": known.fakes}
        short = [f"{count:,} {side}" for side, count in few.items() if count <= known.dimensions]
        if not short:
            return []
        return [
            f"{' and '.join(short)} for {known.dimensions:,} features: the covariance is singular "
            "and FID too high; compare it only at these numbers"
        ]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "conditions": dataclasses.asdict(self.conditions),
            "measures": {name: dataclasses.asdict(one) for name, one in self.measures.items()},
            "levels": {str(side): value for side, value in self.levels.items()},
            "twins": dict(self.twins),
            "collapsed": self.collapsed,
            "score": self.score,
            "warnings": self.warnings,
            "seconds": dict(self.seconds),
            "nearest": [dataclasses.asdict(one) for one in self.nearest],
        }

    def scalars(self) -> dict[str, float]:
        """Return `metrics/...` of every measure, for the records of a run."""
        values = {name: one.value for name, one in self.measures.items()}
        values |= {f"swd_{side}": value for side, value in self.levels.items()}
        values |= {"score": self.score, "collapsed": float(self.collapsed)}
        return {f"metrics/{name}": value for name, value in values.items()}

    def to_text(self) -> str:
        """Return a table of a line a measure, then what it was taken from, then warnings."""
        known = self.conditions
        lines = [known.name]
        for name, (meaning, better) in ROWS.items():
            one = self.measures[name]
            held = "" if one.low is None else f"{one.low:.4g} to {one.high:.4g}"
            lines.append(f"  {name:<19} {one.value:>9.4g}  {held:<20}  {meaning} ({better})")
        levels = ", ".join(f"{side} px {value:.1f}" for side, value in self.levels.items())
        average = {True: "moving average", False: "no moving average", None: "average not known"}
        latents = "all latents" if known.truncation is None else f"truncation {known.truncation:g}"
        trained = "" if known.kimg is None else f", {known.kimg:g} kimg"
        lines += [
            f"  {'swd by level':<19} {levels}",
            f"  of {known.fakes:,} fakes ({latents}, {average[known.ema]}, seed {known.seed}"
            f"{trained}) against {known.reals:,} reals of {known.data}, {known.size} px, "
            f"features {known.features}",
        ]
        return "\n".join([*lines, *(f"  ! {line}" for line in self.warnings)])


def ranked(results: Sequence[Evaluation]) -> list[Evaluation]:
    """Return results, the best first: those that have not collapsed, then by `score`."""
    return sorted(results, key=lambda one: (one.collapsed, one.score))


def ranking_text(results: Sequence[Evaluation]) -> str:
    """Return the order of several results, a line each, and where the measures disagree."""
    order = ranked(results)
    width = max(len(one.conditions.name) for one in order)
    lines = [f"{'':>4} {'':<{width}} {'score':>9} {'fid':>9} {'swd':>9} {'variety':>8}"]
    for place, one in enumerate(order, start=1):
        variety = min(one.value("feature_spread"), one.value("pixel_spread"))
        note = "  collapsed" if one.collapsed else ""
        lines.append(
            f"{place:>3}. {one.conditions.name:<{width}} {one.score:>9.4g} "
            f"{one.value('fid'):>9.4g} {one.value('swd'):>9.4g} {variety:>8.2f}{note}"
        )
    by_network = sorted(results, key=lambda one: one.value("fid"))
    by_patches = sorted(results, key=lambda one: one.value("swd"))
    if by_network != by_patches:
        lines.append("FID and SWD order them differently: look at the pictures")
    return "\n".join(lines)
