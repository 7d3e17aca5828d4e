"""The loop: steps, and between them what is due: growth, pictures, records, checkpoints.

Handed its parts; builds none.
"""

import contextlib
import math
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pokegan.config import RunConfig
from pokegan.errors import CheckpointError, DataError, DivergedError
from pokegan.monitor.accumulate import Accumulator
from pokegan.monitor.spans import begin
from pokegan.monitor.timing import Timing
from pokegan.objectives.autoencoding import reconstruction_l1
from pokegan.objectives.losses import adversarial_loss
from pokegan.objectives.phases import StepInput
from pokegan.ops.conv_choice import choices, keep_to
from pokegan.training import checkpoint
from pokegan.training.build import Parts
from pokegan.training.distributed import Ranks
from pokegan.training.generator import Generator
from pokegan.training.growth import Growth
from pokegan.training.interrupt import Interruption
from pokegan.training.quality import Quality
from pokegan.training.recording import Recording, is_due
from pokegan.training.run import Run
from pokegan.training.run_folder import RunFolder

LEAST_STEPS_BETWEEN_SAMPLES = 10
GPU_SAMPLES_SHARE = 50  # on a GPU also a 50th of the steps so far: a grid costs many steps there


class Trainer:
    """Trains from the newest checkpoint (or from the start) to the config's length.

    Args:
        config: the run's settings.
        growth: gives the parts of each stage: networks, optimisers, step and data.
        folder: where everything is written.
        data_checksum: identity of the pictures; a resumed run must have the same.
        ranks: that train together, of which rank 0 alone writes; None for this process alone.
        parts: of the first stage; built here where they are not given.

    Attributes:
        done: steps done in all.
        seconds: time in the loop, earlier parts of a resumed run included.
        stage: of growth, counted from 0.
        parts: of this stage.
        sampled_at: steps done when pictures were last sampled in this stage; -1 before the first.
        saved_at: steps done at the last checkpoint of this process; -1 before the first.
        recording: writes what is recorded, while `train` runs on rank 0; None on all other ranks.
    """

    def __init__(
        self,
        config: RunConfig,
        growth: Growth,
        folder: RunFolder,
        data_checksum: str,
        ranks: Ranks | None = None,
        parts: Parts | None = None,
    ) -> None:
        self.config = config
        self.growth = growth
        self.stage = 0
        self.parts = parts or growth.build()
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
        self.held_out: dict[str, float] = {}
        self.timing = Timing()
        self.recording: Recording | None = None
        self.quality = Quality(config, growth.packed, folder, self.total)

    def train(self) -> Run:
        """Run the loop and write everything; return what is there."""
        start = time.perf_counter() - self.seconds
        self.timing = Timing()
        by_torchrun = bool(self.ranks.launch.job)
        with Interruption(by_torchrun) as interruption, contextlib.ExitStack() as files:
            if self.ranks.is_main:
                count = self.parts.source.count
                self.recording = Recording(
                    files, self.config, self.folder, self.timing, count, self.total, self.done
                )
            self.growth.prepare(
                self.parts, self.stage, max(self.done - 1, self.growth.first(self.stage))
            )
            self._sample_if_due()
            if self.recording is not None:
                self.recording.start(self.done, self.seconds)
            try:
                with self.ranks.watched():
                    stopped = self._loop(start, interruption)
            except DivergedError as error:
                self.ranks.fails(error)  # the others wait in an exchange; drawing takes a while
                self._draw()
                raise
            except DataError:  # the state is whole: only its next pictures are missing
                # Other ranks may not be here, so nothing is exchanged: the means are this rank's.
                if self.saved_at != self.done and self.ranks.is_main:
                    self._write()
                raise
            finally:
                self.parts.close()
            spent = self.timing.total()
            if self.recording is not None:
                self.recording.end()
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

    def _grow_if_due(self) -> None:
        """Go on with the parts of the next stage when this one is over."""
        while self.growth.index(self.done) > self.stage:
            if self.sampled_at >= 0:
                self._sample()
            parts = self.growth.grow(self.parts, self.stage + 1)
            self.parts.close()
            self.parts = parts
            self.stage += 1
            self.growth.prepare(self.parts, self.stage, self.done)
            self.sampled_at = -1
            self._sample()

    def _step(self) -> None:
        """Train on the next batch; what the step records stays on the device."""
        with self.timing.part("data"):
            first, count = self.ranks.share(self.done * self.batch, self.batch)
            batch = self.parts.source.batch(first, count)
            number = torch.full((), self.done, dtype=torch.int64, device=self.parts.device)
        with self.timing.part("step"):
            inputs = StepInput(batch.images, batch.samples, number)
            self.growth.prepare(self.parts, self.stage, self.done)
            observer = None
            if self.recording is not None:
                observer = self.recording.observer(self.done + 1, self.parts.networks)
            self.sums.add(self.parts.step(inputs, self.done, observer))
            self.done += 1
            self.parts.ema.update(self.done * self.batch, self.batch)
        for line in self.parts.step.news():
            if self.recording is not None:
                self.recording.say(f"note      {line}")
            else:  # this rank alone may have fallen back: it keeps the others waiting
                print(f"note      rank {self.ranks.rank}: {line}", file=sys.stderr, flush=True)

    def _record_if_due(self) -> None:
        """Read what was summed up since the last record, and write the next one."""
        if not is_due(self.config, self.done, self.total):
            if self.recording is not None:
                self.recording.update(self.done)
            return
        self.sums.merge(self.ranks.mean)
        if self.recording is None:
            self.sums.clear()
            return
        self._wait()
        with self.timing.part("logging"):
            means = self.sums.read()
            self._check(means)
            rates = self.growth.rates.at(self.done - 1)
            learning = {f"lr/{side}": rate for side, rate in rates.items()}
            self.recording.record(self.done, self.seconds, means | learning | self.held_out)
            self.held_out.clear()

    def _epoch(self) -> int:
        return self.done * self.batch // self.parts.source.count

    def _sample_if_due(self) -> None:
        """Sample at the start and the end, and every so many epochs, but not at every few steps."""
        every = self.config.output.sample_every
        last = self.sampled_at * self.batch // self.parts.source.count
        never = self.sampled_at < 0
        waited = self.done - self.sampled_at >= steps_between_samples(self.done, self.parts.device)
        ended = self.done >= self.total
        if never or ended or (waited and self._epoch() // every > last // every):
            self._sample()

    def _sample(self) -> None:
        """Write the grid of the fixed latents, if this step has none yet, on rank 0."""
        if self.sampled_at == self.done:
            return
        if self.recording is None:
            self.sampled_at = self.done
            return
        self._check_finite()
        with self.timing.part("sampling"):
            # Between two epochs the picture gets the number of the one that has begun.
            unfinished = -(-self.done * self.batch // self.parts.source.count)
            epoch = unfinished if self.done == self.total else self._epoch()
            self.recording.gallery.show(
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
        self.ranks.on_main(self._measure)  # it may take longer than `--rank-timeout`

    def _measure(self) -> None:
        assert self.recording is not None
        self._check_finite()
        with self.timing.part("metrics"):
            found = self.quality.measure(self._generator(), self.parts.device)
            self.recording.measured(self.done, self.seconds, found.scalars())
            if self.quality.improves(found, self.done):
                self._write()
                self.quality.keep(self._generator(), self.done)

    def save(self) -> None:
        """Write the complete state and the averaged generator's weights, on rank 0.

        Raises:
            DivergedError: a loss or a weight is not finite; nothing is written.
        """
        self.saved_at = self.done
        self.sums.merge(self.ranks.mean)
        if self.ranks.is_main:
            self._write()

    def _write(self) -> None:
        self._check_finite()
        with self.timing.part("checkpoint"):
            generator = self._generator()
            state: dict[str, Any] = {
                "config": self.config.to_json(),
                "data": self.data_checksum,
                "seconds": self.seconds,
                "sampled": self.sampled_at,
                **self.parts.state(),
                "stage": self.stage,
                "planned": self.growth.planned,
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
            self.parts.close()
            self.parts = self.growth.build(self.stage)
        self.parts.load(state)
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

    def _check_finite(self) -> None:
        """Before anything is written: the last update may have spoiled what no loss has seen."""
        self._wait()
        self._check(self.sums.peek())
        self._check(self.parts.norms())

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
        from pokegan.training.drawing import draw  # loads matplotlib, which no step needs

        loss = adversarial_loss(self.config.objective.loss)
        draw(self.folder, loss.probability, self.growth.ends())

    def _generator(self) -> Generator:
        return self.growth.generator(self.parts, self.done * self.batch)


def steps_between_samples(done: int, device: torch.device) -> int:
    """Return how many steps pass at least between two grids of samples.

    It depends on the step alone, not on time, so that a resumed run writes the same grids.

    Args:
        done: steps done.
        device: that the run trains on.
    """
    if device.type == "cuda":
        return max(LEAST_STEPS_BETWEEN_SAMPLES, done // GPU_SAMPLES_SHARE)
    return LEAST_STEPS_BETWEEN_SAMPLES
