"""The parts of a run stage by stage: one stage for most recipes, several for a growing one."""

import typing
from collections.abc import Mapping

from torch import nn

from pokegan.config import RunConfig
from pokegan.data.loaders import PictureSet
from pokegan.networks.progressive import Growable, grow
from pokegan.training.build import Parts, build
from pokegan.training.distributed import Ranks
from pokegan.training.generator import Generator, GeneratorSpec
from pokegan.training.networks import build_networks, grown_options
from pokegan.training.rates import Rates
from pokegan.training.stages import StagePlan, parse_stages


class Growth:
    """Builds the parts of each stage, and sets what changes from step to step.

    Args:
        config: the run's settings.
        packed: the pictures, of the last stage's size.
        ranks: that train together; None for this process alone.

    Attributes:
        count: pictures to train on.
        total: steps of the run.
        planned: steps that the stages and the learning rates were planned over when the run began;
            one resumed for longer has more.
        plan: when each stage begins; None for a run that does not grow.
        alpha: how far the newest layers have faded in.
    """

    def __init__(self, config: RunConfig, packed: PictureSet, ranks: Ranks | None = None) -> None:
        self.packed = packed
        self.ranks = ranks or Ranks()
        self.count = len(packed) - config.data.holdout
        self.total = config.length.total_steps(self.count, config.training.batch)
        self.stages = parse_stages(config.schedule.stages, config.data.size)
        self.config = grown_options(config) if self.stages else config
        self.alpha = 1.0
        self.set_planned(self.total)

    def set_planned(self, planned: int) -> None:
        """Plan stages and learning rates over `planned` steps; beyond, both stay at their last."""
        self.planned = planned
        self.plan = StagePlan(self.stages, planned) if self.stages else None
        self.rates = Rates(self.config, planned, self.plan)

    def beyond(self) -> str:
        """Say what the learning rates are in steps that were not planned; "" if nothing special."""
        schedule = self.config.schedule
        if self.total <= self.planned or schedule.rates != "cosine":
            return ""
        return (
            f"--lr-schedule cosine was planned over {self.planned:,} steps; from there on the "
            + (
                f"learning rates stay at {schedule.final:g} of their base"
                if schedule.final
                else "learning rates are 0 and nothing is learned: begin a new run for longer"
            )
        )

    def index(self, step: int) -> int:
        """Return which stage step `step` belongs to; the last one after the end."""
        return 0 if self.plan is None else self.plan.stage_at(step)

    def stage(self, index: int) -> tuple[int, int] | None:
        """Return (index, size) of a stage, or None when the run does not grow."""
        return None if self.plan is None else (index, self.stages[index].size)

    def build(self, index: int = 0) -> Parts:
        """Return fresh parts of stage `index`, of the form that they have within it."""
        if self.plan is None:
            return build(self.config, self.packed, ranks=self.ranks)
        networks = self._fresh(index)
        if index > 0:
            self._carry(self._fresh(index - 1), networks)
        return self._parts(index, networks)

    def grow(self, before: Parts, index: int) -> Parts:
        """Return the parts of stage `index` with what those of the stage before have learned."""
        networks = self._fresh(index)
        for network in networks.values():
            network.to(before.device)
        self._carry(before.networks, networks)
        parts = self._parts(index, networks)
        grow(_growable(before.ema.network), _growable(parts.ema.network), self._fades)
        if before.adaptive is not None and parts.adaptive is not None:
            parts.adaptive.load_state_dict(before.adaptive.state_dict())
        return parts

    def prepare(self, parts: Parts, index: int, step: int) -> None:
        """Set the learning rates of step `step`, and how far its new layers have faded in."""
        self.rates.set(parts.optimizers, step)
        if self.plan is not None:
            self.alpha = self.plan.alpha_at(step, self.config.schedule.fade) if index else 1.0
            for network in (*parts.networks.values(), parts.ema.network):
                _growable(network).set_alpha(self.alpha)

    def generator(self, parts: Parts, images: int) -> Generator:
        """Return the averaged generator as it is after `images` pictures."""
        config = self.config
        spec = GeneratorSpec(
            config.generator,
            config.latent,
            parts.size,
            config.recipe,
            config.training.seed,
            images / 1000,
            self.alpha,
        )
        return Generator(parts.ema.network, spec, str(parts.device))

    def ends(self) -> list[int]:
        """Return the steps done at the end of each stage; none for a run that does not grow."""
        starts = [self.first(index) for index in range(1, len(self.stages))]
        return [*starts, self.total] if self.stages else []

    def first(self, index: int) -> int:
        """Return the first step of a stage."""
        return 0 if self.plan is None else self.plan.first(index)

    @property
    def _fades(self) -> bool:
        return self.config.schedule.fade > 0

    def _fresh(self, index: int) -> dict[str, nn.Module]:
        return build_networks(self.config, self.stages[index].size)

    def _carry(self, old: Mapping[str, nn.Module], new: Mapping[str, nn.Module]) -> None:
        for name, network in new.items():
            grow(_growable(old[name]), _growable(network), self._fades, self.config.schedule.freeze)

    def _parts(self, index: int, networks: dict[str, nn.Module]) -> Parts:
        return build(self.config, self.packed, networks, self.stages[index].size, self.ranks)


def _growable(network: nn.Module) -> Growable:
    return typing.cast(Growable, network)
