"""PokeGAN's networks: the project's parameter counts, arithmetic written anew, sizes, options."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pokegan.errors import ConfigError
from pokegan.networks.layers import NORMS
from pokegan.networks.pokegan import PokeganDiscriminator, PokeganGenerator
from pokegan.networks.spectral_norm import spectral_norms

SMALL = (10, 8, 6, 4)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def seeded(shape: tuple[int, ...], seed: int = 3) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def shaken(network: nn.Module) -> nn.Module:
    """Move every parameter and statistic away from its special first value."""
    random = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point() and not name.endswith(("_u", "_v", "_sigma")):
                value += 0.2 * torch.rand(value.shape, generator=random)
    return network


def test_the_counts_are_those_of_the_project() -> None:
    assert parameters(PokeganGenerator()) == 1_475_360
    assert parameters(PokeganDiscriminator()) == 392_993


def normalised(x: Tensor, state: dict[str, Tensor], layer: str) -> Tensor:
    """Batch norm by the running statistics, as arXiv 1502.03167 has it, and the leaky ReLU."""
    mean, var, weight, bias = (
        state[f"{layer}.{name}"].view(1, -1, 1, 1)
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    y = (x - mean) / torch.sqrt(var + 1e-5) * weight + bias
    return torch.where(y > 0, y, 0.2 * y)


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (5, 2)])
def test_the_generator_computes_what_its_page_says(kernel: int, padding: int) -> None:
    network = shaken(PokeganGenerator(32, 7, channels=(8, 6, 4), kernel=kernel)).double().eval()
    state = network.state_dict()
    latents = seeded((3, 7)).double()
    x = (latents @ state["linear.weight"].T + state["linear.bias"]).reshape(3, 8, 4, 4)
    for block in range(2):
        x = F.conv_transpose2d(x, state[f"hidden.{block}.0.weight"], None, 2, padding, 1)
        x = normalised(x, state, f"hidden.{block}.1")
    x = F.conv_transpose2d(x, state["last.0.weight"], None, 2, padding, 1).tanh()
    torch.testing.assert_close(network(latents), x)


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (5, 2)])
def test_the_discriminator_computes_what_its_page_says(kernel: int, padding: int) -> None:
    network = shaken(PokeganDiscriminator(32, channels=(4, 6, 8), kernel=kernel)).double().eval()
    state = network.state_dict()
    pictures = x = seeded((3, 3, 32, 32)).double()
    for block in ("first", "hidden.0", "hidden.1"):
        x = F.conv2d(x, state[f"{block}.0.weight"], None, 2, padding)
        x = normalised(x, state, f"{block}.1")
    features = x.reshape(3, -1)
    logits = features @ state["linear.weight"][0] + state["linear.bias"]
    torch.testing.assert_close(network(pictures), logits)
    torch.testing.assert_close(network.features(pictures), features)


def test_logits_and_features_are_of_one_pass() -> None:
    network = PokeganDiscriminator(16, channels=(4, 6), dropout=0.5)
    pictures = seeded((2, 3, 16, 16))
    logits, features = network.logits_and_features(pictures)
    torch.testing.assert_close(network.linear(features)[:, 0], logits)
    assert not torch.equal(network.features(pictures), features)  # other masks
    network.eval()
    assert torch.equal(network.features(pictures), network.features(pictures))


@pytest.mark.parametrize("base", [3, 4, 5, 8])
@pytest.mark.parametrize("kernel", [3, 5])
def test_any_size_that_is_the_base_times_a_power_of_two(base: int, kernel: int) -> None:
    for power in range(1, 7):
        size = base << power
        if not 16 <= size <= 256:
            continue
        generator = PokeganGenerator(size, 5, base, (6, 5, 4, 3), kernel=kernel)
        discriminator = PokeganDiscriminator(size, base, (3, 4, 5, 6), kernel=kernel)
        pictures = generator(seeded((2, 5)))
        assert pictures.shape == (2, 3, size, size)
        assert pictures.abs().max() <= 1
        assert discriminator(pictures).shape == (2,)
        assert discriminator.features(pictures).shape == (2, min(2 + power, 6) * base * base)


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_trains_and_leaves_no_parameter_out(norm: str) -> None:
    generator = PokeganGenerator(32, 5, channels=SMALL, norm=norm)
    discriminator = PokeganDiscriminator(32, channels=SMALL[::-1], norm=norm)
    discriminator(generator(seeded((4, 5)))).square().sum().backward()
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert len(spectral_norms(generator)) == len(spectral_norms(discriminator))
    assert bool(spectral_norms(generator)) == (norm == "spectral")


@pytest.mark.parametrize("norm", NORMS)
def test_a_hidden_convolution_has_a_bias_where_its_norm_has_none(norm: str) -> None:
    wanted = norm in ("lrn", "spectral", "none")
    generator = PokeganGenerator(32, 5, channels=SMALL, norm=norm)
    discriminator = PokeganDiscriminator(32, channels=SMALL[::-1], norm=norm)
    blocks = [*generator.hidden, discriminator.first, *discriminator.hidden]
    assert [block[0].bias is not None for block in blocks] == [wanted] * len(blocks)
    assert generator.last[0].bias is None
    assert PokeganGenerator(16, 5, channels=SMALL, bias=True).last[0].bias is not None


def test_a_stage_has_the_inner_layers_of_the_final_size() -> None:
    full = PokeganGenerator(64, 5, channels=SMALL)
    stage = PokeganGenerator(16, 5, channels=SMALL, final_size=64)
    assert stage.linear.weight.shape == full.linear.weight.shape
    assert stage.hidden[0][0].weight.shape == full.hidden[0][0].weight.shape
    assert PokeganGenerator(16, 5, channels=SMALL).linear.out_features == 6 * 16
    judge = PokeganDiscriminator(16, channels=SMALL[::-1], final_size=128)  # 10 at 8 px too
    assert [judge.first[0].out_channels, judge.hidden[0][0].out_channels] == [10, 10]


@pytest.mark.parametrize("kind", [PokeganGenerator, PokeganDiscriminator])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 65}, "--size 65: .* power of two"),
        ({"size": 48}, "--size 48: .* 32 and 64"),
        ({"size": 16, "base": 16}, "--size 16"),
        ({"norm": "group"}, "norm 'group': choose one of"),
        ({"activation": "gelu"}, "activation 'gelu': choose one of"),
        ({"dropout": 1.0}, "dropout 1: "),
        ({"kernel": 4}, "kernel 4: choose one of 3, 5"),
        ({"size": 64, "final_size": 32}, "final_size 32: at least the size of 64 px"),
        ({"size": 16, "final_size": 40}, "--size 40"),
    ],
)
def test_wrong_options_are_refused(kind: type, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**options)
