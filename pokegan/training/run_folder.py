"""A run's folder: where each thing of a run lies, and how a new folder is named."""

import contextlib
import datetime
import fcntl
import itertools
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pokegan.config import RunConfig
from pokegan.errors import CheckpointError, ConfigError
from pokegan.files import write_text

RUNS = Path("runs")


@dataclass(frozen=True)
class RunFolder:
    """Paths inside one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The complete settings."""
        return self.path / "config.json"

    @property
    def stats(self) -> Path:
        """One JSON object a log interval."""
        return self.path / "stats.jsonl"

    @property
    def samples(self) -> Path:
        """The folder of sample grids."""
        return self.path / "samples"

    @property
    def animation(self) -> Path:
        """The samples over time."""
        return self.samples / "animation.gif"

    @property
    def plots(self) -> Path:
        """The folder of plots."""
        return self.path / "plots"

    @property
    def checkpoints(self) -> Path:
        """The folder of complete states."""
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        """The averaged generator alone."""
        return self.path / "generator.safetensors"

    @property
    def best(self) -> Path:
        """The complete state that was best by the run's metric; never removed as an old one."""
        return self.checkpoints / "best.pt"

    @property
    def best_weights(self) -> Path:
        """The averaged generator of that state."""
        return self.path / "generator-best.safetensors"

    @property
    def gradients(self) -> Path:
        """One JSON object a network and log interval: gradients layer by layer."""
        return self.path / "gradients.jsonl"

    @property
    def evaluation(self) -> Path:
        """What `pokegan evaluate` found last."""
        return self.path / "evaluation" / "evaluation.json"

    @property
    def nearest(self) -> Path:
        """The sheet of pictures nearest to training pictures that belongs to it."""
        return self.evaluation.with_name("nearest.png")

    @property
    def environment(self) -> Path:
        """What the run was made on: device, versions, date."""
        return self.path / "environment.json"

    @property
    def report(self) -> Path:
        """One HTML file about the run."""
        return self.path / "report.html"

    @property
    def all_samples(self) -> Path:
        """The samples of all stages of growth over time: the animation, by the name that it had."""
        return self.samples / "all_samples.gif"

    def stage(self, index: int, size: int) -> Path:
        """The folder of sample grids of one stage of growth, counted from 0."""
        return self.samples / f"stage-{index + 1}-{size}px"

    def grid(self, epoch: int, stage: tuple[int, int] | None = None) -> Path:
        """The sample grid of an epoch; `stage` is (index, size) of a run that grows."""
        folder = self.samples if stage is None else self.stage(*stage)
        return folder / f"epoch-{epoch:04d}.png"

    def grids(self, folder: Path | None = None) -> list[Path]:
        """Every sample grid, in the order of stages and epochs, or those of one stage's folder."""
        folders = [self.samples, *self.stages()] if folder is None else [folder]
        return [path for one in folders for path in sorted(one.glob("epoch-*.png"), key=_number)]

    def stages(self) -> list[Path]:
        """The folders of the stages so far, in their order; none for a run that does not grow."""
        return sorted(self.samples.glob("stage-*-*px"), key=_number)

    def reconstructions(self, epoch: int) -> Path:
        """Held-out pictures above what the networks make of them."""
        return self.path / "reconstructions" / f"epoch-{epoch:04d}.png"

    def reconstruction_grids(self) -> list[Path]:
        """Every grid of reconstructions, in the order of epochs."""
        return sorted((self.path / "reconstructions").glob("epoch-*.png"), key=_number)

    @contextlib.contextmanager
    def locked(self, patience: float = 0.0) -> Iterator[None]:
        """Hold the folder for one process; the lock goes with the process, and leaves no file.

        What a process that was killed has left of a checkpoint half written is removed.

        Args:
            patience: seconds in which another process may still let go of it.

        Raises:
            CheckpointError: another process trains in it.
        """
        handle = os.open(self.path, os.O_RDONLY)
        try:
            end = time.monotonic() + patience
            while not _take(handle):
                if time.monotonic() >= end:
                    raise CheckpointError(f"{self.path}: another process trains in it now")
                time.sleep(0.2)
            self._tidy()
            yield
        finally:
            os.close(handle)

    def _tidy(self) -> None:
        """Remove what `atomic_path` had no time to: nobody else writes checkpoints now."""
        for name in (".step-*.pt", ".best-*.pt"):
            for path in self.checkpoints.glob(name):
                path.unlink(missing_ok=True)

    def read_config(self) -> RunConfig:
        """Return the run's settings.

        Raises:
            CheckpointError: this is no run folder.
            ConfigError: its config.json is damaged.
        """
        try:
            text = self.config.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise CheckpointError(
                f"{self.path}: not a run folder (no readable config.json in it)"
            ) from None
        try:
            return RunConfig.from_json(text)
        except ConfigError as error:
            raise ConfigError(f"{self.config}: {error}") from None


def create(config: RunConfig, out: Path | None, job: str = "") -> RunFolder:
    """Make a new run folder with its config.json, and point `runs/latest` to it.

    Args:
        config: the run's settings.
        out: the folder; by default `runs/<date-time>-<recipe>[-<note>]`.
        job: of torchrun; `begun` finds the default folder by it.

    Raises:
        ConfigError: `out` holds something already, or cannot be made.
    """
    try:
        folder = RunFolder(_claimed(out) if out is not None else _default(config))
        if job:
            write_text(folder.path / ".job", job)
            if out is None:
                write_text(_note_of(job), folder.path.name)
        write_text(folder.config, config.to_json())
    except OSError as error:
        where = f"--out {out}" if out is not None else str(RUNS)
        raise ConfigError(f"{where}: cannot be written ({error.strerror})") from None
    _point_latest(folder.path)
    return folder


def begun(out: Path | None, job: str) -> str:
    """Return the folder that an earlier start of this job has made, or "".

    Args:
        out: what the user gave, if anything.
        job: of torchrun; "" takes any run that is in `out`.
    """
    try:
        out = out or RUNS / _note_of(job).read_text(encoding="utf-8")
        same = not job or (out / ".job").read_text(encoding="utf-8") == job
    except OSError:
        return ""
    return str(out) if same and RunFolder(out).config.is_file() else ""


def forget(job: str, out: Path | None = None) -> None:
    """Forget the folders of an earlier job that had the same name: the default one, and `out`.

    What is in them stays. One in which a process trains is not forgotten: its job may go on.
    """
    with contextlib.suppress(OSError):  # where it cannot be removed, none can be written either
        _note_of(job).unlink(missing_ok=True)
    if out is not None and begun(out, job):
        with contextlib.suppress(OSError, CheckpointError), RunFolder(out).locked():
            (out / ".job").unlink(missing_ok=True)


def find(path: Path) -> RunFolder:
    """Return the run folder at `path`, following `runs/latest`.

    Raises:
        CheckpointError: there is no such folder.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path}: there is no such run folder")
    return RunFolder(path.resolve() if path.is_symlink() else path)


def _take(handle: int) -> bool:
    """Lock an open folder for this process; return whether nobody else has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _number(path: Path) -> int:
    """Return the first number in a name such as epoch-0012.png or stage-2-32px."""
    return int(path.stem.split("-")[1])


def _note_of(job: str) -> Path:
    """Return the file that holds the name of a job's default folder."""
    return RUNS / f".job-{job}"


def _default(config: RunConfig) -> Path:
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    note = re.sub(r"[^\w.-]+", "-", config.output.note).strip("-.")[:60]
    name = "-".join([now, config.recipe, *([note] if note else [])])
    RUNS.mkdir(exist_ok=True)
    for attempt in itertools.count(1):
        path = RUNS / (name if attempt == 1 else f"{name}-{attempt}")
        with contextlib.suppress(FileExistsError):  # another run took the name first
            path.mkdir()
            return path
    raise AssertionError("the count has no end")


def _claimed(path: Path) -> Path:
    """Make the folder, or take an empty one."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(
            f"--out {path}: exists and is not empty; choose another folder, or continue a "
            f"run with --resume {path}"
        )
    path.mkdir(parents=True, exist_ok=True)
    return path


def _point_latest(path: Path) -> None:
    """Make `latest` beside a run under `runs/` point to it; a run elsewhere has no such link."""
    if path.parent != RUNS:
        return
    latest, fresh = RUNS / "latest", RUNS / f".latest-{os.getpid()}"
    if latest.exists() and not latest.is_symlink():
        return
    try:
        fresh.symlink_to(path.name)
        fresh.replace(latest)
    except OSError:  # a file system without symbolic links: the link is only a convenience
        fresh.unlink(missing_ok=True)
