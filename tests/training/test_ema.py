"""The moving average against its formula."""

import pytest
import torch
from torch import nn

from pokegan.networks.spectral_norm import spectral_norm_, spectral_norms
from pokegan.training.ema import MovingAverage


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def test_a_half_life_halves_the_distance() -> None:
    source = network()
    average = MovingAverage(source, half_life_kimg=1.0)
    start = source[0].weight.detach().clone()
    with torch.no_grad():
        source[0].weight.add_(1.0)
    for _ in range(10):  # 1,000 images in all, long after the ramp
        average.update(images_seen=1_000_000, batch=100)
    torch.testing.assert_close(average.network[0].weight, start + 0.5)


def test_the_ramp_forgets_the_beginning() -> None:
    source = network()
    average = MovingAverage(source, half_life_kimg=100.0)
    start = source[0].weight.detach().clone()
    with torch.no_grad():
        source[0].weight.add_(1.0)
    average.update(images_seen=1000, batch=50)  # half-life 5 % of 1000: one half at once
    torch.testing.assert_close(average.network[0].weight, start + 0.5)


def test_a_half_life_of_zero_copies() -> None:
    source = network()
    average = MovingAverage(source, half_life_kimg=0.0)
    with torch.no_grad():
        source[0].weight.normal_()
    average.update(images_seen=64, batch=64)
    assert torch.equal(average.network[0].weight, source[0].weight)


def test_statistics_are_averaged_and_counts_copied() -> None:
    source = network()
    average = MovingAverage(source, half_life_kimg=0.05)
    source(torch.randn(8, 3, 2, 2) * 4 + 2)
    average.update(images_seen=10**6, batch=50)
    expected = source[1].running_mean / 2  # from 0, half of the way
    torch.testing.assert_close(average.network[1].running_mean, expected)
    assert average.network[1].num_batches_tracked == 1


def test_the_average_is_apart_from_the_network() -> None:
    source = network()
    average = MovingAverage(source, half_life_kimg=1.0)
    assert not average.network.training
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    assert all(parameter.requires_grad for parameter in source.parameters())
    pointers = {parameter.data_ptr() for parameter in source.parameters()}
    assert not pointers & {parameter.data_ptr() for parameter in average.network.parameters()}


@pytest.mark.parametrize("seen", [64, 6400])
def test_an_average_of_a_constant_is_the_constant(seen: int) -> None:
    source = network()
    average = MovingAverage(source, half_life_kimg=1.0)
    average.update(seen, 64)
    torch.testing.assert_close(average.network[0].weight, source[0].weight, rtol=0, atol=1e-7)


def test_the_average_of_a_turning_weight_keeps_a_spectral_norm_of_one() -> None:
    network = nn.Linear(2, 2, bias=False)
    (norm,) = spectral_norms(spectral_norm_(network))
    weight = network.parametrizations.weight.original.detach()
    weight.copy_(torch.tensor([1.0, 0.2]).diag())
    norm.reset(torch.Generator().manual_seed(1))
    average = MovingAverage(network, 0.01)
    weight.copy_(torch.tensor([0.2, 1.0]).diag())
    norm.reset(torch.Generator().manual_seed(2))
    average.update(1000, 10)  # a half-life: the mean of both weights is 0.6 on the diagonal
    torch.testing.assert_close(average.network.weight, torch.eye(2), rtol=1e-4, atol=1e-4)
