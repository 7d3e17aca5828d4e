"""A captured step: on the CPU with a tape of operators in place of a CUDA graph, on a GPU with one.

Like a graph, a tape repeats operators on the tensors that it saw and runs no Python of the step:
whatever the step keeps on the host stands still in a replay.
"""

import copy
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_steps import assert_same_bits, inputs_of, parts_of, state_of, whole_of
from step_builds import apart, build_in, copy_state, difference, nudge, require
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pokegan.config import RunConfig, override
from pokegan.data.packed import PackedImages
from pokegan.training import run_folder
from pokegan.training.build import build
from pokegan.training.captured_step import WARM_UP, CapturedStep, first_line
from pokegan.training.compiled_step import Runner
from pokegan.training.growth import Growth
from pokegan.training.step import StepRefusedError
from pokegan.training.trainer import Trainer
from pokegan.training.whole_step import Outcome

Narrow = Callable[..., RunConfig]
RECIPES = [
    ("hpml", {}),
    ("gan-pokemon-sngan", {"objective.loss": "hinge", "objective.discriminator_steps": 2}),
    ("gan-pokemon-sngan", {"objective.r1": 1.0, "objective.r1_every": 3}),
    ("gan-pokemon-dcgan", {"objective.loss": "wgan-gp", "objective.discriminator_steps": 2}),
    ("aegan", {}),
    ("house-dcgan", {"objective.ada_target": 0.6}),
]


class Tape(TorchDispatchMode):
    """Notes every operator with the tensors that it was given and those that it made."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[[], Any], list[Tensor]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.calls.append((functools.partial(func, *args, **(kwargs or {})), made))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for call, made in self.calls:
            again = [leaf for leaf in tree_leaves(call()) if isinstance(leaf, Tensor)]
            for tensor, value in zip(made, again, strict=True):
                if tensor.data_ptr() != value.data_ptr():
                    tensor.detach().copy_(value)


class TapeRecorder:
    """Records on a tape. It must run what it records, so that the first replay does nothing."""

    def __init__(self) -> None:
        self.replays = 0
        self.kept = 0

    def warm_up(self, run: Callable[[], Outcome]) -> Outcome:
        return run()

    def record(self, run: Callable[[], Outcome]) -> tuple[Callable[[], None], Outcome]:
        tape = Tape()
        with tape:
            outcome = run()
        done = False

        def replay() -> None:
            nonlocal done
            if done:
                self.replays += 1
                tape.replay()
            done = True

        self.kept += 1
        return replay, outcome

    def forget(self) -> None:
        self.kept = 0


@pytest.mark.parametrize(("recipe", "changes"), RECIPES)
def test_replays_equal_eager_steps(narrow: Narrow, recipe: str, changes: dict[str, Any]) -> None:
    """Fresh random numbers, a falling learning rate and lazy phases, all in replays."""
    config = narrow(recipe, changes)
    packed = PackedImages.open(config.data.source)
    eager, captured = build(config, packed), build(config, packed)
    recorder = TapeRecorder()
    step = CapturedStep(Runner(whole_of(captured), backend=None), recorder)
    for number in range(9):
        for parts in (eager, captured):
            for optimizer in parts.optimizers.values():
                optimizer.param_groups[0]["lr"] = 1e-3 / (number + 1)
        wanted = eager.step(inputs_of(eager, 4, number), number)
        found = step(inputs_of(captured, 4, number), number)
        assert wanted.keys() == found.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)
    assert recorder.replays > 0
    for name, network in eager.networks.items():
        state = captured.networks[name].state_dict()
        for key, value in network.state_dict().items():
            assert torch.equal(state[key], value), key
        adams = [parts.optimizers[name].state_dict()["state"] for parts in (eager, captured)]
        for index, own in adams[0].items():
            assert all(torch.equal(value, adams[1][index][key]) for key, value in own.items())


def test_the_end_of_a_fade_is_captured_anew(narrow: Narrow) -> None:
    """From there on the old layers are not computed, so their moments stand still, as in eager."""
    config = narrow("progan")
    eager, captured = parts_of(config), parts_of(config)
    recorder = TapeRecorder()
    step = CapturedStep(Runner(whole_of(captured), backend=None), recorder)
    for number in range(10):
        for parts in (eager, captured):
            for network in parts.networks.values():
                network.set_alpha(min(1.0, number / 5))
        eager.step(inputs_of(eager, 4, number), number)
        step(inputs_of(captured, 4, number), number)
    assert recorder.replays == 4  # of five steps each, two warm up and one is recorded
    assert_same_bits(state_of(eager), state_of(captured))


def test_a_run_that_ended_keeps_no_recording(tiny: RunConfig, tmp_path: Path) -> None:
    """NCCL waits for graphs with its kernels before a job can end."""
    config = override(tiny, {"training.compile": "off"})
    packed = PackedImages.open(config.data.source)
    growth = Growth(config, packed)
    parts = growth.build()
    recorder = TapeRecorder()
    parts = dataclasses.replace(
        parts, step=CapturedStep(Runner(whole_of(parts), backend=None), recorder)
    )
    kept: list[int] = []
    folder = run_folder.create(config, tmp_path / "run")
    trainer = Trainer(config, growth, folder, packed.checksum, parts=parts)
    trainer.sums.merge = lambda mean: kept.append(recorder.kept)  # type: ignore[method-assign]
    trainer.train()
    assert max(kept) > 0
    assert recorder.kept == 0


def test_a_loaded_optimiser_is_recorded_anew(narrow: Narrow) -> None:
    config = narrow("hpml")
    parts = build(config, PackedImages.open(config.data.source))
    step = CapturedStep(Runner(whole_of(parts), backend=None), TapeRecorder())
    for number in range(WARM_UP + 2):
        step(inputs_of(parts, 4, number), number)
    for optimizer in parts.optimizers.values():
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for number in range(2 * (WARM_UP + 2)):
        step(inputs_of(parts, 4, number), number)
    counts = [
        float(own["step"])
        for one in parts.optimizers.values()
        for own in one.state_dict()["state"].values()
    ]
    assert set(counts) == {3.0 * (WARM_UP + 2)}


def test_what_cannot_be_recorded_is_not_half_done(narrow: Narrow) -> None:
    class Refusing(TapeRecorder):
        def record(self, run):
            raise StepRefusedError("capture", "not here")

    config = narrow("gan-pokemon-sngan")
    packed = PackedImages.open(config.data.source)
    eager, captured = build(config, packed), build(config, packed)
    step = CapturedStep(Runner(whole_of(captured), backend=None), Refusing())
    for number in range(WARM_UP + 2):
        eager.step(inputs_of(eager, 4, number), number)
        if number < WARM_UP:
            step(inputs_of(captured, 4, number), number)
            continue
        if number == WARM_UP:
            with pytest.raises(StepRefusedError, match="not here"):
                step(inputs_of(captured, 4, number), number)
        captured.step(inputs_of(captured, 4, number), number)
    for name, network in eager.networks.items():
        state = captured.networks[name].state_dict()
        for key, value in network.state_dict().items():
            assert torch.equal(state[key], value), key


MUST_SHOW = [
    ("hpml", {}),
    ("gan-pokemon-sngan", {"objective.loss": "hinge"}),
    ("gan-pokemon-dcgan", {"objective.loss": "wgan-gp"}),
    ("aegan", {}),
]


WARMED, STEPS, EARLY = 100, 50, 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize(("recipe", "changes"), MUST_SHOW)
def test_fifty_captured_steps_equal_eager_ones(
    narrow: Narrow, recipe: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32, after some steps: at the start Adam lets rounding alone decide where it goes.

    The first losses are the same; then training amplifies any rounding, and `control` shows how
    much: an eager run whose weights were changed by 1e-7. AEGAN's losses part by a hundredth within
    six steps. In replays nothing waits for the device.
    """
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    config = override(narrow(recipe, changes), {"training.device": "cuda"})
    packed = PackedImages.open(config.data.source)
    eager, control = (build_in("eager", config, packed) for _ in range(2))
    captured = build_in("captured", config, packed)
    for number in range(WARMED):
        eager.step(inputs_of(eager, 4, number), number)
    copy_state(eager, captured)
    copy_state(eager, control)
    nudge(control)
    parted = 0.0
    for number in range(WARMED, WARMED + STEPS):
        given = [inputs_of(parts, 4, number) for parts in (eager, control, captured)]
        wanted = eager.step(given[0], number)
        parted = max(parted, difference(wanted, control.step(given[1], number)))
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error" if number > WARMED + 30 else "default")
        try:
            found = captured.step(given[2], number)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        if number < WARMED + EARLY:
            assert difference(wanted, found) < max(1e-5, 3 * parted), number
    require("captured", captured)
    assert captured.step.news() == []
    assert apart(eager, captured) < max(1e-4, 3 * apart(eager, control))


def test_of_a_failed_capture_the_first_error_is_told() -> None:
    def fail() -> None:
        try:
            raise RuntimeError("operator x is not permitted\nmore")
        finally:
            raise RuntimeError("the capture was invalidated")

    with pytest.raises(RuntimeError, match="invalidated") as caught:
        fail()
    assert first_line(caught.value) == "operator x is not permitted"
