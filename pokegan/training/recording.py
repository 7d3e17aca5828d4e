"""What a run records while it trains: numbers, gradients, TensorBoard, and the progress line."""

import contextlib
from collections.abc import Iterable, Mapping

from torch import nn

from pokegan.config import RunConfig
from pokegan.monitor.gradients import GradientFlow, GradientsWriter
from pokegan.monitor.memory import peak_gpu_memory_bytes, peak_memory_bytes
from pokegan.monitor.progress import Progress
from pokegan.monitor.stats import StatsWriter
from pokegan.monitor.tensorboard import TensorBoardWriter
from pokegan.monitor.timing import Timing
from pokegan.training.gallery import MOMENTS_IN_TENSORBOARD, Gallery, Moments
from pokegan.training.run_folder import RunFolder
from pokegan.training.step import GradientObserver

CURVES = ("loss/", "score/", "penalty/", "augment/", "lr/", "gradient/", "held_out/")


def is_due(config: RunConfig, step: int, total: int) -> bool:
    """Return whether the numbers of `step` are recorded, counted from 1; the last one's always."""
    return step % config.output.log_every == 0 or step == total


class Recording:
    """Writes what is recorded of a run, on the one rank that writes.

    Args:
        files: closes what is opened here.
        config: the run's settings.
        folder: where it goes.
        timing: of the loop's parts.
        count: pictures to train on.
        total: steps of the run.
        done: steps done before now, whose records stay.

    Attributes:
        gallery: shows the run's pictures.
    """

    def __init__(
        self,
        files: contextlib.ExitStack,
        config: RunConfig,
        folder: RunFolder,
        timing: Timing,
        count: int,
        total: int,
        done: int,
    ) -> None:
        self.config = config
        self.batch = config.training.batch
        self.count = count
        self.total = total
        self.timing = timing
        self._stats = files.enter_context(StatsWriter(folder.stats, done))
        self._layers = files.enter_context(GradientsWriter(folder.gradients, done or None))
        again = done + 1 if done else None
        self._board = files.enter_context(TensorBoardWriter(folder.path, again))
        images = total * self.batch
        progress = Progress(images, done * self.batch, count, images / count)
        self._progress = files.enter_context(progress)
        if self._board.disabled:
            self.say(f"TensorBoard is off: {self._board.disabled}")
        self.gallery = Gallery(config, folder, self._board, total)
        self._gradients = GradientFlow()
        self._step = done
        self._unobserved: set[str] = set()
        self._histograms = Moments(total, MOMENTS_IN_TENSORBOARD)
        self._histograms_due = False
        self._last = done, 0.0  # steps and seconds at the last record

    def start(self, done: int, seconds: float) -> None:
        """Measure speed from here: after `done` steps, at `seconds`."""
        self._last = done, seconds

    def end(self) -> None:
        """Close the progress line: what it tells is the time of training, not of drawing."""
        self._progress.close()

    def say(self, line: str) -> None:
        """Show a line above the progress line."""
        self._progress.write(line)

    def update(self, done: int) -> None:
        """Show how far the run is."""
        self._progress.update(done * self.batch)

    def observer(self, step: int, networks: Iterable[str]) -> GradientObserver | None:
        """Return who looks at the gradients of `step`: at each network's once for every record."""
        self._step = step
        if is_due(self.config, step, self.total):
            self._unobserved = set(networks)
            self._histograms_due = self._histograms.take(step)
        return self if self._unobserved else None

    def observe(self, name: str, network: nn.Module) -> None:
        """Take the gradients of the network called `name`."""
        if name in self._unobserved:
            self._unobserved.discard(name)
            self._gradients.observe(name, network)
            if self._histograms_due:
                self._board.network(self._step, name, network)

    def record(self, done: int, seconds: float, values: Mapping[str, float]) -> None:
        """Write the record of a log interval: `values`, gradients, time, speed and memory."""
        facts = {**self._place(done, seconds), **values}
        observed = self._gradients.read()
        facts |= {f"gradient/{name}": one.norm for name, one in observed.items()}
        self._layers.write(done, facts["kimg"], observed)
        shares = self.timing.snapshot_and_reset()
        facts |= {f"share/{name}": value for name, value in shares.items()}
        facts |= self._speed(done, seconds)
        facts["memory/peak_bytes"] = peak_memory_bytes()
        gpu = peak_gpu_memory_bytes()
        if gpu is not None:
            facts["memory/peak_gpu_bytes"] = gpu
        self._stats.write(done, facts)
        curves = {name: value for name, value in facts.items() if name.startswith(CURVES)}
        self._board.scalars(done, curves)
        losses = {name: value for name, value in facts.items() if name.startswith("loss/")}
        self._progress.update(done * self.batch, losses)

    def measured(self, done: int, seconds: float, values: Mapping[str, float]) -> None:
        """Write how good the pictures are, a record of its own."""
        self._stats.write(done, {**self._place(done, seconds), **values})
        self._board.scalars(done, values)

    def _place(self, done: int, seconds: float) -> dict[str, float]:
        images = done * self.batch
        return {"kimg": images / 1000, "epoch": images / self.count, "seconds": seconds}

    def _speed(self, done: int, seconds: float) -> dict[str, float]:
        """Return how fast pictures were seen since the last call, everything included."""
        before, since = self._last
        self._last = done, seconds
        kimg, passed = (done - before) * self.batch / 1000, seconds - since
        if not (kimg > 0 and passed > 0):
            return {}
        return {"speed/images_per_s": 1000 * kimg / passed, "speed/s_per_kimg": passed / kimg}
