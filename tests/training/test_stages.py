"""The plan of stages: its text, steps divided exactly, rates and fades."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokegan.errors import ConfigError
from pokegan.training.stages import (
    Cycle,
    Stage,
    StagePlan,
    epochs,
    parse_stages,
)

SEED = "16:5e-4x100,2e-4x200;32:5e-4x100,2e-4x200;64:5e-4x100,2e-4x200"

cycles = st.builds(
    Cycle,
    lr=st.floats(0, 10, exclude_min=True),
    epochs=st.one_of(st.integers(1, 1000).map(float), st.floats(1e-3, 1e6)),
)


@st.composite
def plans_stages(draw: st.DrawFn) -> tuple[Stage, ...]:
    first = draw(st.sampled_from([8, 12, 16]))
    rows = draw(st.lists(st.lists(cycles, min_size=1, max_size=4), min_size=1, max_size=5))
    return tuple(Stage(first << place, tuple(row)) for place, row in enumerate(rows))


def test_the_text_of_the_seed() -> None:
    stages = parse_stages(SEED, 64)
    both = (Cycle(5e-4, 100), Cycle(2e-4, 200))
    assert stages == (Stage(16, both), Stage(32, both), Stage(64, both))
    assert epochs(stages) == 900
    assert stages[1].epochs == 300
    assert parse_stages(" 16 : 5e-4 x 100 , 2e-4x200 ; 32:1e-3x.5") == (
        Stage(16, both),
        Stage(32, (Cycle(1e-3, 0.5),)),
    )


def text_of(stages: tuple[Stage, ...]) -> str:
    """Write stages in the form of `--stages`."""
    return ";".join(
        f"{stage.size}:" + ",".join(f"{cycle.lr!r}x{cycle.epochs!r}" for cycle in stage.cycles)
        for stage in stages
    )


@given(plans_stages())
def test_the_text_reads_as_equal_stages(stages: tuple[Stage, ...]) -> None:
    assert parse_stages(text_of(stages), stages[-1].size) == stages


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (";", "'' is no stage; write SIZE:LRxEPOCHS"),
        ("64", "'64' is no stage"),
        ("x:1e-3x1", "'x:1e-3x1' is no stage"),
        ("-8:1e-3x1", "is no stage"),
        ("0:1e-3x1", "is no stage"),
        ("64:1e-3x1;", "'' is no stage"),
        ("64:", "'' is no cycle"),
        ("64:1e-3", "'1e-3' is no cycle"),
        ("64:1e-3x1x2", "'1e-3x1x2' is no cycle"),
        ("64:1e-3x1,", "'' is no cycle"),
        ("64:ax1", "'ax1' is no cycle"),
        ("64:0x1", r"learning rate 0 is not in \(0, 10\]"),
        ("64:nanx1", "learning rate nan"),
        ("64:11x1", "learning rate 11"),
        ("64:1e-3x0", "0 epochs; a positive number"),
        ("64:1e-3xinf", "inf epochs"),
        ("16:1e-3x1;64:1e-3x1", "after 16 px comes 32 px, not 64 px"),
        ("64:1e-3x1;32:1e-3x1", "after 64 px comes 128 px, not 32 px"),
        ("16:1e-3x1;32:1e-3x1", "the last stage has 32 px, but --size is 64"),
    ],
)
def test_wrong_text_is_refused_with_the_flag(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^--stages .*{message}"):
        parse_stages(text, 64)


@given(plans_stages(), st.integers(0, 5000))
def test_steps_are_divided_in_proportion_and_exactly(stages: tuple[Stage, ...], total: int) -> None:
    plan = StagePlan(stages, total)
    counts = [plan.last(index) - plan.first(index) + 1 for index in range(len(stages))]
    assert sum(counts) == total
    assert plan.first(0) == 0
    for one, two in itertools.pairwise(range(len(stages))):
        assert plan.first(two) == plan.last(one) + 1
    ideal = [total * stage.epochs / epochs(stages) for stage in stages]
    if total >= len(stages):
        assert min(counts) >= 1
    if min(ideal) >= 1.5:  # no stage had to be given a step
        assert all(abs(c - i) <= 1 + 1e-6 for c, i in zip(counts, ideal, strict=True))


@given(plans_stages(), st.integers(1, 400))
def test_every_step_has_its_stage_rate_and_alpha(stages: tuple[Stage, ...], total: int) -> None:
    plan = StagePlan(stages, total)
    seen = [plan.stage_at(step) for step in range(total)]
    for index in range(len(stages)):
        steps = range(plan.first(index), plan.last(index) + 1)
        assert [step for step, stage in enumerate(seen) if stage == index] == list(steps)
        rates = [rate for rate, _ in itertools.groupby(map(plan.lr_at, steps))]
        wanted = [cycle.lr for cycle in stages[index].cycles]
        if len(steps) >= len(wanted):  # no cycle is left out
            assert rates == [rate for rate, _ in itertools.groupby(wanted)]
        alphas = [plan.alpha_at(step) for step in steps]
        if index == 0:
            assert set(alphas) <= {1.0}
            continue
        for done, alpha in enumerate(alphas):
            assert alpha == pytest.approx(min(1.0, 2 * done / len(steps)))


def test_an_example_by_hand() -> None:
    plan = StagePlan(parse_stages("16:3e-3x1,2e-3x1;32:1e-3x6", 32), 80)
    assert [(plan.first(i), plan.last(i)) for i in (0, 1)] == [(0, 19), (20, 79)]
    assert [plan.lr_at(step) for step in (0, 9, 10, 19, 20, 79)] == [
        3e-3, 3e-3, 2e-3, 2e-3, 1e-3, 1e-3,
    ]  # fmt: skip
    assert [plan.alpha_at(step) for step in (0, 19, 20, 35, 50, 79)] == [1, 1, 0, 0.5, 1, 1]
    assert plan.alpha_at(23, fade_share=0.1) == 0.5
    assert plan.alpha_at(20, fade_share=0.0) == 1
    assert plan.alpha_at(50, fade_share=1.0) == 0.5


@given(plans_stages(), st.integers(1, 300), st.integers(0, 500))
def test_a_longer_run_goes_on_in_the_last_cycle(
    stages: tuple[Stage, ...], total: int, beyond: int
) -> None:
    plan = StagePlan(stages, total)
    assert plan.stage_at(total + beyond) == len(stages) - 1
    assert plan.lr_at(total + beyond) == stages[-1].cycles[-1].lr
    assert plan.alpha_at(total + beyond) == 1


@pytest.mark.parametrize("total", [0, 1, 2])
def test_fewer_steps_than_stages(total: int) -> None:
    plan = StagePlan(parse_stages(SEED), total)
    seen = [plan.stage_at(step) for step in range(total + 1)]
    assert seen == sorted(seen)
    assert seen[-1] == 2
    assert math.isclose(plan.lr_at(total), 2e-4)


def test_a_wrong_fade_share_and_no_stages_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--fade 1\.5"):
        StagePlan(parse_stages(SEED), 9).alpha_at(0, 1.5)
    with pytest.raises(ConfigError, match="at least one stage"):
        StagePlan((), 9)
