"""Shares of wall time, with a clock by hand."""

import pytest

from pokegan.monitor.timing import Timing


@pytest.fixture
def timing(clock):
    return Timing(clock)


def spend(timing, clock, name, seconds):
    with timing.part(name):
        clock.now += seconds


def test_shares(timing, clock):
    spend(timing, clock, "data", 1)
    spend(timing, clock, "step", 5)
    clock.now += 2
    spend(timing, clock, "data", 2)
    assert timing.snapshot_and_reset() == pytest.approx({"data": 0.3, "step": 0.5, "other": 0.2})


def test_a_snapshot_starts_anew(timing, clock):
    spend(timing, clock, "data", 3)
    timing.snapshot_and_reset()
    spend(timing, clock, "step", 4)
    assert timing.snapshot_and_reset() == {"step": 1.0, "other": 0.0}


def test_inner_parts_are_not_counted_twice(timing, clock):
    with timing.part("logging"):
        clock.now += 1
        spend(timing, clock, "sampling", 6)
        clock.now += 1
        spend(timing, clock, "logging", 2)
    assert timing.snapshot_and_reset() == {"logging": 0.4, "sampling": 0.6, "other": 0.0}


def test_an_open_part_is_split_at_the_snapshot(timing, clock):
    with timing.part("logging"):
        clock.now += 4
        assert timing.snapshot_and_reset() == {"logging": 1.0, "other": 0.0}
        clock.now += 1
    clock.now += 1
    assert timing.snapshot_and_reset() == {"logging": 0.5, "other": 0.5}


def test_time_is_counted_when_the_body_raises(timing, clock):
    def checkpoint():
        with timing.part("checkpoint"):
            clock.now += 2
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        checkpoint()
    clock.now += 2
    assert timing.snapshot_and_reset() == {"checkpoint": 0.5, "other": 0.5}


def test_no_time_no_shares(timing):
    with timing.part("data"):
        pass
    assert timing.snapshot_and_reset() == {}


def test_the_total_is_over_all_snapshots(timing, clock):
    spend(timing, clock, "data", 1)
    timing.snapshot_and_reset()
    clock.now += 4
    with timing.part("step"):
        clock.now += 3
        timing.snapshot_and_reset()
        clock.now += 2
    spend(timing, clock, "data", 1)
    assert timing.total() == pytest.approx({"data": 2, "step": 5, "other": 4})
    assert timing.total() == pytest.approx({"data": 2, "step": 5, "other": 4})
