"""Steps outside a run: their inputs, and the whole step of parts that were built for eager ones."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from pokegan import recipes
from pokegan.config import RunConfig
from pokegan.data.packed import PackedImages
from pokegan.objectives.phases import StepInput
from pokegan.training.build import Parts
from pokegan.training.growth import Growth
from pokegan.training.step import EagerStep, StepParts
from pokegan.training.whole_step import WholeStep

# Every recipe, and what else a step may be made of: recipe, changes.
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in recipes.RECIPES),
    ("gan-pokemon-dcgan", {"objective.loss": "wgan-gp", "objective.discriminator_steps": 2}),
    ("gan-pokemon-dcgan", {"objective.loss": "wgan", "objective.discriminator_steps": 2}),
    ("gan-pokemon-dcgan", {"objective.loss": "ragan"}),
    ("gan-pokemon-sngan", {"objective.loss": "hinge", "objective.discriminator_steps": 2}),
    ("gan-pokemon-sngan", {"objective.r1": 1.0, "objective.r1_every": 2}),
    ("gan-pokemon-sngan", {"objective.r1": 1.0, "training.precision": "bf16"}),
    ("hpml", {"objective.r1": 1.0, "objective.r1_every": 1}),
    ("gan-pokemon-resnet", {"objective.r1": 1.0, "objective.r1_every": 2}),
    ("gan-pokemon-resnet", {"objective.loss": "r3gan"}),
    ("house-dcgan", {"objective.ada_target": 0.6}),
    ("house-dcgan", {"objective.diff_augment": "colour,translation,cutout"}),
]


def parts_of(config: RunConfig) -> Parts:
    growth = Growth(config, PackedImages.open(config.data.source))
    return growth.build(1 if config.schedule.stages else 0)


def state_of(parts: Parts) -> dict[str, Tensor]:
    """Everything that a checkpoint holds of networks, optimisers and augmentation."""
    state = {}
    for name, network in parts.networks.items():
        state |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
        for index, own in parts.optimizers[name].state_dict()["state"].items():
            state |= {f"{name}.adam.{index}.{key}": value for key, value in own.items()}
    if parts.adaptive is not None:
        state |= {f"ada.{key}": value for key, value in parts.adaptive.state_dict().items()}
    return {key: value.clone() for key, value in state.items()}


def assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key


def tensors(state: Any, name: str = "") -> dict[str, Any]:
    """Return every leaf of nested dictionaries by its dotted name."""
    if not isinstance(state, dict):
        return {name: state}
    leaves: dict[str, Any] = {}
    for key, value in state.items():
        leaves |= tensors(value, f"{name}.{key}" if name else key)
    return leaves


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
