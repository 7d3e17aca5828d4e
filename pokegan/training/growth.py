"""The parts of a run stage by stage: one stage for most recipes, several for a growing one."""

import torch
from torch import nn

from pokegan.config import RunConfig
from pokegan.data.packed import PackedImages
from pokegan.networks.progressive import grow, set_alpha
from pokegan.training.build import Parts, build
from pokegan.training.networks import build_networks
from pokegan.training.rates import Rates
from pokegan.training.stages import StagePlan, parse_stages

Networks = dict[str, nn.Module]


class Growth:
    """Builds the parts of each stage, and sets what changes from step to step.

    Args:
        config: the run's settings.
        packed: the pictures, of the last stage's size.

    Attributes:
        count: pictures to train on.
        total: steps of the run.
        plan: when each stage begins; None for a run that does not grow.
    """

    def __init__(self, config: RunConfig, packed: PackedImages) -> None:
        self.config = config
        self.packed = packed
        self.count = len(packed) - config.data.holdout
        self.total = config.length.total_steps(self.count, config.training.batch)
        stages = parse_stages(config.schedule.stages, config.data.size)
        self.plan = StagePlan(stages, self.total) if stages else None
        self.rates = Rates(config, self.total, self.plan)

    def index(self, step: int) -> int:
        """Return which stage step `step` belongs to; the last one after the end."""
        if self.plan is None:
            return 0
        return self.plan.stage_at(min(step, self.total - 1)) if self.total else 0

    def stage(self, index: int) -> tuple[int, int] | None:
        """Return (index, size) of a stage, or None when the run does not grow."""
        return None if self.plan is None else (index, self.plan.stages[index].size)

    def build(self, index: int = 0) -> Parts:
        """Return fresh parts of stage `index`, with the form that they have in the middle of it."""
        if self.plan is None:
            return build(self.config, self.packed)
        networks = self._fresh(index)
        if index > 0:
            self._carry(self._fresh(index - 1), networks)
        return self._parts(index, networks)

    def grow(self, before: Parts, index: int) -> Parts:
        """Return the parts of stage `index` with what those of the stage before have learned."""
        networks = self._fresh(index)
        for name, network in networks.items():
            network.to(before.device)
        self._carry(before.networks, networks)
        parts = self._parts(index, networks)
        with torch.no_grad():
            grow(before.ema.network, parts.ema.network, fade=False, freeze=False)
        return parts

    def prepare(self, parts: Parts, index: int, step: int) -> None:
        """Set the learning rates of step `step`, and how far its new layers have faded in."""
        self.rates.set(parts.optimizers, step)
        if self.plan is not None:
            alpha = self.plan.alpha_at(step, self.config.schedule.fade)
            for network in (*parts.networks.values(), parts.ema.network):
                set_alpha(network, alpha)

    def _fresh(self, index: int) -> Networks:
        assert self.plan is not None
        return build_networks(self.config, self.plan.stages[index].size)

    def _carry(self, old: Networks, new: Networks) -> None:
        schedule = self.config.schedule
        for name in new:
            grow(old[name], new[name], fade=schedule.fade > 0, freeze=schedule.freeze)

    def _parts(self, index: int, networks: Networks) -> Parts:
        assert self.plan is not None
        return build(self.config, self.packed, networks, self.plan.stages[index].size)
