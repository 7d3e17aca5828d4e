"""Learning rates over a run: each side's own, times a stage's, times the schedule's factor."""

from collections.abc import Mapping

import torch

from pokegan.config import RunConfig, ScheduleConfig
from pokegan.training.schedules import Schedule, apply
from pokegan.training.stages import StagePlan

GENERATOR_SIDE = ("generator", "encoder")


class Rates:
    """Sets the learning rate of every optimiser before a step.

    Args:
        config: the run's settings.
        total: its steps as planned; a run resumed for longer has more.
        plan: its stages, whose rates are the discriminator's; None without growth.
    """

    def __init__(self, config: RunConfig, total: int, plan: StagePlan | None) -> None:
        self.generator = config.generator_optimizer.lr
        self.discriminator = config.discriminator_optimizer.lr
        self.batch = config.training.batch
        self.total_kimg = total * self.batch / 1000
        self.plan = plan
        self.schedule = build_schedule(config.schedule)

    def at(self, step: int) -> dict[str, float]:
        """Return the learning rates of step `step`, by side."""
        factor = self.schedule.factor(step * self.batch / 1000, self.total_kimg)
        if self.plan is not None:
            stage = self.plan.lr_at(step)
            ratio = self.generator / self.discriminator if self.discriminator else 1.0
            return {"generator": stage * ratio * factor, "discriminator": stage * factor}
        return {"generator": self.generator * factor, "discriminator": self.discriminator * factor}

    def set(self, optimizers: Mapping[str, torch.optim.Optimizer], step: int) -> None:
        """Give the optimisers, by the name of their network, the rates of step `step`."""
        rates = self.at(step)
        for name, optimizer in optimizers.items():
            side = "generator" if name in GENERATOR_SIDE else "discriminator"
            apply(optimizer, rates[side], 1.0)


def build_schedule(settings: ScheduleConfig) -> Schedule:
    """Return the shape of the learning rates over a run."""
    return Schedule(
        settings.rates,
        settings.final,
        settings.decay,
        settings.decay_kimg,
        settings.warmup_kimg,
    )
