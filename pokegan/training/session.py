"""From a config to a finished run: opens the pictures, makes or finds the folder, trains."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from pokegan.config import RESUMABLE, RunConfig, override, settings
from pokegan.data.colours import parse_colour
from pokegan.data.options import PrepareOptions
from pokegan.data.packed import PackedImages
from pokegan.data.sources import is_name, open_data
from pokegan.errors import ConfigError
from pokegan.files import write_text
from pokegan.ops import status
from pokegan.training import checkpoint, run_folder
from pokegan.training.checks import check, check_pictures
from pokegan.training.growth import Growth
from pokegan.training.hardware import (
    bfloat16_units,
    choose_device,
    choose_precision,
    has_tf32,
)
from pokegan.training.run_folder import RunFolder
from pokegan.training.trainer import Run, Trainer

Say = Callable[[str], None]
Progress = Callable[[int, int], None]


def train(
    config: RunConfig,
    out: str | Path | None = None,
    say: Say | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train a new run and return what it left.

    Args:
        config: all settings; `pokegan.recipes.get(name)` gives one to start from.
        out: the run folder, new or empty; by default `runs/<date-time>-<recipe>[-<note>]`.
        say: gets messages for people; by default nobody does.
        progress: gets (pictures done, pictures in all) while pictures are prepared.

    Raises:
        PokeganError: a setting, the pictures or the folder cannot be used; nothing is left behind.
    """
    say = say or _nobody
    config = _settled(config.validated(), say)
    _check_process()
    check(config)
    packed = _open(config, say, progress)
    check_pictures(config, packed)
    folder = run_folder.create(config, Path(out) if out is not None else None)
    with folder.locked():
        return _run(config, packed, folder, say, resume=False)


def resume(
    path: str | Path,
    changes: Mapping[str, Any] | None = None,
    say: Say | None = None,
    progress: Progress | None = None,
) -> Run:
    """Continue a run from its newest checkpoint, bit for bit, perhaps for longer.

    Args:
        path: the run folder.
        changes: settings to change, by path, such as {"length.kimg": 200}.
        say: gets messages for people; by default nobody does.
        progress: gets (pictures done, pictures in all) while pictures are prepared.

    Raises:
        PokeganError: there is nothing to resume, or a setting cannot change now.
    """
    say = say or _nobody
    folder = run_folder.find(Path(path))
    before = folder.read_config()
    config = _settled(override(before, changes or {}), say)
    if not config.continues(before):
        raise ConfigError(
            f"--resume goes on with the run's own settings; only {_resumable()} change"
        )
    _check_process()
    check(config)
    with folder.locked():
        checkpoint.newest(folder.checkpoints)  # nothing to go on from: say so before preparing
        if config.training.device != before.training.device:
            say(f"note      begun on {before.training.device}: other devices round differently")
        if config.training.compile != before.training.compile:
            say(f"note      begun with --compile {before.training.compile}: agrees to rounding")
        packed = _open(config, say, progress)
        return _run(config, packed, folder, say, resume=True)


def _run(config: RunConfig, packed: PackedImages, folder: RunFolder, say: Say, resume: bool) -> Run:
    torch.manual_seed(config.training.seed)
    trainer = Trainer(config, Growth(config, packed), folder, packed.manifest.checksum)
    if resume:
        for problem in trainer.resume():
            say(f"note      passed over: {problem}")
        if trainer.done >= trainer.total:
            raise ConfigError(
                f"{folder.path} is already at step {trainer.done} of {trainer.total}; "
                f"give a longer --steps, --epochs or --kimg"
            )
        write_text(folder.config, config.to_json())
    for line in _introduction(config, packed, folder, trainer):
        say(line)
    return trainer.train()


def _open(config: RunConfig, say: Say, progress: Progress | None) -> PackedImages:
    data = config.data
    options = PrepareOptions(
        size=data.size,
        background=parse_colour(data.background),
        fit=data.fit,
        keep_duplicates=data.keep_duplicates,
    )
    return open_data(data.source, options, progress=progress, say=say)


def _introduction(
    config: RunConfig, packed: PackedImages, folder: RunFolder, trainer: Trainer
) -> list[str]:
    """Say what runs where, so that nothing is used or left out silently."""
    parts = trainer.parts
    device = parts.device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    units = f" ({bfloat16_units()})" if device.type == "cpu" and bfloat16_units() else ""
    fp32 = "tf32" if config.training.precision == "tf32" and has_tf32(device) else "fp32"
    precision = "bf16" + units if parts.dtype == torch.bfloat16 else fp32
    counts = [
        f"{name.replace('_', ' ')} {_parameters(network):,} parameters"
        for name, network in parts.networks.items()
    ]
    return [
        f"recipe    {config.recipe}: {', '.join(counts)}",
        f"data      {config.data.source}: {len(packed):,} pictures of {packed.size} px"
        + _left_out(packed),
        f"device    {where}, {torch.get_num_threads()} threads, {precision}, "
        f"operators {status().describe(device.type)}",
        f"step      {parts.step.mode}",
        f"length    {trainer.total:,} steps of {trainer.batch}, "
        f"{trainer.total * trainer.batch / 1000:g} kimg"
        + (f", from step {trainer.done:,}" if trainer.done else ""),
        f"run       {folder.path}",
    ]


def _left_out(packed: PackedImages) -> str:
    """Say how many files were found and why some are not in the set; nothing when all are."""
    reasons = [f"{count:,} {reason}" for reason, count in packed.manifest.counts().items()][1:]
    return f" ({packed.manifest.found:,} found; left out: {', '.join(reasons)})" if reasons else ""


def _parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _settled(config: RunConfig, say: Say) -> RunConfig:
    """Replace what depends on this machine and folder by what it is here, for a later resume."""
    device = choose_device(config.training.device)
    precision = config.training.precision
    if precision == "tf32" and not has_tf32(device):
        say("note      --precision tf32 needs a CUDA GPU of compute capability 8.0; using fp32")
    if precision == "auto":
        dtype = choose_precision(precision, device)
        precision = "bf16" if dtype == torch.bfloat16 else "fp32"
    changes = {"training.device": device.type, "training.precision": precision}
    path = Path(config.data.source).expanduser()
    if not is_name(config.data.source) and path.exists():
        changes["data.source"] = str(path.resolve())
    return override(config, changes)


def _resumable() -> str:
    return ", ".join(entry.flag for entry in settings() if entry.path in RESUMABLE)


def _check_process() -> None:
    """Refuse what would not do what it says."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("training on several ranks is not in this version; start one process")


def _nobody(message: str) -> None:
    """Take a message and tell no one."""
