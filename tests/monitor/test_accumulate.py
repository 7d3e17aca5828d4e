"""Means over the steps in which a value appeared, summed on the device."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pokegan.monitor.accumulate import Accumulator


def test_a_lazy_penalty_is_averaged_over_its_own_steps():
    sums = Accumulator()
    for step in range(48):
        values = {"loss/discriminator": torch.tensor(float(step))}
        if (step + 1) % 16 == 0:
            values["penalty/r1"] = torch.tensor(float(step))  # 15, 31, 47
        if (step + 1) % 5 == 0:
            values["loss/generator"] = torch.tensor(2.0)
        sums.add(values)
    means = sums.read()
    assert means == {
        "loss/discriminator": pytest.approx(23.5),
        "loss/generator": 2.0,
        "penalty/r1": pytest.approx(31.0),
    }
    sums.add({"loss/discriminator": torch.tensor(1.0)})
    assert sums.read() == {"loss/discriminator": 1.0}  # what did not appear is not told
    assert sums.read() == {}


def test_the_next_step_may_write_over_its_tensor():
    sums, value = Accumulator(), torch.tensor(1.0)
    for number in (1.0, 2.0, 6.0):
        value.fill_(number)
        sums.add({"loss": value})
    assert sums.read() == {"loss": 3.0}


def test_bfloat16_values_are_summed_in_float32():
    sums = Accumulator()
    for _ in range(1000):  # a bfloat16 sum of ones stands still at 256
        sums.add({"loss": torch.tensor(1.0, dtype=torch.bfloat16)})
    assert sums.read() == {"loss": 1.0}


def test_state_is_a_picture_of_its_moment():
    first, second = Accumulator(), Accumulator()
    first.add({"loss": torch.tensor(1.0)})
    state = first.state()
    second.load(state, torch.device("cpu"))
    first.add({"loss": torch.tensor(5.0)})
    second.add({"loss": torch.tensor(2.0)})
    assert float(state["sums"]["loss"]) == 1.0
    assert (first.read(), second.read()) == ({"loss": 3.0}, {"loss": 1.5})


def test_adding_does_not_wait_for_the_device():
    """A fake tensor has no values: whatever asked for one would raise."""
    with FakeTensorMode():
        sums = Accumulator()
        for _ in range(3):
            sums.add({"loss": torch.ones(()), "penalty": torch.ones(())})
