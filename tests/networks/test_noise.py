"""Noise layers: what they do to values, and that their numbers are counted."""

import math

import pytest
import torch
from torch import Tensor, nn

from pokegan.errors import ConfigError
from pokegan.networks.noise import (
    CountedNoise,
    Dropout,
    Dropout2d,
    GaussianNoise,
    MultiplicativeNoise,
    attach,
)
from pokegan.ops import random

LAYERS = [Dropout(0.3), Dropout2d(0.3), GaussianNoise(0.1), MultiplicativeNoise(0.1)]
STEP = torch.tensor(7)


def begun(samples: Tensor, network: int = 0, seed: int = 5) -> CountedNoise:
    counted = CountedNoise(seed, network)
    counted.begin(STEP, samples)
    return counted


def noisy(layer: nn.Module, values: Tensor, samples: Tensor, network: int = 0) -> Tensor:
    attach(layer, begun(samples, network))
    result: Tensor = layer.train()(values)
    attach(layer, None)
    return result


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_eval_mode_is_the_identity(layer: nn.Module) -> None:
    values = torch.randn(4, 8, 5, 5)
    assert layer.eval()(values) is values


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_a_picture_gets_the_same_noise_in_any_batch(layer: nn.Module) -> None:
    values = torch.randn(6, 8, 4, 4)
    samples = torch.arange(100, 106)
    whole = noisy(layer, values, samples)
    parts = [noisy(layer, values[i : i + 2], samples[i : i + 2]) for i in (0, 2, 4)]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, noisy(layer, values, samples + 1000))


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_calls_of_a_step_and_networks_have_numbers_of_their_own(layer: nn.Module) -> None:
    values, samples = torch.ones(4, 8, 4, 4), torch.arange(4)
    counted = begun(samples)
    attach(layer, counted)
    first, second = layer.train()(values), layer(values)
    counted.begin(STEP, samples)
    again = layer(values)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, noisy(layer, values, samples, network=1))


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_memory_format_does_not_change_the_noise(layer: nn.Module) -> None:
    values, samples = torch.randn(3, 8, 4, 4), torch.arange(3)
    interleaved = values.to(memory_format=torch.channels_last)
    assert torch.equal(noisy(layer, values, samples), noisy(layer, interleaved, samples))
    kept = noisy(layer, interleaved, samples)
    assert kept.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("passes", [1, 2])
def test_gaussian_layers_follow_the_normals_of_their_streams(passes: int, dtype) -> None:
    samples = torch.arange(5)
    values = torch.randn(5 * passes, 6, 4, 3, dtype=dtype)
    first = begun(samples, network=2).first
    draws = torch.cat(
        [random.normal(5, first + i, STEP, samples, 6 * 4 * 3) for i in range(passes)]
    )
    draws = draws.view(-1, 4, 3, 6).permute(0, 3, 1, 2)  # channels vary fastest
    added = values + (draws * 0.1).to(dtype)
    multiplied = values * (draws * 0.1 + 1).to(dtype)
    assert torch.equal(noisy(GaussianNoise(0.1), values, samples, network=2), added)
    assert torch.equal(noisy(MultiplicativeNoise(0.1), values, samples, network=2), multiplied)


def test_dropout_follows_the_uniforms_of_its_stream() -> None:
    samples = torch.arange(9)
    counted = begun(samples, network=2)
    draws = random.uniform(5, counted.first, STEP, samples, 40)
    expected = torch.where(draws >= 0.3, 1 / 0.7, 0.0)
    actual = noisy(Dropout(0.3), torch.ones(9, 40), samples, network=2)
    assert torch.allclose(actual, expected, rtol=1e-6)


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    dropped = noisy(Dropout(0.3), torch.ones(64, 16, 16, 16), torch.arange(64))
    count = dropped.numel()
    share = (dropped == 0).float().mean().item()
    assert abs(share - 0.3) < 5 * math.sqrt(0.21 / count)
    assert abs(dropped.mean().item() - 1) < 5 * math.sqrt(0.3 / 0.7 / count)


def test_dropout2d_drops_whole_feature_maps() -> None:
    dropped = noisy(Dropout2d(0.5), torch.ones(32, 32, 3, 3), torch.arange(32))
    maps = dropped.flatten(2)
    assert torch.equal(maps.amin(2), maps.amax(2))
    assert abs((maps[:, :, 0] == 0).float().mean().item() - 0.5) < 5 * 0.5 / 32


@pytest.mark.parametrize(
    ("layer", "mean"), [(GaussianNoise(0.2), 3.0), (MultiplicativeNoise(0.2 / 3), 3.0)]
)
def test_gaussian_noise_has_its_deviation(layer: nn.Module, mean: float) -> None:
    values = noisy(layer, torch.full((64, 8, 8, 8), mean), torch.arange(64))
    count = values.numel()
    assert abs(values.mean().item() - mean) < 5 * 0.2 / math.sqrt(count)
    assert abs(values.std().item() - 0.2) < 5 * 0.2 / math.sqrt(2 * count)


def test_a_batch_of_several_passes_over_the_samples() -> None:
    samples = torch.arange(4)
    twice = noisy(Dropout(0.5), torch.ones(8, 64), samples)
    assert torch.equal(twice[:4], noisy(Dropout(0.5), torch.ones(4, 64), samples))
    assert not torch.equal(twice[:4], twice[4:])
    with pytest.raises(RuntimeError, match="a batch of 6 is no multiple of the step's 4 samples"):
        noisy(Dropout(0.5), torch.ones(6, 64), samples)


def test_without_counted_numbers_pytorchs_generator_is_used() -> None:
    layer, values = Dropout(0.5).train(), torch.ones(8, 8)
    torch.manual_seed(1)
    first = layer(values)
    torch.manual_seed(1)
    assert torch.equal(first, layer(values))
    assert set(first.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("layer", [GaussianNoise(0.2), MultiplicativeNoise(0.2)], ids=repr)
def test_noise_of_pytorchs_generator_has_its_deviation(layer: nn.Module) -> None:
    values = layer.train()(torch.ones(64, 512, dtype=torch.bfloat16))
    assert values.dtype == torch.bfloat16
    assert abs(values.float().mean().item() - 1) < 5 * 0.2 / math.sqrt(values.numel()) + 1e-3
    assert abs(values.float().std().item() - 0.2) < 5e-3


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_gradient_is_that_of_the_same_noise(layer: nn.Module) -> None:
    values, samples = torch.randn(2, 3, 2, 2, dtype=torch.float64), torch.arange(2)

    def run(x: Tensor) -> Tensor:
        return noisy(layer, x, samples)

    assert torch.autograd.gradcheck(run, (values.requires_grad_(),))


def test_compiles_whole_and_keeps_bfloat16() -> None:
    layer = nn.Sequential(Dropout(0.4), GaussianNoise(0.1), MultiplicativeNoise(0.1)).train()
    values, samples = torch.randn(4, 6, 4, 4, dtype=torch.bfloat16), torch.arange(4)
    counted = CountedNoise(0, 0)
    attach(layer, counted)

    def step(x: Tensor, number: Tensor) -> Tensor:
        counted.begin(number, samples)
        result: Tensor = layer(x)
        return result

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for number in (torch.tensor(1), torch.tensor(2)):
        assert torch.equal(step(values, number), compiled(values, number))
    assert step(values, STEP).dtype == torch.bfloat16


def test_wrong_strengths_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"dropout 1: a probability in \[0, 1\) is wanted"):
        Dropout(1.0)
    with pytest.raises(ConfigError, match="noise -1: a number of 0 or more is wanted"):
        GaussianNoise(-1.0)
