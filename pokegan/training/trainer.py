"""The loop: batches in, steps, and what a run records. Handed its parts; builds none."""

import contextlib
import math
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pokegan.config import RunConfig
from pokegan.errors import CheckpointError, DataError, DivergedError
from pokegan.monitor.accumulate import Accumulator
from pokegan.monitor.gradients import GradientFlow, GradientsWriter
from pokegan.monitor.memory import peak_gpu_memory_bytes, peak_memory_bytes
from pokegan.monitor.progress import Progress
from pokegan.monitor.spans import begin
from pokegan.monitor.stats import StatsWriter
from pokegan.monitor.tensorboard import TensorBoardWriter
from pokegan.monitor.timing import Timing
from pokegan.objectives.autoencoding import reconstruction_l1
from pokegan.objectives.losses import adversarial_loss
from pokegan.objectives.phases import StepInput
from pokegan.ops.conv_choice import choices, keep_to
from pokegan.training import checkpoint
from pokegan.training.distributed import Ranks
from pokegan.training.drawing import draw
from pokegan.training.gallery import MOMENTS_IN_TENSORBOARD, Gallery, Moments
from pokegan.training.generator import Generator, GeneratorSpec
from pokegan.training.growth import Growth
from pokegan.training.interrupt import Interruption
from pokegan.training.quality import Quality
from pokegan.training.run_folder import RunFolder

LEAST_STEPS_BETWEEN_SAMPLES = 10


@dataclass(frozen=True)
class Run:
    """What training leaves.

    Attributes:
        folder: the run's folder.
        steps: steps done in all.
        images: pictures seen in all.
        seconds: time in the training loop, earlier parts of a resumed run included.
        spent: seconds of this process by part of the loop: data, step, logging, sampling,
            checkpoint, metrics, and other; what the end writes included, plots not.
        signal: the signal that ended the run before its length, or None.
        grid: the newest sample grid.
        animation: the samples over time; not there without --plots.
        weights: the averaged generator.
        report: the HTML report; likewise.
    """

    folder: Path
    steps: int
    images: int
    seconds: float
    spent: Mapping[str, float]
    signal: signal.Signals | None
    grid: Path
    animation: Path
    weights: Path
    report: Path


class Trainer:
    """Trains from the newest checkpoint (or from the start) to the config's length.

    Args:
        config: the run's settings.
        growth: gives the parts of each stage: networks, optimisers, step and data.
        folder: where everything is written.
        data_checksum: identity of the pictures; a resumed run must have the same.
        ranks: that train together, of which rank 0 alone writes; None for this process alone.
    """

    def __init__(
        self,
        config: RunConfig,
        growth: Growth,
        folder: RunFolder,
        data_checksum: str,
        ranks: Ranks | None = None,
    ) -> None:
        self.config = config
        self.growth = growth
        self.stage = 0
        self.parts = growth.build()
        self.folder = folder
        self.ranks = ranks or Ranks()
        self.data_checksum = data_checksum
        self.batch = config.training.batch
        self.total = growth.total
        self.done = 0
        self.seconds = 0.0
        self.sampled_at = -1
        self.saved_at = -1
        self.sums = Accumulator()
        self.gradients = GradientFlow()
        self.unobserved: set[str] = set()
        self.board_due = False
        self.histograms = Moments(self.total, MOMENTS_IN_TENSORBOARD)
        self.held_out: dict[str, float] = {}
        self.timing = Timing()
        self.recorded = 0, 0.0  # pictures and seconds at the last record
        self.quality = Quality(config, growth.packed, folder, self.total)

    def resume(self) -> list[str]:
        """Take up the state of the newest checkpoint that can be read; return what was wrong.

        Raises:
            CheckpointError: there is none, or it is of other pictures.
        """
        state = self.ranks.load(self._newest)
        path = Path(state["path"])
        begun_with = RunConfig.from_json(state["config"])
        if not self.config.continues(begun_with):
            raise CheckpointError(
                f"{self.folder.config} was changed since {path.name}: a run goes on with its own "
                "settings; put them back or start a new run"
            )
        if state["data"] != self.data_checksum:
            raise CheckpointError(
                f"{path}: this run was trained on other pictures than --data "
                f"{self.config.data.source} gives now; put them back or start a new run"
            )
        if self.ranks.is_main:
            checkpoint.set_aside_newer(self.folder.checkpoints, path)
        self.growth.set_planned(state.get("planned", self.total))
        self.stage = state.get("stage", 0)
        if self.stage > 0:
            self.parts.source.close()
            self.parts = self.growth.build(self.stage)
        for name, network in self.parts.networks.items():
            network.load_state_dict(state["networks"][name])
            self.parts.optimizers[name].load_state_dict(state["optimizers"][name])
        self.parts.ema.network.load_state_dict(state["ema"])
        if self.parts.adaptive is not None:
            self.parts.adaptive.load_state_dict(state["adaptive"])
        self.sums.load(state["sums"], self.parts.device)
        self.held_out = dict(state.get("held_out", {}))
        self.quality.load(state.get("best"))
        keep_to(state.get("convolutions", {}))
        torch.set_rng_state(state["rng"].cpu())
        self.done, self.seconds, self.sampled_at = state["step"], state["seconds"], state["sampled"]
        return list(state["passed_over"])

    def _newest(self) -> dict[str, Any]:
        """Read the newest checkpoint, with its path and what is wrong with newer ones."""
        path, state, passed_over = checkpoint.newest(self.folder.checkpoints)
        return {**state, "path": str(path), "passed_over": [str(one) for one in passed_over]}

    def train(self) -> Run:
        """Run the loop and write everything; return what is there."""
        start = time.perf_counter() - self.seconds
        self.timing = Timing()
        with Interruption() as interruption, contextlib.ExitStack() as files:
            if self.ranks.is_main:
                self._open(files)
            self.growth.prepare(
                self.parts, self.stage, max(self.done - 1, self.growth.first(self.stage))
            )
            self._sample_if_due()
            self.recorded = self.done * self.batch, self.seconds
            try:
                with self.ranks.watched():
                    stopped = self._loop(start, interruption)
            except DivergedError:
                self._draw()
                raise
            except DataError:  # the state is whole: only its next pictures are missing
                if self.saved_at != self.done:
                    self.save()
                raise
            finally:
                self.parts.source.close()
            spent = self.timing.total()
            if self.ranks.is_main:
                self.progress.close()  # what it tells is the time of training, not of drawing
            self._draw()
        return Run(
            self.folder.path,
            self.done,
            self.done * self.batch,
            self.seconds,
            spent,
            None if stopped is None else signal.Signals(stopped),
            Path(self.ranks.from_main(lambda: str(self.folder.grids()[-1]))),
            self.folder.animation,
            self.folder.weights,
            self.folder.report,
        )

    def _open(self, files: contextlib.ExitStack) -> None:
        """Open everything that is written while the run goes, on rank 0 alone."""
        again = self.done + 1 if self.done else None
        self.stats = files.enter_context(StatsWriter(self.folder.stats, self.done))
        self.layers = files.enter_context(GradientsWriter(self.folder.gradients, self.done or None))
        self.board = files.enter_context(TensorBoardWriter(self.folder.path, again))
        self.progress = files.enter_context(self._progress())
        if self.board.disabled:
            self.progress.write(f"TensorBoard is off: {self.board.disabled}")
        self.gallery = Gallery(self.config, self.folder, self.board, self.total)

    def _loop(self, start: float, interruption: Interruption) -> int | None:
        """Train to the end, or to a signal, which is returned; leave a checkpoint."""
        stopped = None
        while self.done < self.total:
            stopped = self.ranks.enter(self.done, interruption.signal)
            if stopped is not None:
                break
            begin(self.done)
            self._grow_if_due()
            self._step()
            self.seconds = time.perf_counter() - start
            self._sample_if_due()  # before the line that says what it measured
            self._record_if_due()
            self._measure_if_due()
            if self.done % self.config.output.checkpoint_every == 0:
                self.save()
        if stopped is None:
            self._sample()
        if self.saved_at != self.done:
            self.save()
        return stopped

    def save(self) -> None:
        """Write the complete state and the averaged generator's weights, on rank 0.

        Raises:
            DivergedError: a loss is not finite; nothing is written.
        """
        self.saved_at = self.done
        self.sums.merge(self.ranks.mean)
        if self.ranks.is_main:
            self._write()

    def _write(self) -> None:
        self._check_finite()
        with self.timing.part("checkpoint"):
            generator = self._generator()
            networks, optimizers = self.parts.networks, self.parts.optimizers
            adaptive = self.parts.adaptive
            state: dict[str, Any] = {
                "config": self.config.to_json(),
                "data": self.data_checksum,
                "seconds": self.seconds,
                "sampled": self.sampled_at,
                "networks": {name: network.state_dict() for name, network in networks.items()},
                "optimizers": {name: one.state_dict() for name, one in optimizers.items()},
                "ema": self.parts.ema.network.state_dict(),
                "stage": self.stage,
                "planned": self.growth.planned,
                "adaptive": None if adaptive is None else adaptive.state_dict(),
                "generator_spec": generator.spec.to_json(),
                "sums": self.sums.state(),
                "held_out": dict(self.held_out),
                "best": self.quality.state(),
                "convolutions": choices(),
                "rng": torch.get_rng_state(),
            }
            folder, keep = self.folder.checkpoints, self.config.output.keep_checkpoints
            checkpoint.save(folder, self.done, state, keep)
            generator.save(self.folder.weights)

    def _grow_if_due(self) -> None:
        """Go on with the parts of the next stage when this one is over."""
        while self.growth.index(self.done) > self.stage:
            if self.sampled_at >= 0:
                self._sample()
            parts = self.growth.grow(self.parts, self.stage + 1)
            self.parts.source.close()
            self.parts = parts
            self.stage += 1
            self.growth.prepare(self.parts, self.stage, self.done)
            self.sampled_at = -1
            self._sample()

    def _step(self) -> None:
        with self.timing.part("data"):
            first, count = self.ranks.share(self.done * self.batch, self.batch)
            batch = self.parts.source.batch(first, count)
            number = torch.full((), self.done, dtype=torch.int64, device=self.parts.device)
        with self.timing.part("step"):
            inputs = StepInput(batch.images, batch.samples, number)
            self.growth.prepare(self.parts, self.stage, self.done)
            if self.ranks.is_main and self._is_logged(self.done + 1):
                self.unobserved = set(self.parts.networks)
                self.board_due = self.histograms.take(self.done + 1)
            observer = self if self.unobserved else None
            self.sums.add(self.parts.step(inputs, self.done, observer))
            self.done += 1
            self.parts.ema.update(self.done * self.batch, self.batch)
        for line in self.parts.step.news():
            self.progress.write(f"note      {line}")

    def observe(self, name: str, network: torch.nn.Module) -> None:
        """Take a network's gradients, once for every line in the records."""
        if name in self.unobserved:
            self.unobserved.discard(name)
            self.gradients.observe(name, network)
            if self.board_due:
                self.board.network(self.done + 1, name, network)

    def _is_logged(self, step: int) -> bool:
        return step % self.config.output.log_every == 0 or step == self.total

    def _record_if_due(self) -> None:
        if not self._is_logged(self.done):
            if self.ranks.is_main:
                self.progress.update(self.done * self.batch)
            return
        self.sums.merge(self.ranks.mean)
        if not self.ranks.is_main:
            self.sums.clear()
            return
        self._wait()
        with self.timing.part("logging"):
            means = self.sums.read()
            self._check(means)
            images = self.done * self.batch
            facts: dict[str, float] = {
                "kimg": images / 1000,
                "epoch": images / self.parts.source.count,
                "seconds": self.seconds,
                **means,
            }
            rates = self.growth.rates.at(self.done - 1)
            facts |= {f"lr/{side}": rate for side, rate in rates.items()}
            facts |= self.held_out
            self.held_out.clear()
            observed = self.gradients.read()
            facts |= {f"gradient/{name}": one.norm for name, one in observed.items()}
            self.layers.write(self.done, images / 1000, observed)
            shares = self.timing.snapshot_and_reset()
            facts |= {f"share/{name}": value for name, value in shares.items()}
            facts |= self._speed(images)
            facts["memory/peak_bytes"] = peak_memory_bytes()
            gpu = peak_gpu_memory_bytes()
            if gpu is not None:
                facts["memory/peak_gpu_bytes"] = gpu
            self.stats.write(self.done, facts)
            shown = ("loss/", "score/", "penalty/", "augment/", "lr/", "gradient/", "held_out/")
            self.board.scalars(
                self.done, {name: value for name, value in facts.items() if name.startswith(shown)}
            )
            losses = {name: value for name, value in means.items() if name.startswith("loss/")}
            self.progress.update(images, losses)

    def _speed(self, images: int) -> dict[str, float]:
        """Return how fast pictures were seen since the last call, everything included."""
        before, since = self.recorded
        self.recorded = images, self.seconds
        kimg, seconds = (images - before) / 1000, self.seconds - since
        if not (kimg > 0 and seconds > 0):
            return {}
        return {"speed/images_per_s": 1000 * kimg / seconds, "speed/s_per_kimg": seconds / kimg}

    def _epoch(self) -> int:
        return self.done * self.batch // self.parts.source.count

    def _sample_if_due(self) -> None:
        every = self.config.output.sample_every
        last = self.sampled_at * self.batch // self.parts.source.count
        never = self.sampled_at < 0
        waited = self.done - self.sampled_at >= LEAST_STEPS_BETWEEN_SAMPLES
        ended = self.done >= self.total
        if never or ended or (waited and self._epoch() // every > last // every):
            self._sample()

    def _sample(self) -> None:
        """Write the grid of the fixed latents, if this step has none yet, on rank 0."""
        if self.sampled_at == self.done:
            return
        if not self.ranks.is_main:
            self.sampled_at = self.done
            return
        self._check_finite()
        with self.timing.part("sampling"):
            # Between two epochs the picture gets the number of the one that has begun.
            unfinished = -(-self.done * self.batch // self.parts.source.count)
            epoch = unfinished if self.done == self.total else self._epoch()
            self.gallery.show(
                self.done,
                epoch,
                self._generator(),
                self.parts.networks,
                self.parts.held_out,
                self.growth.stage(self.stage),
            )
            self.sampled_at = self.done
            self._measure_held_out()

    def _measure_held_out(self) -> None:
        """Measure how well pictures that were not trained on are reconstructed."""
        networks, pictures = self.parts.networks, self.parts.held_out
        if pictures is not None and "encoder" in networks:
            l1 = reconstruction_l1(networks["encoder"], networks["generator"], pictures)
            self.held_out["held_out/reconstruction"] = float(l1)

    def _measure_if_due(self) -> None:
        """Measure the pictures; the best state so far is kept."""
        if not self.quality.due(self.done):
            return
        self.sums.merge(self.ranks.mean)
        if not self.ranks.is_main:
            return
        self._check_finite()
        with self.timing.part("metrics"):
            found = self.quality.measure(self._generator(), self.parts.device)
            values = found.scalars()
            images = self.done * self.batch
            where = {"kimg": images / 1000, "epoch": images / self.parts.source.count}
            self.stats.write(self.done, where | {"seconds": self.seconds} | values)
            self.board.scalars(self.done, values)
            if self.quality.improves(found, self.done):
                self._write()
                self.quality.keep(self._generator(), self.done)

    def _check_finite(self) -> None:
        self._wait()
        self._check(self.sums.peek())

    def _wait(self) -> None:
        """Wait for the device, as what comes next does: its work counts as the steps'."""
        if self.parts.device.type == "cuda":
            with self.timing.part("step"):
                torch.cuda.synchronize(self.parts.device)

    def _check(self, means: Mapping[str, float]) -> None:
        """Stop a run that has diverged before its state replaces a good one."""
        wrong = [name for name, value in means.items() if not math.isfinite(value)]
        if wrong:
            kept = checkpoint.available(self.folder.checkpoints)
            where = f"the newest good checkpoint is {kept[-1]}" if kept else "no checkpoint yet"
            raise DivergedError(
                f"{wrong[0]} is not finite at step {self.done}: the run has diverged; lower the "
                f"learning rates ({where})"
            )

    def _draw(self) -> None:
        if not (self.ranks.is_main and self.config.output.plots):
            return
        loss = adversarial_loss(self.config.objective.loss)
        draw(self.folder, loss.probability, self.growth.ends())

    def _generator(self) -> Generator:
        config = self.growth.config
        spec = GeneratorSpec(
            config.generator,
            config.latent,
            self.parts.size,
            config.recipe,
            config.training.seed,
            self.done * self.batch / 1000,
            self.growth.alpha,
        )
        return Generator(self.parts.ema.network, spec, str(self.parts.device))

    def _progress(self) -> Progress:
        count = self.parts.source.count
        images = self.total * self.batch
        return Progress(images, self.done * self.batch, count, images / count)
