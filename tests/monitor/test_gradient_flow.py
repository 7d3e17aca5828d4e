"""Gradient flow against gradients worked out by hand, and gradients.jsonl."""

import json

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pokegan.monitor.gradients import (
    GradientFlow,
    GradientsWriter,
    NetworkGradients,
    read_gradients,
)
from pokegan.networks.spectral_norm import spectral_norm_


def linear_network():
    """Return y = b2 + w2 (b1 + W1 x) with known numbers, after the backward pass of y at x."""
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        network[0].bias.zero_()
        network[1].weight.copy_(torch.tensor([[-2.0, 0.5]]))
    network(torch.tensor([[3.0, -1.0]])).sum().backward()
    return network


def observed(network, name="generator"):
    flow = GradientFlow()
    flow.observe(name, network)
    return flow.read()[name]


def test_known_gradients():
    # dy/dW1 = w2^T x = [[-6, 2], [1.5, -.5]], dy/db1 = [-2, .5], dy/dw2 = W1 x = [1, 5], dy/db2 = 1
    found = observed(linear_network())
    assert found.layers == ["0", "1"]
    assert found.mean == pytest.approx([10.0 / 4, 3.0])
    assert found.max == pytest.approx([6.0, 5.0])
    squares = (36 + 4 + 2.25 + 0.25) + (4 + 0.25) + (1 + 25) + 1
    assert found.norm == pytest.approx(squares**0.5)


def test_frozen_is_absent_and_zero_is_there():
    network = linear_network()
    network[0].requires_grad_(False)
    network[0].weight.grad = network[0].bias.grad = None
    network[1].weight.grad.zero_()
    found = observed(network)
    assert (found.layers, found.mean, found.max) == (["1"], [0.0], [0.0])
    assert found.norm == pytest.approx(1.0)  # of the bias


def test_norms_and_biases_are_no_layers():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 2, 3))
    network(torch.ones(2, 3, 5, 5)).square().sum().backward()
    assert observed(network).layers == ["0", "2"]


def test_spectral_norm_keeps_the_layers_names():
    network = spectral_norm_(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3)))
    network(torch.ones(1, 3, 5, 5)).sum().backward()
    assert observed(network).layers == ["0", "2"]


def test_nothing_to_observe():
    flow = GradientFlow()
    flow.observe("generator", nn.Linear(2, 2))
    assert flow.read() == {}


def test_read_gives_the_last_of_each_and_starts_anew():
    flow = GradientFlow()
    network = linear_network()
    flow.observe("generator", network)
    for parameter in network.parameters():
        parameter.grad.mul_(2.0)
    flow.observe("generator", network)
    flow.observe("discriminator", linear_network())
    found = flow.read()
    assert list(found) == ["generator", "discriminator"]
    assert found["generator"].max == pytest.approx([12.0, 10.0])
    assert found["discriminator"].max == pytest.approx([6.0, 5.0])
    assert flow.read() == {}


def test_a_later_backward_does_not_change_what_was_observed():
    flow, network = GradientFlow(), linear_network()
    flow.observe("generator", network)
    network[0].weight.grad.zero_()
    assert flow.read()["generator"].max[0] == pytest.approx(6.0)


def test_observing_does_not_wait_for_the_device():
    """A fake tensor has no values: whatever asked for one would raise."""
    with FakeTensorMode():
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        network(torch.ones(1, 3, 5, 5)).sum().backward()
        GradientFlow().observe("generator", network)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_observing_does_not_wait_for_the_gpu():
    network = linear_network().cuda()
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    flow = GradientFlow()
    torch.cuda.set_sync_debug_mode("error")
    try:
        flow.observe("generator", network)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert flow.read()["generator"].mean == [1.0, 1.0]


def test_file_round_trip_is_strict_json(tmp_path):
    def refuse(name):
        raise AssertionError(name)

    path = tmp_path / "run" / "gradients.jsonl"
    wrong = NetworkGradients(["a"], [float("nan")], [float("inf")], float("inf"))
    with GradientsWriter(path) as writer:
        writer.write(10, 0.64, {"generator": observed(linear_network()), "discriminator": wrong})
    lines = path.read_text().splitlines()
    assert [json.loads(line, parse_constant=refuse) for line in lines] == read_gradients(path)
    first, second = read_gradients(path)
    assert first == {
        "step": 10,
        "kimg": 0.64,
        "network": "generator",
        "layers": ["0", "1"],
        "mean": [2.5, 3.0],
        "max": [6.0, 5.0],
        "norm": pytest.approx(73.75**0.5, rel=1e-6),
    }
    assert (second["mean"], second["max"], second["norm"]) == ([None], [None], None)


def test_resume_cuts_later_records(tmp_path):
    path = tmp_path / "gradients.jsonl"
    one = NetworkGradients(["a"], [1.0], [2.0], 3.0)
    with GradientsWriter(path) as writer:
        for step in (10, 20, 30):
            writer.write(step, step / 10, {"generator": one, "discriminator": one})
    kept = path.read_bytes().splitlines(keepends=True)[:4]
    with GradientsWriter(path, resume_step=25) as writer:
        assert path.read_bytes() == b"".join(kept)
        writer.write(30, 9.0, {"generator": one})
    assert [record["step"] for record in read_gradients(path)] == [10, 10, 20, 20, 30]
