"""One self-contained HTML file about one run or several: opens offline, asks for nothing.

Its page, style and script lie in `assets/`; pictures go in as WebP, within a budget of bytes.
"""

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pokegan.render.animation import read_picture, thinned

POINTS = 300  # of a line: more cannot be seen
MOMENTS = 80  # of a gradient flow
FILM_BYTES = 3_600_000  # of all films of a report, before base64 adds a third
FRAMES = 100
FORMS = ((640, 80), (640, 60), (640, 40), (400, 40), (256, 30), (128, 20))  # px, WebP's quality
SURVEYED = 4
NEAR_SIDE = 128  # px of a sample and of what it is near to

Film = Sequence[tuple[str, Path]]  # (label, picture file)


@dataclass(frozen=True)
class Match:
    """The training picture that is nearest to a made-up one.

    Attributes:
        real: [H, W, 3] uint8.
        space: in which it is.
        distance: in that space.
        mark: what there is to say of so small a distance, or "".
    """

    real: NDArray[np.uint8]
    space: str
    distance: float
    mark: str = ""


@dataclass(frozen=True)
class Neighbour:
    """A made-up picture [H, W, 3] uint8 beside the training pictures nearest to it."""

    sample: NDArray[np.uint8]
    label: str
    matches: Sequence[Match]


@dataclass(frozen=True)
class Measure:
    """A measure of a run's pictures, with its 95 % interval where one is known."""

    name: str
    meaning: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Quality:
    """How good a run's pictures are.

    Attributes:
        measures: in the order of the table.
        note: what was measured.
        warnings: what the measures say together, a line each.
        nearest: of the pictures that were measured those nearest to training pictures.
        nearest_note: a line above them.
    """

    measures: Sequence[Measure]
    note: str
    warnings: Sequence[str] = ()
    nearest: Sequence[Neighbour] = ()
    nearest_note: str = ""


@dataclass(frozen=True)
class RunStory:
    """What a report tells of a run.

    Attributes:
        name: of the run, short.
        story: what happened, in a sentence or two.
        facts: (name, value) in the order of the table.
        records: those of stats.jsonl; "kimg" is the x of every line.
        gradients: those of gradients.jsonl.
        samples: the grids in their order.
        reconstructions: likewise.
        contact: [H, W, 3] uint8, some of the training pictures, or None.
        contact_note: a line below it.
        neighbours: samples beside training pictures.
        neighbours_note: a line above them.
        quality: how good its pictures are, where that was measured.
        settings: all of them, as text.
    """

    name: str
    story: str
    facts: Sequence[tuple[str, str]] = ()
    records: Sequence[Mapping[str, Any]] = ()
    gradients: Sequence[Mapping[str, Any]] = ()
    samples: Film = ()
    reconstructions: Film = ()
    contact: NDArray[np.uint8] | None = None
    contact_note: str = ""
    neighbours: Sequence[Neighbour] = field(default_factory=tuple)
    neighbours_note: str = ""
    settings: str = ""
    quality: Quality | None = None


def render_report(title: str, runs: Sequence[RunStory], footer: str = "") -> str:
    """Return the report as HTML text.

    Raises:
        ValueError: there is no run.
    """
    if not runs:
        raise ValueError("a report needs a run")
    films = [film for run in runs for film in (run.samples, run.reconstructions) if film]
    share = FILM_BYTES // max(1, len(films))
    data = {"title": title, "footer": footer, "runs": [_run(run, share) for run in runs]}
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    page = _asset("report.html")
    for place, content in (
        ("@STYLE@", _asset("report.css")),
        ("@SCRIPT@", _asset("charts.js") + _asset("report.js")),
        ("@TITLE@", html.escape(title)),
        ("@DATA@", text),  # last: nothing in it is taken for a place
    ):
        page = page.replace(place, content, 1)
    return page


def _run(run: RunStory, film_bytes: int) -> dict[str, Any]:
    return {
        "name": run.name,
        "story": run.story,
        "facts": [list(fact) for fact in run.facts],
        "series": series(run.records),
        "gradients": flows(run.gradients),
        "samples": _film(run.samples, film_bytes),
        "reconstructions": _film(run.reconstructions, film_bytes),
        "contact": None if run.contact is None else _embedded(Image.fromarray(run.contact), 70),
        "contact_note": run.contact_note,
        "neighbours": [_neighbour(one) for one in run.neighbours],
        "neighbours_note": run.neighbours_note,
        "quality": None if run.quality is None else _quality(run.quality),
        "settings": run.settings,
    }


def _neighbour(one: Neighbour) -> dict[str, Any]:
    matches = [
        {
            "src": _small(match.real),
            "space": match.space,
            "distance": f"{match.distance:.2f}",
            "mark": match.mark,
        }
        for match in one.matches
    ]
    return {"sample": _small(one.sample), "label": one.label, "matches": matches}


def _small(picture: NDArray[np.uint8]) -> str:
    image = Image.fromarray(picture)
    image.thumbnail((NEAR_SIDE, NEAR_SIDE), Image.Resampling.LANCZOS)
    return _embedded(image, 85)


def _quality(quality: Quality) -> dict[str, Any]:
    measures = [
        {
            "name": one.name,
            "meaning": one.meaning,
            "value": f"{one.value:.4g}",
            "interval": "" if one.low is None else f"{one.low:.3g} to {one.high:.3g}",
        }
        for one in quality.measures
    ]
    return {
        "measures": measures,
        "note": quality.note,
        "warnings": list(quality.warnings),
        "nearest": [_neighbour(one) for one in quality.nearest],
        "nearest_note": quality.nearest_note,
    }


def series(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Return {name: {"x": kimg, "y": values}} of what the records hold, at most 300 points each.

    Neighbouring records are averaged. Where no record has "speed/images_per_s" it comes from their
    times; what is in bytes becomes MB. What is not finite is left out.
    """
    timed = not any("speed/images_per_s" in record for record in records)
    found: dict[str, list[tuple[float, float]]] = {}
    before: Mapping[str, Any] | None = None
    for record in records:
        kimg: Any = record.get("kimg")
        if not _is_number(kimg):
            continue
        for name, value in {**record, **_derived(before if timed else None, record)}.items():
            if "/" in name and _is_number(value):
                found.setdefault(name, []).append((kimg, value))
        before = record if _is_number(record.get("seconds")) else before
    return {name: _thin(points) for name, points in found.items() if not name.endswith("_bytes")}


def _derived(before: Mapping[str, Any] | None, record: Mapping[str, Any]) -> dict[str, float]:
    derived = {
        name.removesuffix("_bytes"): value / 1e6
        for name, value in record.items()
        if name.startswith("memory/") and name.endswith("_bytes") and _is_number(value)
    }
    if before is not None and _is_number(record.get("seconds")):
        seconds = record["seconds"] - before["seconds"]
        images = (record["kimg"] - before["kimg"]) * 1000
        if seconds > 0 and images > 0:
            derived["speed/images_per_s"] = images / seconds
    return derived


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _thin(points: list[tuple[float, float]]) -> dict[str, list[float]]:
    blocks = np.array_split(np.array(points, float), min(POINTS, len(points)))
    means = np.stack([block.mean(axis=0) for block in blocks])
    return {"x": [_short(x) for x in means[:, 0]], "y": [_short(y) for y in means[:, 1]]}


def flows(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return each network's gradient flow: layers, kimg, and [moments][layers] mean and max.

    Of a network whose layers change, as when it grows, the last form is shown.
    """
    by_network: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        by_network.setdefault(record["network"], []).append(record)
    found = {}
    for network, own in by_network.items():
        layers = own[-1]["layers"]
        same = thinned([record for record in own if record["layers"] == layers], MOMENTS)
        found[network] = {
            "layers": layers,
            "kimg": [record["kimg"] for record in same],
            **{
                name: [[_short(value or 0.0) for value in record[name]] for record in same]
                for name in ("mean", "max")
            },
        }
    return found


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _film(film: Film, most_bytes: int) -> list[dict[str, str]]:
    """Return frames as data, evenly thinned, in the best quality that fits into `most_bytes`."""
    readable = [(label, path) for label, path in film if read_picture(path) is not None]
    chosen = thinned(readable, FRAMES)
    if not chosen:
        return []
    surveyed = [path for _, path in thinned(chosen, SURVEYED)]
    side, quality = FORMS[-1]
    for form in FORMS:
        mean = sum(len(_webp(_reduced(path, form[0]), form[1])) for path in surveyed)
        if mean / len(surveyed) * len(chosen) <= most_bytes:
            side, quality = form
            break
    return [
        {"label": label, "src": _embedded(_reduced(path, side), quality)} for label, path in chosen
    ]


def _reduced(path: Path, side: int) -> Image.Image:
    picture = read_picture(path)
    assert picture is not None, path
    scale = side / max(picture.size)
    if scale >= 1:
        return picture
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _webp(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=quality, method=4)
    return buffer.getvalue()


def _embedded(picture: Image.Image, quality: int) -> str:
    return "data:image/webp;base64," + base64.b64encode(_webp(picture, quality)).decode()


def _asset(name: str) -> str:
    return (resources.files("pokegan.render") / "assets" / name).read_text(encoding="utf-8")
