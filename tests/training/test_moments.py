"""TensorBoard's pictures and histograms: a few moments of a run, however often one is offered."""

import itertools

import pytest

from pokegan.training.gallery import Moments


@pytest.mark.parametrize("every", [1, 3, 20])
def test_about_as_many_as_asked_for(every: int) -> None:
    moments = Moments(1000, 25)
    taken = [step for step in range(every, 1001, every) if moments.take(step)]
    assert taken[0] >= 40
    assert all(later - earlier >= 40 for earlier, later in itertools.pairwise(taken))
    assert 16 <= len(taken) <= 25


def test_the_last_step_is_always_one() -> None:
    moments = Moments(100, 2)
    assert moments.take(90)
    assert not moments.take(99)
    assert moments.take(100)
