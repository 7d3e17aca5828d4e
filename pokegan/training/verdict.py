"""How good a run's pictures are, for its report: what was measured last, by whom, and on what."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pokegan.metrics.memorisation import NEAR
from pokegan.metrics.result import ROWS
from pokegan.render.animation import read_picture
from pokegan.render.neighbours import read_pairs_sheet
from pokegan.render.report import Match, Measure, Neighbour, Quality
from pokegan.training.run_folder import RunFolder

SHOWN = 12


def verdict(
    folder: RunFolder, records: Sequence[Mapping[str, Any]], samples: int
) -> Quality | None:
    """Return what `pokegan evaluate` found of a run, or else what it measured while it trained.

    A damaged evaluation counts as none.

    Args:
        folder: the run's.
        records: of its stats.
        samples: pictures made for each measurement of its own.
    """
    try:
        return _evaluated(folder, json.loads(folder.evaluation.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return _recorded(records, samples)


def _evaluated(folder: RunFolder, tree: Mapping[str, Any]) -> Quality:
    known, found = tree["conditions"], tree["measures"]
    found |= {f"swd_{side}": {"value": value} for side, value in tree["levels"].items()}
    found["score"] = {"value": tree["score"]}
    measures = [
        Measure(
            name, meaning, found[name]["value"], found[name].get("low"), found[name].get("high")
        )
        for name, meaning in _meanings(found)
    ]
    state = {True: "moving average", False: "no moving average", None: "average not known"}
    facts = [
        f"pokegan evaluate: {known['fakes']:,} fakes against {known['reals']:,} reals",
        f"{known['size']} px",
        f"features {known['features']}",
        f"seed {known['seed']}",
        state[known["ema"]],
    ]
    if known["truncation"] is not None:
        facts.append(f"truncation {known['truncation']:g}")
    if known["kimg"] is not None:
        facts.append(f"after {known['kimg']:,.1f} kimg")
    nearest = _nearest(folder, tree["nearest"])
    note = (
        f"Of its {known['fakes']:,} fakes the {len(nearest)} nearest to a training picture. "
        f"Distances as above: below {NEAR:.2f} is a copy."
    )
    return Quality(measures, ", ".join(facts), tree["warnings"], nearest, note)


def _nearest(folder: RunFolder, near: Sequence[Mapping[str, Any]]) -> list[Neighbour]:
    """Return the pictures of the sheet that is beside an evaluation, the nearest first."""
    sheet = read_picture(folder.nearest)
    if sheet is None or not near:
        return []
    pairs = zip(near, read_pairs_sheet(np.asarray(sheet), len(near)), strict=True)
    ordered = sorted(pairs, key=lambda pair: float(pair[0]["distance"]))
    return [
        Neighbour(sample, f"no. {one['sample']}", [match_of(real, one["space"], one["distance"])])
        for one, (sample, real) in ordered[:SHOWN]
    ]


def match_of(real: Any, space: str, distance: float) -> Match:
    """Return a training picture at a distance from a fake, with what that says."""
    mark = "copy" if distance < NEAR else "nearer than reals" if distance < 1 else ""
    return Match(real, space, distance, mark)


def _recorded(records: Sequence[Mapping[str, Any]], samples: int) -> Quality | None:
    own = [record for record in records if "metrics/fid" in record]
    if not own:
        return None
    found = {
        name.removeprefix("metrics/"): value
        for name, value in own[-1].items()
        if name.startswith("metrics/") and value is not None
    }
    measures = [Measure(name, meaning, found[name]) for name, meaning in _meanings(found)]
    warnings = ["collapsed: a low distance says nothing here"] if found.get("collapsed") else []
    note = (
        f"Measured while it trained, on {samples:,} fakes, after {own[-1]['kimg']:,.1f} kimg. "
        "pokegan evaluate gives intervals, and measures more of them."
    )
    return Quality(measures, note, warnings)


def _meanings(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the measures among `found` in the order of the table, each with what it says."""
    levels = [name for name in found if name.startswith("swd_")]
    known = {name: f"{meaning} ({better})" for name, (meaning, better) in ROWS.items()}
    known["score"] = "\u221a(fid \u00d7 swd) over variety (lower)"
    ordered = []
    for name, meaning in known.items():
        ordered.append((name, meaning))
        if name == "swd":
            ordered += [(level, f"... at {level.removeprefix('swd_')} px") for level in levels]
    return [(name, meaning) for name, meaning in ordered if name in found]
