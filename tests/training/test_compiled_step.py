"""The compiled step against the eager one, and what happens where a step does not compile."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_steps import inputs_of, step_parts, whole_of
from thread_ranks import Seat, Threads

from pokegan.config import RunConfig, override
from pokegan.data.packed import PackedImages
from pokegan.networks.batch_norm import share
from pokegan.objectives.phases import Phase, PhaseResult, StepInput
from pokegan.training.build import Parts, build
from pokegan.training.compiled_step import CompiledStep, Runner
from pokegan.training.modes import FallingBack, Way, build_step
from pokegan.training.session import resume, train
from pokegan.training.step import StepRefusedError

Narrow = Callable[..., RunConfig]
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
CASES = [  # (recipe, changes, backend): one is compiled to machine code, the others to operators
    ("hpml", {}, "inductor"),
    ("gan-pokemon-sngan", {"objective.loss": "hinge"}, "aot_eager"),
    ("gan-pokemon-sngan", {"objective.r1": 1.0, "objective.r1_every": 2}, "aot_eager"),
    ("gan-pokemon-dcgan", {"objective.loss": "wgan-gp", "objective.discriminator_steps": 2},
     "aot_eager"),
]  # fmt: skip


def weights(parts: Parts, name: str) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in parts.networks[name].parameters()])


def updates(parts: Parts, name: str) -> list[float]:
    """How often each parameter was updated: a penalty gives some of them no gradient."""
    states = parts.optimizers[name].state_dict()["state"]
    return [float(states[index]["step"]) for index in sorted(states)]


@pytest.mark.parametrize(("recipe", "changes", "backend"), CASES)
def test_equals_the_eager_step(
    narrow: Narrow, recipe: str, changes: dict[str, Any], backend: str
) -> None:
    if backend == "inductor" and COMPILER is None:
        pytest.skip("there is no C++ compiler (CXX, g++)")
    config = narrow(recipe, changes)
    packed = PackedImages.open(config.data.source)
    eager, compiled = build(config, packed), build(config, packed)
    step = CompiledStep(Runner(whole_of(compiled), backend))
    for number in range(4):
        for parts in (eager, compiled):
            for optimizer in parts.optimizers.values():
                optimizer.param_groups[0]["lr"] = 1e-3 / (number + 1)
        wanted = eager.step(inputs_of(eager, 4, number), number)
        found = step(inputs_of(compiled, 4, number), number)
        assert wanted.keys() == found.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=name)
    for name in eager.networks:
        apart = (weights(eager, name) - weights(compiled, name)).norm()
        assert apart < 1e-5 * weights(eager, name).norm()
        assert updates(eager, name) == updates(compiled, name)


def test_a_penalty_updates_the_same_parameters(narrow: Narrow) -> None:
    """Biases behind which there is a ReLU alone: neither way sends zeros to them."""
    config = narrow("gan-pokemon-resnet", {"objective.r1": 1.0, "objective.r1_every": 2})
    packed = PackedImages.open(config.data.source)
    eager, compiled = build(config, packed), build(config, packed)
    eager.step(inputs_of(eager, 4, 1), 1)
    CompiledStep(Runner(whole_of(compiled), "aot_eager"))(inputs_of(compiled, 4, 1), 1)
    found = updates(eager, "discriminator")
    assert updates(compiled, "discriminator") == found
    assert set(found) == {1, 2}


def impatient(phase: Phase) -> Phase:
    """The phase with a loss that waits for the device, which no graph can hold."""

    def loss(inputs: StepInput) -> PhaseResult:
        result = phase.loss(inputs)
        one = (result.loss.detach() > -1e9).item()
        return PhaseResult(result.loss * (1.0 if one else 2.0), result.recorded)

    return dataclasses.replace(phase, loss=loss)


def test_what_does_not_compile_is_told_once_and_goes_on_another_way(narrow: Narrow) -> None:
    config = narrow("gan-pokemon-sngan")
    packed = PackedImages.open(config.data.source)
    reference, parts = build(config, packed), build(config, packed)
    own = step_parts(parts)
    step = build_step("on", dataclasses.replace(own, phases=list(map(impatient, own.phases))))
    assert step.mode == "compiled"
    told = []
    for number in range(6):
        wanted = reference.step(inputs_of(reference, 4, number), number)
        found = step(inputs_of(parts, 4, number), number)
        assert all(torch.equal(found[name], value) for name, value in wanted.items())
        told.append([line.split(":")[0] + line.split(";")[-1] for line in step.news()])
    first = "compile steps go on recorded"
    assert told == [[first], [], [], ["record steps go on eager"], [], []]
    assert step.mode == "eager"
    for name in reference.networks:
        assert torch.equal(weights(reference, name), weights(parts, name))


def test_ways_that_need_what_is_missing_are_passed_over() -> None:
    tried: list[str] = []

    class Told:
        def __init__(self, mode: str, part: str | None = None) -> None:
            self.mode, self.part = mode, part

        def __call__(self, inputs: Any, number: int, observer: Any = None) -> dict[str, Any]:
            tried.append(self.mode)
            if self.part is not None:
                raise StepRefusedError(self.part, "none here")
            return {}

        def news(self) -> list[str]:
            return []

        def close(self) -> None:
            tried.append(f"{self.mode} closed")

    step = FallingBack(
        [
            Way(frozenset({"compile", "capture"}), lambda: Told("both", "compile")),
            Way(frozenset({"capture"}), lambda: Told("captured", "capture")),
            Way(frozenset({"compile"}), lambda: Told("compiled")),
            Way(frozenset(), lambda: Told("eager")),
        ]
    )
    inputs = StepInput(torch.zeros(1), torch.zeros(1), torch.zeros(()))
    assert [step(inputs, number) for number in range(2)] == [{}, {}]
    assert tried == ["both", "captured", "eager", "eager"]
    step.close()
    assert tried[4:] == ["eager closed"]
    assert step.news() == [
        "compile: none here; steps go on captured",
        "capture: none here; steps go on eager",
    ]


def test_the_setting_chooses(narrow: Narrow) -> None:
    modes = {}
    for wanted in ("auto", "on", "off"):
        config = narrow("hpml", {"training.compile": wanted})
        modes[wanted] = build(config, PackedImages.open(config.data.source)).step.mode
    assert modes == {"auto": "recorded", "on": "compiled", "off": "eager"}


def test_a_run_is_resumed_in_another_mode(
    narrow: Narrow, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """On a Python that torch.compile does not know: the run says so and goes on recorded."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("torch.compile is not supported on Python 3.99")

    monkeypatch.setattr(torch, "compile", refuse)
    changes = {"length.steps": 2, "output.log_every": 1, "training.compile": "auto"}
    config = narrow("gan-pokemon-sngan", changes)
    train(config, tmp_path / "run")
    said: list[str] = []
    run = resume(tmp_path / "run", {"length.steps": 4, "training.compile": "on"}, said.append)
    whole = train(override(config, {"length.steps": 4}), tmp_path / "whole")
    assert any("begun with --compile auto" in line for line in said)
    assert "step      compiled" in said
    assert run.weights.read_bytes() == whole.weights.read_bytes()
    note = "compile: torch.compile is not supported on Python 3.99; steps go on recorded"
    assert capsys.readouterr().err.count(note) == 1


@pytest.mark.parametrize(
    ("changes", "over_ranks", "mode"),
    [
        ({"objective.r1": 1.0}, True, "recorded"),
        ({"objective.r2": 1.0, "objective.r2_every": 4}, True, "recorded"),
        ({"objective.r1": 1.0}, False, "compiled"),
        ({}, True, "compiled"),
    ],
)
def test_gradients_through_several_ranks_are_not_differentiated_again_in_a_graph(
    narrow: Narrow, changes: dict[str, Any], over_ranks: bool, mode: str
) -> None:
    """Without an error the graph would leave out nearly all of the penalty's gradient."""
    config = narrow("hpml", changes)
    parts = build(config, PackedImages.open(config.data.source))
    if over_ranks:
        for network in parts.networks.values():
            assert share(network, Seat(Threads(2), 0)) > 0
    step = build_step("on", step_parts(parts))
    assert step.mode == mode
    told = step.news()
    assert [line for line in told if "compile: a penalty on gradients" in line] == told
    assert len(told) == (mode == "recorded")
