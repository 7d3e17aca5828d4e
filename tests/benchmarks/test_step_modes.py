"""What comparisons of steps stand on: a mode that is what it says, states, and the verdict."""

import measuring
import pytest
import step_builds
import step_modes
import torch
from small_steps import inputs_of

from pokegan.config import RunConfig
from pokegan.data.packed import PackedImages

ROW = {
    "precision": "fp32",
    "losses": 9e-6,
    "control_losses": 1e-6,
    "weights": 9e-5,
    "control_weights": 1e-6,
}


@pytest.mark.parametrize(
    ("changes", "tolerance", "found"),
    [
        ({}, 1.0, "agrees"),
        ({"losses": 2e-5}, 1.0, "DIFFERS"),
        ({"losses": 2e-5, "control_losses": 7e-6}, 1.0, "agrees"),
        ({"weights": 2e-4}, 1.0, "DIFFERS"),
        ({"weights": 2e-4}, 3.0, "agrees"),
        ({"weights": 2e-4, "control_weights": 7e-5}, 1.0, "agrees"),
        ({"weights": float("nan")}, 1.0, "DIFFERS"),
        ({"precision": "fp64"}, 1.0, "agrees"),
        ({"weights": 2e-4, "control_weights": 7e-5, "precision": "fp64"}, 1.0, "DIFFERS"),
        ({"losses": 2e-5, "control_losses": 7e-6, "precision": "fp64"}, 1.0, "DIFFERS"),
        ({"weights": 1.0, "precision": "bf16"}, 1.0, ""),
    ],
)
def test_a_mode_agrees_to_rounding_or_to_what_the_control_does(
    changes: dict[str, float | str], tolerance: float, found: str
) -> None:
    assert step_modes.verdict(ROW | changes, tolerance) == found


def test_losses_near_zero_count_as_the_floor() -> None:
    wanted = {"loss/a": torch.tensor(2.0), "loss/b": torch.tensor(0.0)}
    found = {"loss/a": torch.tensor(2.5), "loss/b": torch.tensor(0.1)}
    assert step_builds.difference(wanted, found, 1.0) == pytest.approx(0.25)
    assert step_builds.difference(wanted, found, 0.1) == pytest.approx(1.0)


def test_a_step_that_fell_back_is_an_error(tiny: RunConfig) -> None:
    packed = PackedImages.open(tiny.data.source)
    eager = step_builds.build_in("eager", tiny, packed)
    step_builds.require("eager", eager)
    with pytest.raises(step_builds.FellBackError, match="steps are eager, not captured: no reason"):
        step_builds.require("captured", eager)
    # Without a GPU nothing is captured: what was asked for is compiled at best.
    with pytest.raises(step_builds.FellBackError, match="not captured"):
        step_builds.require("captured", step_builds.build_in("captured", tiny, packed))
    assert step_builds.build_in("compiled", tiny, packed).step.mode == "compiled"


def test_runs_are_brought_to_one_state_and_a_rounding_apart(tiny: RunConfig) -> None:
    packed = PackedImages.open(tiny.data.source)
    one, other = (step_builds.build_in("eager", tiny, packed) for _ in range(2))
    for number in range(3):
        one.step(inputs_of(one, 4, number), number)
    assert step_builds.apart(one, other) > 1e-3
    step_builds.copy_state(one, other)
    assert step_builds.apart(one, other) == 0
    for parts in (one, other):
        parts.step(inputs_of(parts, 4, 3), 3)
    assert step_builds.apart(one, other) == 0  # the optimisers' state is the same, and not shared
    step_builds.nudge(other)
    assert 1e-8 < step_builds.apart(one, other) < 1e-6


def test_what_a_device_reaches_is_a_rate() -> None:
    flops, rate = measuring.ceilings(torch.device("cpu"), side=64, values=2**16)
    assert flops > 1e6
    assert rate > 1e6


def test_facts_name_machine_operators_and_day() -> None:
    facts = measuring.hardware()
    assert {"processor", "threads", "torch", "python", "operators", "date"} <= set(facts)
    assert ("gpu" in facts) == torch.cuda.is_available()
