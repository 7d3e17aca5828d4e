"""Steps outside a run: their inputs, and the whole step of parts that were built for eager ones."""

import dataclasses
from typing import Any

import torch

from pokegan.objectives.phases import StepInput
from pokegan.training.build import Parts
from pokegan.training.step import EagerStep, StepParts
from pokegan.training.whole_step import WholeStep


def inputs_of(parts: Parts, batch: int, number: int) -> StepInput:
    """What the trainer gives to step `number`."""
    real = parts.source.batch(number * batch, batch)
    step = torch.full((), number, dtype=torch.int64, device=parts.device)
    return StepInput(real.images, real.samples, step)


def step_parts(parts: Parts) -> StepParts:
    """What the eager step of `parts` is made of."""
    assert isinstance(parts.step, EagerStep)
    return parts.step.parts


def whole_of(parts: Parts, **changes: Any) -> WholeStep:
    """The whole step of the same parts, `changes` made."""
    return WholeStep(dataclasses.replace(step_parts(parts), **changes))
