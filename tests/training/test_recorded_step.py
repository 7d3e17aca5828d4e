"""A recorded step: the same bits as the eager one, without its Python; or eager, and it says so."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_steps import (
    CASES,
    assert_same_bits,
    inputs_of,
    parts_of,
    state_of,
    step_parts,
    tensors,
    whole_of,
)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pokegan.config import RunConfig
from pokegan.objectives.phases import Phase, PhaseResult, StepInput
from pokegan.training import checkpoint
from pokegan.training.build import Parts
from pokegan.training.modes import build_step
from pokegan.training.recorded_step import WARM_UP, RecordedStep
from pokegan.training.session import train
from pokegan.training.step import StepParts

Narrow = Callable[..., RunConfig]


def counting(parts: Parts) -> tuple[StepParts, list[str]]:
    """What the step of `parts` is made of, and the names of phases as their Python runs."""
    ran: list[str] = []

    def noted(phase: Phase) -> Phase:
        def loss(inputs: StepInput) -> PhaseResult:
            ran.append(phase.name)
            return phase.loss(inputs)

        return dataclasses.replace(phase, loss=loss)

    own = step_parts(parts)
    return dataclasses.replace(own, phases=[noted(phase) for phase in own.phases]), ran


def set_rate(parts: Parts, rate: float) -> None:
    for optimizer in parts.optimizers.values():
        optimizer.param_groups[0]["lr"] = rate


@pytest.mark.parametrize(("recipe", "changes"), CASES)
def test_equals_the_eager_step(narrow: Narrow, recipe: str, changes: dict[str, Any]) -> None:
    """Fresh random numbers, falling rates, lazy phases, and statistics, in repeated steps."""
    config = narrow(recipe, changes)
    eager, recorded = parts_of(config), parts_of(config)
    own, ran = counting(recorded)
    step = build_step("auto", own)
    every = max(phase.every for phase in own.phases)  # steps of each kind are due by then
    count = every * (WARM_UP + 2)
    for number in range(count):
        if number == count - every:
            ran.clear()
        for parts in (eager, recorded):
            set_rate(parts, 1e-3 / (number + 1))
        wanted = eager.step(inputs_of(eager, 4, number), number)
        found = step(inputs_of(recorded, 4, number), number)
        assert_same_bits(dict(wanted), dict(found))
    assert_same_bits(state_of(eager), state_of(recorded))
    assert ran == []  # the last steps ran none of its Python
    assert step.mode == "recorded"
    assert step.news() == []


def test_a_loaded_state_is_taken_up(narrow: Narrow) -> None:
    parts = parts_of(narrow("gan-pokemon-sngan"))
    own, ran = counting(parts)
    step = build_step("auto", own)
    for number in range(WARM_UP + 2):
        step(inputs_of(parts, 4, number), number)
    saved = copy.deepcopy(parts.state())
    outcomes = []
    for _ in range(2):
        ran.clear()
        for number in range(8, 8 + WARM_UP + 3):
            step(inputs_of(parts, 4, number), number)
        outcomes.append((state_of(parts), len(ran)))
        parts.load(copy.deepcopy(saved))
    assert_same_bits(outcomes[0][0], outcomes[1][0])
    assert outcomes[0][1] == 0
    assert outcomes[1][1] == 2 * (WARM_UP + 1)  # recorded anew: two phases


def test_another_batch_is_recorded_for_itself(narrow: Narrow) -> None:
    config = narrow("hpml")
    eager, recorded = parts_of(config), parts_of(config)
    step = RecordedStep(whole_of(recorded))
    for number in range(12):
        batch = 4 if number % 2 else 6
        wanted = eager.step(inputs_of(eager, batch, number), number)
        found = step(inputs_of(recorded, batch, number), number)
        assert_same_bits(dict(wanted), dict(found))
    assert_same_bits(state_of(eager), state_of(recorded))


class Gradients:
    """A copy of all gradients that it is shown."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def observe(self, name: str, network: nn.Module) -> None:
        named = network.named_parameters()
        own = {f"{name}.{key}": p.grad.clone() for key, p in named if p.grad is not None}
        self.seen.append(own)


def test_an_observer_sees_the_eager_gradients(narrow: Narrow) -> None:
    config = narrow("gan-pokemon-sngan", {"objective.r1": 1.0, "objective.r1_every": 2})
    eager, recorded = parts_of(config), parts_of(config)
    step = RecordedStep(whole_of(recorded))
    seen = Gradients(), Gradients()
    for number in range(10):
        eager.step(inputs_of(eager, 4, number), number, seen[0])
        step(inputs_of(recorded, 4, number), number, seen[1])
    assert len(seen[0].seen) == len(seen[1].seen) == 25
    for one, other in zip(seen[0].seen, seen[1].seen, strict=True):
        assert_same_bits(one, other)
    assert all(p.grad is None for p in recorded.networks["discriminator"].parameters())


def test_what_cannot_be_recorded_goes_on_eager(narrow: Narrow) -> None:
    """A loss that waits for a number: no step is lost, and none is made twice."""
    config = narrow("gan-pokemon-sngan")
    eager, parts = parts_of(config), parts_of(config)
    own = step_parts(parts)

    def impatient(phase: Phase) -> Phase:
        def loss(inputs: StepInput) -> PhaseResult:
            result = phase.loss(inputs)
            return PhaseResult(result.loss * (float(result.loss.detach()) > -1e9), result.recorded)

        return dataclasses.replace(phase, loss=loss)

    step = build_step("auto", dataclasses.replace(own, phases=list(map(impatient, own.phases))))
    assert step.mode == "recorded"
    for number in range(WARM_UP + 4):
        wanted = eager.step(inputs_of(eager, 4, number), number)
        found = step(inputs_of(parts, 4, number), number)
        assert_same_bits(dict(wanted), dict(found))
    (line,) = step.news()
    assert line.startswith("record: aten._local_scalar_dense.default gives a float to the host; ")
    assert line.endswith("steps go on eager")
    assert step.mode == "eager"
    assert_same_bits(state_of(eager), state_of(parts))


@pytest.mark.parametrize("recipe", ["progan", "hpml"])
def test_a_run_has_the_same_bits(narrow: Narrow, recipe: str, tmp_path: Path, capsys: Any) -> None:
    """Of pictures that grow and fade in; with samples in between."""
    states = []
    for mode in ("off", "auto"):
        changes = {"training.compile": mode, "length.steps": 18, "output.sample_every": 1}
        said: list[str] = []
        run = train(narrow(recipe, changes), tmp_path / mode, said.append)
        (last,) = checkpoint.available(run.folder / "checkpoints")[-1:]
        state = tensors(checkpoint.load(last))
        states.append({key: one for key, one in state.items() if isinstance(one, torch.Tensor)})
        assert said.count("step      recorded") == (mode == "auto")
        assert "steps go on" not in capsys.readouterr().err
    assert_same_bits(*states)


def test_after_an_error_spectral_norms_know_that_they_know_nothing(narrow: Narrow) -> None:
    """In the middle of a repeated step: the discriminator's weights are new, the rest is old."""
    parts = parts_of(narrow("gan-pokemon-sngan"))
    step = RecordedStep(whole_of(parts))
    for number in range(WARM_UP + 2):
        step(inputs_of(parts, 4, number), number)
    discriminator = parts.networks["discriminator"].eval()
    inputs = inputs_of(parts, 4, 9)
    with torch.no_grad():
        weight = next(discriminator.parameters())
        before = discriminator(inputs.real).clone()

    class Failing(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if func is torch.ops.pokegan.adam_update.default:
                raise KeyboardInterrupt
            return result

    with pytest.raises(KeyboardInterrupt), Failing():
        step(inputs, 9)
    with torch.no_grad():
        found = discriminator(inputs.real)
        assert not torch.equal(found, before)
        torch.testing.assert_close(found, copy.deepcopy(discriminator)(inputs.real))
    assert weight.grad is None


def test_another_optimiser_runs_eagerly(narrow: Narrow) -> None:
    parts = parts_of(narrow("house-dcgan"))
    weights = parts.networks["generator"].parameters()
    parts.optimizers["generator"] = torch.optim.SGD(weights, lr=0.1)
    step = build_step("auto", step_parts(parts))
    assert step.mode == "eager"
    assert step.news() == ["optimiser: SGD has no operator; fused Adam has one; steps go on eager"]
