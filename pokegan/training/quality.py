"""How good a run's pictures are while it trains, and which of its states was the best."""

import dataclasses
import shutil
from dataclasses import dataclass
from typing import Any

import torch

from pokegan.config import RunConfig
from pokegan.data.loaders import PictureSet
from pokegan.data.packed import PackedImages
from pokegan.files import atomic_path
from pokegan.metrics.digest import Reals
from pokegan.metrics.evaluation import evaluate
from pokegan.metrics.features import Features, build_features
from pokegan.metrics.result import Conditions, Evaluation
from pokegan.monitor.timing import Timing
from pokegan.training.evaluation import generated, reals_of
from pokegan.training.generator import Generator
from pokegan.training.run_folder import RunFolder

SEED = 0  # of the latents, the same at every measurement


@dataclass(frozen=True)
class Best:
    """The best state so far.

    Attributes:
        by: the measure that it is best by.
        value: of that measure; lower is better.
        collapsed: whether its pictures had collapsed: any state that has not is better.
        step: when.
        size: of the pictures then, px; only the last stage of a growing run counts in the end.
    """

    by: str
    value: float
    collapsed: bool
    step: int
    size: int

    def is_worse_than(self, other: "Best") -> bool:
        """Return whether `other` takes this one's place."""
        if self.by != other.by or self.size != other.size:
            return True
        return (other.collapsed, other.value) < (self.collapsed, self.value)


class Quality:
    """Measures the averaged generator every so many kimg, and at the end; nothing when turned off.

    No number of the training is touched: latents are those of a fixed seed, and what is drawn in
    measuring comes from generators of its own.

    Args:
        config: the run's settings.
        packed: the pictures.
        folder: where the best state is kept.
        total: steps of the run.
    """

    def __init__(
        self, config: RunConfig, packed: PictureSet, folder: RunFolder, total: int
    ) -> None:
        self.config = config
        self._pictures = packed
        self.folder = folder
        self.total = total
        self.best: Best | None = None
        self._features: Features | None = None
        self._reals: dict[int, Reals] = {}

    @property
    def packed(self) -> PackedImages:
        """The pictures; `check` refuses to measure against streamed ones."""
        assert isinstance(self._pictures, PackedImages)
        return self._pictures

    def due(self, done: int) -> bool:
        """Return whether the state after `done` steps is to be measured."""
        every = self.config.output.metrics_every * 1000
        if every <= 0:
            return False
        batch = self.config.training.batch
        return done == self.total or done * batch // every > (done - 1) * batch // every

    def measure(self, generator: Generator, device: torch.device) -> Evaluation:
        """Return the measures of a generator."""
        timing, size, output = Timing(), generator.spec.size, self.config.output
        if self._features is None:
            self._features = build_features(output.metrics_features, device)
        if size not in self._reals:
            self._reals = {size: reals_of(self.packed, size, self._features, timing)}
        known = Conditions(
            name=str(self.folder.path),
            reals=len(self.packed),
            fakes=output.metrics_samples,
            size=size,
            features=self._features.name,
            identity=self._features.identity,
            dimensions=0,
            seed=SEED,
            ema=self.config.training.ema_kimg > 0,
            kimg=generator.spec.kimg,
            data=self.packed.manifest.source,
            checksum=self.packed.manifest.checksum,
        )
        chunks = generated(generator, output.metrics_samples, SEED, None, timing)
        return evaluate(self._reals[size], chunks, self._features, known, timing).evaluation

    def improves(self, found: Evaluation, step: int) -> bool:
        """Return whether this is the best state so far; if so, it is taken for it."""
        by = self.config.output.best_by
        value = abs(found.value(by)) if by == "kid" else found.scalars()[f"metrics/{by}"]
        new = Best(by, value, found.collapsed, step, found.conditions.size)
        better = self.best is None or self.best.is_worse_than(new)
        if better:
            self.best = new
        return better

    def keep(self, generator: Generator, step: int) -> None:
        """Keep the checkpoint of `step` and its generator as the best; old ones go, these stay."""
        newest = self.folder.checkpoints / f"step-{step:08d}.pt"
        with atomic_path(self.folder.best) as temporary:
            shutil.copyfile(newest, temporary)
        generator.save(self.folder.best_weights)

    def state(self) -> dict[str, Any] | None:
        """Return what a checkpoint keeps."""
        return None if self.best is None else dataclasses.asdict(self.best)

    def load(self, state: dict[str, Any] | None) -> None:
        """Take up what `state` returned."""
        self.best = None if state is None else Best(**state)
