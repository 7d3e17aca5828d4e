"""Learning-rate schedules against their closed forms, and against PyTorch's own."""

import math

import pytest
import torch
from torch import nn

from pokegan.errors import ConfigError
from pokegan.training.schedules import Schedule, apply


def test_constant_stays() -> None:
    assert [Schedule().factor(p, 100) for p in (0, 50, 100, 1e9)] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("progress", "expected"),
    [(0, 1), (25, 0.1 + 0.9 * (2 + math.sqrt(2)) / 4), (50, 0.55), (100, 0.1), (130, 0.1)],
)
def test_cosine_at_its_corners(progress: float, expected: float) -> None:
    assert Schedule("cosine", final=0.1).factor(progress, 100) == pytest.approx(expected)


def test_cosine_is_pytorchs() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0.05)
    ours = Schedule("cosine", final=0.25)
    for step in range(11):
        assert 0.2 * ours.factor(step, 10) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


def test_step_falls_every_so_many_kimg() -> None:
    schedule = Schedule("step", decay=0.5, decay_kimg=10)
    given = [0, 9.999, 10, 19, 20, 45]
    assert [schedule.factor(p, 30) for p in given] == [1, 1, 0.5, 0.5, 0.25, 0.0625]


def test_step_falls_on_the_boundary_in_spite_of_rounding() -> None:
    schedule = Schedule("step", decay=0.5, decay_kimg=0.1)
    assert 0.3 / 0.1 < 3
    assert schedule.factor(0.3, 1) == 0.125


@pytest.mark.parametrize("name", ["constant", "step", "cosine"])
def test_warm_up_is_linear_and_then_the_schedule_takes_over(name: str) -> None:
    schedule = Schedule(name, decay=0.5, decay_kimg=50, warmup_kimg=20)
    for progress in (0, 5, 10, 19):
        assert schedule.factor(progress, 100) == pytest.approx(progress / 20)
    assert schedule.factor(20, 100) == 1
    end = {"constant": 1, "step": 0.25, "cosine": 0}[name]
    assert schedule.factor(100, 100) == pytest.approx(end)
    middle = {"constant": 1, "step": 0.5, "cosine": 0.5}[name]  # of the 80 kimg after warm-up
    assert schedule.factor(60, 100) == pytest.approx(middle)


def test_a_run_shorter_than_its_warm_up_is_no_error() -> None:
    assert Schedule("cosine", warmup_kimg=20).factor(5, 10) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "linear"}, "--lr-schedule linear: choose one of constant, cosine, step"),
        ({"name": "cosine", "final": 1.5}, "--lr-final 1.5"),
        ({"name": "step"}, "--lr-decay-kimg 0: --lr-schedule step needs"),
        ({"name": "step", "decay_kimg": 10, "decay": 0.0}, "--lr-decay 0"),
        ({"warmup_kimg": -1}, "--lr-warmup-kimg -1"),
        ({"warmup_kimg": float("nan")}, "--lr-warmup-kimg nan"),
    ],
)
def test_a_wrong_setting_is_named(arguments: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Schedule(**arguments)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_step_takes_the_rate_that_was_set(as_tensor: bool) -> None:
    """Adam's first step moves by the learning rate, whatever the gradient."""
    weight = nn.Parameter(torch.zeros(3))
    lr = torch.tensor(0.1) if as_tensor else 0.1
    optimizer = torch.optim.Adam([weight], lr=lr, eps=1e-12, fused=True)
    apply(optimizer, 0.1, 0.25)
    weight.grad = torch.tensor([1.0, -2.0, 3.0])
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([-0.025, 0.025, -0.025]))
    assert (optimizer.param_groups[0]["lr"] is lr) == as_tensor  # in place, so captures see it
