"""Nothing in a step waits for the device: no tensor's value or shape depends on the host.

On the CPU every operator that would make a GPU's host wait is refused. What waits for logging,
sampling and checkpoints is outside of the step; the observer of gradients is not called here.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_steps import inputs_of
from torch.utils._python_dispatch import TorchDispatchMode

from pokegan import recipes
from pokegan.config import RunConfig, override
from pokegan.data.packed import PackedImages
from pokegan.monitor.accumulate import Accumulator
from pokegan.training.build import build
from pokegan.training.recording import is_due
from pokegan.training.session import train
from pokegan.training.trainer import Trainer

Narrow = Callable[..., RunConfig]
aten = torch.ops.aten
WAITING = (
    aten._local_scalar_dense,  # item(), float(), bool()
    aten.is_nonzero,
    aten.nonzero,  # its shape is known to the device alone; so are those of the next ones
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.repeat_interleave,
    aten.equal,
    aten.allclose,
)
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in recipes.RECIPES),
    ("gan-pokemon-dcgan", {"objective.loss": "wgan-gp"}),
    ("gan-pokemon-dcgan", {"objective.loss": "wgan"}),
    ("gan-pokemon-sngan", {"objective.loss": "hinge", "objective.r1": 1.0}),
    ("house-dcgan", {"objective.ada_target": 0.6}),
    ("house-dcgan", {"objective.diff_augment": "colour,translation,cutout"}),
]


class NoWaiting(TorchDispatchMode):
    """Refuses what waits, and moves between devices."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.overloadpacket in WAITING or _by_mask(func, args):
            raise AssertionError(f"{func} waits for the device")
        if func.overloadpacket is aten._to_copy and kwargs.get("device") not in (None, self.device):
            raise AssertionError(f"{func} moves from {self.device} to {kwargs['device']}")
        self.count += 1
        return func(*args, **kwargs)


def _by_mask(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether `func` picks out the values where a mask holds, of which only the device knows."""
    if func.overloadpacket not in (aten.index, aten.index_put, aten.index_put_):
        return False
    return any(index is not None and index.dtype == torch.bool for index in args[1])


def steps(config: RunConfig, count: int = 5) -> int:
    """Run `count` steps as the trainer does, batch and moving average included."""
    parts = build(config, PackedImages.open(config.data.source))
    sums, batch = Accumulator(), config.training.batch
    mode = NoWaiting(parts.device)
    for done in range(count):
        with mode:
            sums.add(parts.step(inputs_of(parts, batch, done), done))
            parts.ema.update((done + 1) * batch, batch)
    return mode.count


@pytest.mark.parametrize(("recipe", "changes"), CASES)
def test_an_eager_step_never_waits(narrow: Narrow, recipe: str, changes: dict[str, Any]) -> None:
    assert steps(narrow(recipe, {"training.compile": "off", **changes})) > 100


def test_a_trainer_never_waits_between_two_records(
    narrow: Narrow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop itself: its step and what it does about a record that is not due."""
    config = narrow("house-dcgan", {"output.log_every": 1000, "output.checkpoint_every": 1000})
    mode, calls = NoWaiting(torch.device("cpu")), []
    for name in ("_step", "_record_if_due"):
        inner = getattr(Trainer, name)

        def guarded(trainer: Trainer, name: str = name, inner: Any = inner) -> None:
            ends_at = trainer.done + (name == "_step")  # a step before a record is looked at
            records = is_due(config, ends_at, trainer.total)
            calls.append((name, records))
            with contextlib.nullcontext() if records else mode:
                inner(trainer)

        monkeypatch.setattr(Trainer, name, guarded)
    train(config, tmp_path / "run")
    assert calls.count(("_step", False)) == 5  # the sixth ends in the run's last record
    assert calls.count(("_record_if_due", False)) == 5
    assert mode.count > 100


@pytest.mark.parametrize(
    "wait", [lambda x: x.sum().item(), lambda x: bool(x.any()), torch.nonzero, lambda x: x[x > 0]]
)
def test_waiting_is_noticed(wait: Callable[[torch.Tensor], object]) -> None:
    with NoWaiting(torch.device("cpu")), pytest.raises(AssertionError, match="waits"):
        wait(torch.ones(3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize(("recipe", "changes"), CASES)
def test_an_eager_step_never_waits_on_a_gpu(
    narrow: Narrow, recipe: str, changes: dict[str, Any]
) -> None:
    config = override(narrow(recipe, changes), {"training.device": "cuda"})
    config = override(config, {"training.compile": "off"})
    parts = build(config, PackedImages.open(config.data.source))
    batch = config.training.batch
    for done in range(6):
        # The first step makes the optimisers' state, a new epoch its order.
        torch.cuda.set_sync_debug_mode("error" if done not in (0, 5) else "default")
        try:
            parts.step(inputs_of(parts, batch, done), done)
            parts.ema.update((done + 1) * batch, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
