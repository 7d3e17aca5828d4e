"""From a config to a finished run: opens the pictures, makes or finds the folder, trains."""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pokegan.config import (
    RESUMABLE,
    SAME_BATCHES,
    RunConfig,
    override,
    same_batches,
    settings,
)
from pokegan.data.loaders import PictureSet, open_pictures
from pokegan.data.packed import PackedImages
from pokegan.data.sources import expanded, is_name
from pokegan.errors import ConfigError, DataError
from pokegan.files import write_text
from pokegan.networks.batch_norm import batch_norms
from pokegan.ops import status
from pokegan.training import checkpoint, run_folder
from pokegan.training.checks import check, check_pictures, check_ranks
from pokegan.training.distributed import Ranks
from pokegan.training.growth import Growth
from pokegan.training.hardware import (
    bfloat16_units,
    choose_device,
    choose_precision,
    has_tf32,
    memory_told,
)
from pokegan.training.joining import joined
from pokegan.training.launch import Launch
from pokegan.training.pictures import prepare_options
from pokegan.training.report import environment, write_report
from pokegan.training.run import Run
from pokegan.training.run_folder import RunFolder
from pokegan.training.trainer import Trainer

Say = Callable[[str], None]
Progress = Callable[[int, int], None]

PATIENCE_SECONDS = 20.0  # for a job's earlier processes to end


def train(
    config: RunConfig,
    out: str | Path | None = None,
    say: Say | None = None,
    progress: Progress | None = None,
    go_on: bool = False,
) -> Run:
    """Train a new run and return what it left.

    Under torchrun every rank calls this; rank 0 alone writes and speaks. Restarted by torchrun, it
    goes on in the folder of the first start.

    Args:
        config: all settings; `pokegan.recipes.get(name)` gives one to start from.
        out: the run folder, new or empty; by default `runs/<date-time>-<recipe>[-<note>]`.
        say: gets messages for people; by default nobody does.
        progress: gets (pictures done, pictures in all) while pictures are prepared.
        go_on: `out` may hold this run already, which then goes on from its newest checkpoint.

    Raises:
        PokeganError: a setting, the pictures or the folder cannot be used; nothing is left behind.
    """
    config = config.validated()
    launch = Launch.from_environment()
    place = Path(out) if out is not None else None
    with joined(launch) as ranks, memory_told():
        voice = _voice(ranks, say, progress)
        settled = _settled(config, ranks.count, voice.say)
        job = f"{launch.job}-{ranks.session}" if launch.job else ""
        begun = ranks.from_main(lambda: _begun(place, job, ranks.restarted, go_on))
        if begun:
            folder = RunFolder(Path(begun))
            before = _config_of(folder, ranks)
            if config.training.scaling == "weak":  # perhaps on fewer ranks than at first
                settled = override(settled, {"training.batch": before.training.batch})
            _check(settled, ranks)
            _check_continues(settled, before, f"{begun} holds another run: choose another --out")
            return _go_on(settled, before, folder, ranks, voice, new=True, done=True)
        _check(settled, ranks)
        packed = _open(settled, ranks, voice)
        trainer = _trainer(settled, packed, ranks, lambda: run_folder.create(settled, place, job))
        with _locked(trainer.folder, ranks):
            return _run(trainer, packed, voice, config.training.scaling)


def resume(
    path: str | Path,
    changes: Mapping[str, Any] | None = None,
    say: Say | None = None,
    progress: Progress | None = None,
) -> Run:
    """Continue a run from its newest checkpoint, bit for bit, perhaps for longer.

    On another number of ranks it goes on alike, to rounding.

    Args:
        path: the run folder.
        changes: settings to change, by path, such as {"length.kimg": 200}.
        say: gets messages for people; by default nobody does.
        progress: gets (pictures done, pictures in all) while pictures are prepared.

    Raises:
        PokeganError: there is nothing to resume, or a setting cannot change now.
    """
    with joined(Launch.from_environment()) as ranks, memory_told():
        voice = _voice(ranks, say, progress)
        folder = RunFolder(Path(ranks.from_main(lambda: str(run_folder.find(Path(path)).path))))
        before = _config_of(folder, ranks)
        config = _settled(override(before, changes or {}), ranks.count, voice.say)
        only = f"--resume goes on with the run's own settings; only {_resumable()} change"
        _check_loader(config, before)
        _check_continues(config, before, only)
        _check(config, ranks)
        begun = ranks.from_main(lambda: "yes" if ranks.restarted and config == before else "")
        return _go_on(config, before, folder, ranks, voice, done=bool(begun))


def _check_loader(config: RunConfig, before: RunConfig) -> None:
    """Refuse a loader that gives other batches than the run's own."""
    if not same_batches(before.data.loader, config.data.loader):
        raise ConfigError(
            f"--loader {config.data.loader}: this run decodes its pictures by --loader "
            f"{before.data.loader}; only {', '.join(SAME_BATCHES)} give the same batches and may "
            "take each other's place"
        )


def _begun(out: Path | None, job: str, restarted: bool, go_on: bool) -> str:
    """Return the folder to go on in, or ""; a job at its first start has none of its own yet."""
    if job and not restarted:
        run_folder.forget(job, out)
    found = run_folder.begun(out, job) if restarted else ""
    return found or (run_folder.begun(out, "") if go_on else "")


def _go_on(
    config: RunConfig,
    before: RunConfig,
    folder: RunFolder,
    ranks: Ranks,
    voice: "_Voice",
    new: bool = False,
    done: bool = False,
) -> Run:
    """Continue the run in `folder`.

    Args:
        config: the settings from now on.
        before: those that the folder has.
        folder: of the run.
        ranks: of this job.
        voice: who hears of it.
        new: it may have no checkpoint yet.
        done: it may be at its end already.
    """
    with _locked(folder, ranks):
        some = ranks.from_main(lambda: "yes" if checkpoint.available(folder.checkpoints) else "")
        if ranks.is_main and not (new and not some):
            checkpoint.newest(folder.checkpoints)  # nothing to go on from: say so before preparing
        if config.training.device != before.training.device:
            voice.say(f"note      begun on {before.training.device}: other devices round otherwise")
        if config.training.compile != before.training.compile:
            voice.say(
                f"note      begun with --compile {before.training.compile}: alike to rounding"
            )
        packed = _open(config, ranks, voice)
        trainer = _trainer(config, packed, ranks, lambda: folder)
        for problem in trainer.resume() if some or not new else []:
            voice.say(f"note      passed over: {problem}")
        if trainer.growth.beyond():
            voice.say(f"note      {trainer.growth.beyond()}")
        if trainer.done >= trainer.total and not done:
            raise ConfigError(
                f"{folder.path} is already at step {trainer.done} of {trainer.total}; "
                f"give a longer --steps, --epochs or --kimg"
            )
        if ranks.is_main:
            write_text(folder.config, config.to_json())
        return _run(trainer, packed, voice)


def _trainer(
    config: RunConfig, packed: PictureSet, ranks: Ranks, folder: Callable[[], RunFolder]
) -> Trainer:
    """Return a trainer at step 0; rank 0 asks for `folder` once all ranks have what they need."""
    ranks.connect(torch.device(config.training.device), config.training.rank_timeout)
    torch.manual_seed(config.training.seed)
    growth = Growth(config, packed, ranks)
    parts = growth.build()
    ranks.await_all()
    path = Path(ranks.from_main(lambda: str(folder().path)))
    return Trainer(config, growth, RunFolder(path), packed.checksum, ranks, parts)


def _run(trainer: Trainer, packed: PictureSet, voice: "_Voice", scaling: str = "strong") -> Run:
    for line in _introduction(trainer, packed, scaling):
        voice.say(line)
    if not trainer.ranks.is_main:
        return trainer.train()
    folder = trainer.folder
    write_text(folder.environment, json.dumps(environment(trainer.parts), indent=1) + "\n")
    run = trainer.train()
    if not trainer.config.output.plots:
        return run
    pictures = packed if isinstance(packed, PackedImages) else None
    write_report([folder], folder.report, [pictures], thorough=False)
    return run


def _open(config: RunConfig, ranks: Ranks, voice: "_Voice") -> PictureSet:
    """Open the pictures on every rank; the first one of a host prepares them.

    Raises:
        DataError: they cannot be opened, or are others than on rank 0.
    """
    data = config.data
    options = prepare_options(data)
    packed = ranks.in_turn(
        lambda: open_pictures(data.source, options, data.loader, voice.progress, voice.say)
    )
    if ranks.from_main(lambda: packed.checksum) != packed.checksum:
        raise DataError(
            f"--data {data.source} on {socket.gethostname()} has other pictures than on the host "
            "of rank 0: copy them there, or give a folder that all hosts share"
        )
    check_pictures(config, packed)
    return packed


def _introduction(trainer: Trainer, packed: PictureSet, scaling: str) -> list[str]:
    """Say what runs where, so that nothing is used or left out silently."""
    config, parts = trainer.config, trainer.parts
    device = parts.device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    units = f" ({bfloat16_units()})" if device.type == "cpu" and bfloat16_units() else ""
    tf32 = config.training.precision == "tf32" and has_tf32(device)
    half = parts.dtype == torch.bfloat16
    precision = ("bf16" if half else "tf32") + units if half or tf32 else "fp32"
    counts = [
        f"{name.replace('_', ' ')} {_parameters(network):,} parameters"
        for name, network in parts.networks.items()
    ]
    return [
        f"recipe    {config.recipe}: {', '.join(counts)}",
        f"data      {config.data.source}: {len(packed):,} pictures of {packed.size} px"
        + _left_out(packed),
        f"loader    {parts.loader.name}: {parts.loader.why}",
        f"device    {where}, {torch.get_num_threads()} threads, {precision}, "
        f"operators {status().describe(device.type)}",
        *_ranks_line(trainer, scaling),
        f"step      {parts.step.mode}",
        f"length    {trainer.total:,} steps of {trainer.batch}, "
        f"{trainer.total * trainer.batch / 1000:g} kimg"
        + (f", from step {trainer.done:,}" if trainer.done else ""),
        f"run       {trainer.folder.path}",
    ]


def _ranks_line(trainer: Trainer, scaling: str) -> list[str]:
    """Say how several ranks share the batch; nothing for one."""
    ranks, batch = trainer.ranks, trainer.batch
    if not ranks.several:
        return []
    own = batch // ranks.count
    shares = (
        f"weak scaling: --batch {own} on each, {batch} together"
        if scaling == "weak"
        else f"strong scaling: --batch {batch} divided, {own} on each"
    )
    norms = [norm for one in trainer.parts.networks.values() for norm in batch_norms(one)]
    shared = trainer.config.training.sync_batchnorm == "on"
    over = f"; batch norm over {'all ranks' if shared else 'each rank alone'}" if norms else ""
    return [f"ranks     {ranks.count} on {ranks.hosts}, {ranks.backend}; {shares}{over}"]


def _left_out(packed: PictureSet) -> str:
    """Say how many files were found and why some are not in the set; nothing when all are."""
    if packed.manifest is None:
        return ""
    reasons = [f"{count:,} {reason}" for reason, count in packed.manifest.counts().items()][1:]
    return f" ({packed.manifest.found:,} found; left out: {', '.join(reasons)})" if reasons else ""


def _parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _settled(config: RunConfig, ranks: int, say: Say) -> RunConfig:
    """Replace what depends on this machine, folder and ranks by what it is here, for a resume."""
    device = choose_device(config.training.device)
    precision = config.training.precision
    if precision == "tf32" and not has_tf32(device):
        say(
            "note      --precision tf32 needs a CUDA GPU of compute capability 8.0, or a CPU with "
            "AMX; using fp32"
        )
    if precision == "auto":
        dtype = choose_precision(precision, device)
        precision = "bf16" if dtype == torch.bfloat16 else "fp32"
    weak = config.training.scaling == "weak"
    changes: dict[str, Any] = {
        "training.batch": config.training.batch * (ranks if weak else 1),
        "training.scaling": "strong",  # from now on the batch is that of all ranks
        "training.device": device.type,
        "training.precision": precision,
    }
    path = expanded(config.data.source)
    if not is_name(config.data.source) and path.exists():
        changes["data.source"] = str(path.resolve())
    return override(config, changes)


def _resumable() -> str:
    return ", ".join(entry.flag for entry in settings() if entry.path in RESUMABLE)


def _check(config: RunConfig, ranks: Ranks) -> None:
    """Refuse settings that cannot be used, and others than rank 0 has."""
    check(config)
    check_ranks(config, ranks.count)
    own = RunConfig.from_json(config.to_json())
    first = RunConfig.from_json(ranks.from_main(config.to_json))
    for entry in settings():
        mine, other = entry.value_in(own), entry.value_in(first)
        if mine != other and entry.path != "data.source":  # hosts may keep it at different places
            raise ConfigError(
                f"{entry.flag} {mine} on rank {ranks.rank} and {other} on rank 0: start all ranks "
                "with the same command, on machines of one kind"
            )
    if override(first, {"data.source": own.data.source}) != own:
        raise ConfigError(
            f"the networks on rank {ranks.rank} are others than on rank 0: start all ranks with "
            "the same command"
        )


def _check_continues(config: RunConfig, before: RunConfig, otherwise: str) -> None:
    if not config.continues(before):
        raise ConfigError(otherwise)


def _config_of(folder: RunFolder, ranks: Ranks) -> RunConfig:
    """Return the settings of the run in `folder`, which rank 0 reads."""
    return RunConfig.from_json(ranks.from_main(lambda: folder.read_config().to_json()))


@contextlib.contextmanager
def _locked(folder: RunFolder, ranks: Ranks) -> Iterator[None]:
    """Hold the folder for this job, on rank 0; those that a restart ended may still be in it."""
    patience = PATIENCE_SECONDS if ranks.restarted else 0.0
    with folder.locked(patience) if ranks.is_main else contextlib.nullcontext():
        yield


@dataclass(frozen=True)
class _Voice:
    """Who hears of a run: `say` gets lines, `progress` the count of prepared pictures."""

    say: Say
    progress: Progress | None


def _voice(ranks: Ranks, say: Say | None, progress: Progress | None) -> _Voice:
    """Return who hears of the run: nobody on ranks other than 0."""
    if not ranks.is_main:
        return _Voice(_nobody, None)
    return _Voice(say or _nobody, progress)


def _nobody(message: str) -> None:
    """Take a message and tell no one."""
