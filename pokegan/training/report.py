"""The story of a run for its report, gathered from its folder and its pictures."""

import datetime
import json
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import pokegan
from pokegan.config import RunConfig
from pokegan.data.packed import PackedImages
from pokegan.data.sources import open_data
from pokegan.errors import PokeganError
from pokegan.files import write_text
from pokegan.monitor.gradients import read_gradients
from pokegan.monitor.stats import read_stats
from pokegan.render.pictures import make_grid
from pokegan.render.report import Film, RunStory, render_report
from pokegan.training.build import Parts
from pokegan.training.generator import load
from pokegan.training.hardware import bfloat16_units
from pokegan.training.nearest import neighbours
from pokegan.training.pictures import prepare_options
from pokegan.training.run_folder import RunFolder
from pokegan.training.verdict import verdict

CONTACT = 60


def environment(parts: Parts) -> dict[str, Any]:
    """Return what a run is made on, as JSON values."""
    device = parts.device
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or "CPU",
        "kind": device.type,
        "threads": torch.get_num_threads(),
        "bfloat16": "" if cuda else bfloat16_units() or "",
        "precision": "bf16" if parts.dtype == torch.bfloat16 else "fp32",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "pokegan": pokegan.__version__,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def write_report(
    folders: Sequence[RunFolder],
    path: Path,
    pictures: Sequence[PackedImages | None] | None = None,
    thorough: bool = True,
) -> None:
    """Write the report of one run, or of several side by side, to `path`, atomically.

    Args:
        folders: of the runs.
        path: the HTML file.
        pictures: each run's; by default they are opened by the run's own settings, and where that
            cannot be the report does without.
        thorough: compare samples with all training pictures, by features too, whatever it takes.

    Raises:
        PokeganError: a folder is no run, or its records are damaged.
    """
    pictures = [open_pictures(folder) for folder in folders] if pictures is None else pictures
    names = _names(folders)
    runs = [
        tell(folder, name, packed, thorough)
        for folder, name, packed in zip(folders, names, pictures, strict=True)
    ]
    title = names[0] if len(runs) == 1 else " · ".join(names)
    today = datetime.date.today().isoformat()
    footer = f"Made by pokegan {pokegan.__version__} on {today}. This file holds all that it shows."
    write_text(path, render_report(title, runs, footer))


def open_pictures(folder: RunFolder) -> PackedImages | None:
    """Return the pictures of a run, or None when they are not there any more."""
    data = folder.read_config().data
    try:
        return open_data(data.source, prepare_options(data))
    except PokeganError:
        return None


def tell(
    folder: RunFolder, name: str, packed: PackedImages | None, thorough: bool = True
) -> RunStory:
    """Return what a report tells of the run in `folder`, as `write_report` has it.

    Raises:
        PokeganError: it is no run, or its records are damaged.
    """
    config = folder.read_config()
    records = read_stats(folder.stats)
    made_on = _read_environment(folder)
    near, note = ([], "") if packed is None else neighbours(folder, packed, thorough)
    return RunStory(
        name,
        _story(config, records, packed),
        _facts(config, records, packed, made_on, folder),
        records,
        read_gradients(folder.gradients),
        _film(folder.grids()),
        _film(folder.reconstruction_grids()),
        None if packed is None else _contact(packed),
        "" if packed is None else _contact_note(packed),
        near,
        note,
        config.to_json(),
        verdict(folder, records, config.output.metrics_samples),
    )


def _names(folders: Sequence[RunFolder]) -> list[str]:
    """Return the folders' names, with those of their parents where they are not enough."""
    paths = [folder.path.resolve() for folder in folders]
    names = [path.name for path in paths]
    return [
        name if names.count(name) == 1 else f"{path.parent.name}/{name}"
        for name, path in zip(names, paths, strict=True)
    ]


def _story(
    config: RunConfig, records: Sequence[dict[str, Any]], packed: PackedImages | None
) -> str:
    source = Path(config.data.source).name
    count = f"{len(packed):,} pictures" if packed is not None else "the pictures"
    told = f"{config.recipe} learned from {count} of {source} at {config.data.size} px"
    if not records:
        return f"{told}. It has no record yet."
    last = records[-1]
    return (
        f"{told} for {_duration(float(last.get('seconds') or 0))}: {last['step']:,} steps of "
        f"{config.training.batch}, {float(last.get('kimg') or 0):,.1f} kimg, "
        f"{float(last.get('epoch') or 0):,.1f} epochs."
    )


def _facts(
    config: RunConfig,
    records: Sequence[dict[str, Any]],
    packed: PackedImages | None,
    made_on: dict[str, Any],
    folder: RunFolder,
) -> list[tuple[str, str]]:
    objective = config.objective.loss
    facts = [("recipe", config.recipe), ("loss", objective)]
    if folder.weights.exists():
        network = load(folder.weights).network
        count = sum(parameter.numel() for parameter in network.parameters())
        facts.append(("generator", f"{config.generator.name}, {count:,} parameters"))
    facts.append(("latents", f"{config.latent.size}, {config.latent.distribution}"))
    if packed is not None:
        facts.append(("pictures", _kept(packed)))
    if made_on:
        units = f", {made_on['bfloat16']}" if made_on.get("bfloat16") else ""
        count = made_on["threads"]
        threads = f", {count} thread{'s' * (count != 1)}" if made_on.get("kind") == "cpu" else ""
        begun = str(made_on["date"]).replace("T", " ").replace("+00:00", " UTC")
        facts += [
            ("device", f"{made_on['device']}{threads}{units}"),
            ("precision", str(made_on["precision"])),
            ("versions", f"torch {made_on['torch']}, Python {made_on['python']}"),
            ("begun", begun),
        ]
    if len(records) > 1:
        last = records[-1]
        if last.get("seconds"):
            facts.append(("speed", f"{last['kimg'] * 1000 / last['seconds']:,.1f} images/s"))
    shares = _shares(records)
    if shares:
        facts.append(("time", ", ".join(f"{name} {share:.1%}" for name, share in shares)))
    peaks = [record["memory/peak_bytes"] for record in records if record.get("memory/peak_bytes")]
    if peaks:
        facts.append(("peak memory", f"{max(peaks) / 1e6:,.0f} MB"))
    if folder.best_weights.exists():
        spec = load(folder.best_weights).spec
        facts.append(("best state", f"by {config.output.best_by}, at {spec.kimg:,.1f} kimg"))
    return facts


def _shares(records: Sequence[dict[str, Any]]) -> list[tuple[str, float]]:
    """Return what each part of the loop had of the recorded time, the largest share first."""
    spent: dict[str, float] = {}
    before = 0.0
    for record in records:
        own = {key: value for key, value in record.items() if key.startswith("share/")}
        if own:
            seconds, before = record["seconds"] - before, record["seconds"]
            for key, share in own.items():
                spent[key] = spent.get(key, 0.0) + share * seconds
    whole = sum(spent.values())
    parts = sorted(spent.items(), key=lambda part: -part[1])
    return [(key.removeprefix("share/"), value / whole) for key, value in parts if whole > 0]


def _read_environment(folder: RunFolder) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(folder.environment.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _film(grids: Sequence[Path]) -> Film:
    """Return the grids with what they show: the epoch, and the size in a run that grows."""
    film = []
    for path in grids:
        stage = re.fullmatch(r"stage-\d+-(\d+px)", path.parent.name)
        epoch = f"epoch {int(path.stem.split('-')[1])}"
        film.append((f"{stage[1]}, {epoch}" if stage else epoch, path))
    return film


def _contact(packed: PackedImages) -> NDArray[np.uint8]:
    """Return a grid of pictures, evenly spaced over the set."""
    places = np.linspace(0, len(packed) - 1, min(CONTACT, len(packed))).round().astype(int)
    pictures = np.stack([packed.images[place] for place in places])
    step = max(1, packed.size // 64)
    return make_grid(pictures[:, ::step, ::step], columns=min(12, len(pictures)))


def _kept(packed: PackedImages) -> str:
    return f"{len(packed):,} of {packed.manifest.found:,} files, {packed.size} px"


def _contact_note(packed: PackedImages) -> str:
    reasons = [f"{count:,} {reason}" for reason, count in packed.manifest.counts().items()][1:]
    left_out = f"; left out: {', '.join(reasons)}" if reasons else ""
    return f"{_kept(packed)}{left_out}"
