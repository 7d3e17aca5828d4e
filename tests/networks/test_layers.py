"""Shared layers: norms against their papers' formulas, initialisations against their statistics."""

import copy
import math

import pytest
import torch
from torch import nn

from pokegan.errors import ConfigError
from pokegan.networks.layers import activation_layer, initialise, norm_layer
from pokegan.networks.spectral_norm import spectral_norm_, spectral_norms

MAPS = torch.randn(4, 6, 5, 5, generator=torch.Generator().manual_seed(2)) * 3 + 1


@pytest.mark.parametrize(
    ("name", "over"), [("batch", (0, 2, 3)), ("instance", (2, 3)), ("layer", (1, 2, 3))]
)
def test_a_norm_takes_mean_and_variance_over_its_papers_axes(name, over) -> None:
    norm = norm_layer(name, 6)
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1.0, 7))
        norm.bias.copy_(torch.arange(6.0))
    mean = MAPS.mean(over, keepdim=True)
    variance = (MAPS - mean).square().mean(over, keepdim=True)
    normalised = (MAPS - mean) / (variance + 1e-5).sqrt()
    expected = normalised * torch.arange(1.0, 7)[:, None, None] + torch.arange(6.0)[:, None, None]
    torch.testing.assert_close(norm(MAPS), expected, rtol=1e-5, atol=1e-5)


def test_local_response_norm_divides_by_the_neighbours() -> None:
    maps = MAPS * 100  # so that the divisor is far from 1
    expected = torch.empty_like(maps)
    for c in range(6):
        near = maps[:, max(0, c - 2) : c + 3]
        expected[:, c] = maps[:, c] / (1 + 1e-4 / 5 * near.square().sum(1)) ** 0.75
    torch.testing.assert_close(norm_layer("lrn", 6)(maps), expected, rtol=1e-5, atol=1e-4)
    assert not torch.allclose(expected, maps, rtol=0.1)


@pytest.mark.parametrize("name", ["none", "spectral"])
def test_no_module_where_no_norm_is_due(name) -> None:
    assert norm_layer(name, 6) is None


def test_activations() -> None:
    values = torch.tensor([-2.0, 0.0, 3.0])
    assert activation_layer("relu")(values.clone()).tolist() == [0, 0, 3]
    assert activation_layer("lrelu")(values.clone()).tolist() == pytest.approx([-0.4, 0, 3])
    assert activation_layer("lrelu", 0.01)(values.clone()).tolist() == pytest.approx([-0.02, 0, 3])
    activation_layer("lrelu", inplace=False)(values)
    assert values.tolist() == [-2, 0, 3]


@pytest.mark.parametrize("slope", [-0.1, 1.0, math.nan])
def test_a_slope_that_is_no_leak_is_refused(slope) -> None:
    with pytest.raises(ConfigError, match=r"slope .* at least 0 and below 1"):
        activation_layer("lrelu", slope)


@pytest.mark.parametrize(
    "make", [lambda: norm_layer("group", 4), lambda: activation_layer("gelu"), lambda: started("x")]
)
def test_an_unknown_name_is_refused(make) -> None:
    with pytest.raises(ConfigError, match="choose one of"):
        make()


def started(name: str, spectral: bool = False) -> nn.Sequential:
    network = nn.Sequential(
        nn.Conv2d(16, 64, 4),
        nn.BatchNorm2d(64),
        nn.ConvTranspose2d(64, 32, 3),
        nn.GroupNorm(1, 32),
        nn.Linear(40, 500),
        nn.InstanceNorm2d(3, affine=True),
        nn.InstanceNorm2d(3),
        nn.LocalResponseNorm(5),
    )
    if spectral:
        spectral_norm_(network)
    for parameter in network.parameters():
        nn.init.constant_(parameter, 7)
    initialise(network, name, torch.Generator().manual_seed(11))
    return network


@pytest.mark.parametrize("name", ["normal", "xavier", "kaiming"])
def test_biases_start_at_zero_and_norms_at_one(name) -> None:
    network = started(name)
    for index in (0, 1, 2, 3, 4, 5):
        assert network[index].bias.abs().max() == 0
    for index in (1, 3, 5):
        assert network[index].weight.mean().item() == pytest.approx(1, abs=0.05)
        if name != "normal":
            assert (network[index].weight == 1).all()


def test_normal_has_the_deviation_of_dcgan() -> None:
    network = started("normal")
    for index in (0, 2, 4):
        weight = network[index].weight
        assert weight.std().item() == pytest.approx(0.02, rel=0.03)
        assert abs(weight.mean().item()) < 1e-3
    assert network[1].weight.std().item() == pytest.approx(0.02, rel=0.4)


def test_xavier_is_uniform_within_its_bound() -> None:
    network = started("xavier")
    fans = {0: 16 * (16 + 64), 2: 9 * (64 + 32), 4: 40 + 500}
    for index, fans_together in fans.items():
        bound = math.sqrt(6 / fans_together)
        weight = network[index].weight
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert weight.abs().max().item() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)


def test_kaiming_keeps_the_gradients_size() -> None:
    network = started("kaiming")
    for index, fan_out in {0: 64 * 16, 2: 64 * 9}.items():
        deviation = math.sqrt(2 / ((1 + 0.2**2) * fan_out))
        assert network[index].weight.std().item() == pytest.approx(deviation, rel=0.03)


def test_kaiming_leaves_a_logit_of_moderate_size() -> None:
    """By fan_out a layer of one output would have weights of variance 2: logits in the dozens."""
    weight = started("kaiming")[4].weight
    bound = 1 / math.sqrt(weight.shape[1])
    assert weight.abs().max().item() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)


@pytest.mark.parametrize("index", [0, 2, 4])
def test_pytorch_is_what_its_layers_start_with(index) -> None:
    """Measured on layers that PyTorch itself initialises: the same range, and all of it used."""
    ours = started("pytorch")[index]
    torch.manual_seed(3)
    theirs = copy.deepcopy(ours)
    theirs.reset_parameters()
    for own, other, near in ((ours.weight, theirs.weight, 0.03), (ours.bias, theirs.bias, 0.4)):
        assert own.std().item() == pytest.approx(other.std().item(), rel=near)
        assert own.abs().max().item() == pytest.approx(other.abs().max().item(), rel=near)
        assert not torch.equal(own, other)


def test_pytorch_leaves_norms_as_they_are_made() -> None:
    for index in (1, 3, 5):
        norm = started("pytorch")[index]
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()


@pytest.mark.parametrize("name", ["normal", "xavier", "kaiming", "pytorch"])
def test_draws_are_the_generators_and_spectral_norms_start_on_them(name) -> None:
    plain, normed = started(name), started(name, spectral=True)
    for one, two in zip(plain, started(name), strict=True):
        for left, right in zip(one.parameters(), two.parameters(), strict=True):
            assert torch.equal(left, right)
    original = normed[0].parametrizations.weight.original
    assert torch.equal(plain[0].weight, original)
    assert len(spectral_norms(normed)) == 1
    sigma = torch.linalg.svdvals(original.detach().flatten(1))[0]
    torch.testing.assert_close(normed[0].weight, original / sigma, rtol=0.05, atol=1e-3)
