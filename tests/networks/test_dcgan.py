"""DCGAN: parameter counts of the projects it comes from, shapes, options, sizes."""

import pytest
import torch
from torch import nn

from pokegan import recipes
from pokegan.errors import ConfigError
from pokegan.networks.attention import SelfAttention
from pokegan.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from pokegan.networks.layers import initialise, ladder
from pokegan.networks.spectral_norm import spectral_norms
from pokegan.training.networks import build_networks

SIZES = [16, 32, 64, 128, 256]
FC_GENERATOR = {"stem": "linear", "norm_first": False, "last_stride": 1}
FC_CHANNELS = (512, 256, 128, 64, 32)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_hpml_has_the_counts_of_its_project() -> None:
    networks = build_networks(recipes.get("hpml"))
    assert parameters(networks["generator"]) == 692_096
    assert parameters(networks["discriminator"]) == 661_376


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (
            DCGANGenerator(64, 100, activation="lrelu", dropout=0.5, dropout_first=True),
            3_576_704,
        ),
        (DCGANDiscriminator(64, norm="none"), 2_763_776),
        (DCGANDiscriminator(64, norm="spectral"), 2_763_776),
        (DCGANGenerator(128, 128, (512, 256, 128, 64, 32)), 3_837_376),
        (DCGANDiscriminator(128, (128, 256, 512, 1024, 2048), norm_first=True), 44_611_328),
    ],
    ids=["gan-pokemon G", "gan-pokemon D", "sngan D", "dcgan-deep G", "dcgan-deep D"],
)
def test_the_counts_of_the_projects(network: nn.Module, count: int) -> None:
    assert parameters(network) == count


def test_dcgan_fc_has_the_layers_of_its_listing() -> None:
    # (inputs, outputs, kernel, bias, batch norm behind it), as the project prints them
    generator = [(100, 8192, 1, True, False)]
    generator += [(2 * c, c, 4, False, True) for c in (256, 128, 64, 32)]
    generator += [(32, 3, 3, False, False)]
    discriminator = [(3, 32, 4, False, False)]
    discriminator += [(c // 2, c, 4, False, True) for c in (64, 128, 256)]
    discriminator += [(4096, 1, 1, True, False)]

    def count(listing: list[tuple[int, int, int, bool, bool]]) -> int:
        return sum(i * o * k * k + o * bias + 2 * o * norm for i, o, k, bias, norm in listing)

    network = DCGANGenerator(64, 100, FC_CHANNELS, **FC_GENERATOR)
    critic = DCGANDiscriminator(64, (32, 64, 128, 256), head="linear")
    assert (parameters(network), count(generator)) == (3_614_496, 3_614_496)
    assert (parameters(critic), count(discriminator)) == (694_657, 694_657)
    assert network(torch.zeros(2, 100)).shape == (2, 3, 64, 64)
    assert critic.features(torch.zeros(2, 3, 64, 64)).shape == (2, 4096)


def test_dcgan_fc_at_128_px_has_the_sides_of_its_project() -> None:
    channels = (1024, 512, 256, 128, 64)
    with torch.device("meta"):
        generator = DCGANGenerator(128, 100, channels, base=8, **FC_GENERATOR)
        critic = DCGANDiscriminator(128, channels[::-1], head="linear", keep_side=True, base=8)
        latents, pictures = torch.empty(2, 100), torch.empty(2, 3, 128, 128)
    made = sides_behind_convolutions(generator, latents)
    assert made == [(512, 16), (256, 32), (128, 64), (64, 128), (3, 128)]
    seen = sides_behind_convolutions(critic, pictures)
    assert seen == [(64, 64), (128, 32), (256, 16), (512, 16), (1024, 8)]
    convolutions = [m for m in critic.modules() if isinstance(m, nn.Conv2d)]
    assert [m.kernel_size[0] for m in convolutions] == [4, 4, 4, 3, 4]
    assert generator.layers[0].out_features == critic.head[1].in_features == 1024 * 8**2


def sides_behind_convolutions(network: nn.Module, inputs: torch.Tensor) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(lambda m, x, y: found.append((y.shape[1], y.shape[3])))
    network(inputs)
    return found


@pytest.mark.parametrize("size", [8, *SIZES])
@pytest.mark.parametrize("kernel", [3, 4, 5])
def test_shapes_at_every_size(size: int, kernel: int) -> None:
    generator = DCGANGenerator(size, 5, (16, 8, 8, 4), kernel=kernel)
    discriminator = DCGANDiscriminator(size, (4, 8, 8, 16), kernel=kernel)
    pictures = generator(torch.randn(2, 5))
    assert pictures.shape == (2, 3, size, size)
    assert pictures.abs().max() <= 1
    assert discriminator(pictures).shape == (2,)
    assert discriminator.features(pictures).shape == (
        2,
        (16 if size > 32 else min(8, size // 2)) * 4**2,
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("base", [4, 8])
def test_shapes_with_linear_ends_and_layers_that_keep_the_side(size: int, base: int) -> None:
    generator = DCGANGenerator(size, 5, (8, 8, 4), base=base, **FC_GENERATOR)
    ends = {"head": "linear", "keep_side": True, "base": base, "bias": True}
    discriminator = DCGANDiscriminator(size, (4, 8, 8), **ends)
    pictures = generator(torch.randn(2, 5))
    assert pictures.shape == (2, 3, size, size)
    assert discriminator(pictures).shape == (2,)


def test_an_odd_base_makes_its_own_sizes() -> None:
    pictures = DCGANGenerator(96, 5, (8, 4), base=3)(torch.zeros(2, 5))
    assert pictures.shape == (2, 3, 96, 96)
    assert DCGANDiscriminator(96, (4, 8), base=3)(pictures).shape == (2,)


def test_one_picture_gives_one_logit_not_a_scalar() -> None:
    assert DCGANDiscriminator(16, (4, 8), norm="none")(torch.zeros(1, 3, 16, 16)).shape == (1,)


def test_pictures_of_another_size_are_not_taken_for_more_pictures() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        DCGANDiscriminator(16, (4, 8))(torch.zeros(2, 3, 32, 32))


@pytest.mark.parametrize("size", [0, 1, 3, 4, 12, 63, 65, 96])
@pytest.mark.parametrize("kind", [DCGANGenerator, DCGANDiscriminator])
def test_a_size_that_cannot_be_made_is_refused(kind: type, size: int) -> None:
    with pytest.raises(ConfigError, match=f"--size {size}: .* power of two; the nearest are"):
        kind(size)


def test_the_ladder_keeps_the_end_near_the_picture() -> None:
    assert ladder(64, 4, (128, 128, 128, 64)) == (128, 128, 128, 64)
    assert ladder(16, 4, (512, 256, 128, 64)) == (128, 64)
    assert ladder(256, 4, (512, 256, 128, 64)) == (512, 512, 512, 256, 128, 64)
    assert ladder(16, 4, (512, 256, 128, 64), extra=1) == (256, 128, 64)
    assert ladder(96, 3, (8,)) == (8,) * 5
    with pytest.raises(ConfigError, match=r"base 1: .* at least 2 px"):
        ladder(64, 1, (8,))


def test_the_norm_is_where_the_project_has_it() -> None:
    def norms(kind: type, norm_first: bool) -> int:
        network = kind(64, channels=(4, 4, 4, 4), norm_first=norm_first)
        return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())

    for kind in (DCGANGenerator, DCGANDiscriminator):
        assert norms(kind, norm_first=True) == 4
        assert norms(kind, norm_first=False) == 3


@pytest.mark.parametrize("kind", [DCGANGenerator, DCGANDiscriminator])
@pytest.mark.parametrize(
    "option", [{"norm": "group"}, {"activation": "gelu"}, {"kernel": 6}, {"kernel": 2}]
)
def test_an_unknown_choice_is_refused(kind: type, option: dict[str, object]) -> None:
    ((name, value),) = option.items()
    with pytest.raises(ConfigError, match=f"{name} {value!r}: choose one of"):
        kind(64, **option)


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        (DCGANGenerator, {"stem": "fc"}),
        (DCGANGenerator, {"last_stride": 3}),
        (DCGANGenerator, {"dropout": 1.0}),
        (DCGANGenerator, {"attention": 64}),
        (DCGANGenerator, {"slope": 1.0}),
        (DCGANDiscriminator, {"head": "fc"}),
        (DCGANDiscriminator, {"dropout": -0.1}),
        (DCGANDiscriminator, {"attention": 2}),
        (DCGANDiscriminator, {"base": 0}),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(kind: type, option: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(option))} "):
        kind(64, **option)


@pytest.mark.parametrize("head", ["conv", "linear"])
@pytest.mark.parametrize("norm", ["layer", "spectral"])
def test_logits_are_the_head_of_the_features(head: str, norm: str) -> None:
    network = DCGANDiscriminator(16, (4, 8), norm=norm, head=head, bias=True)
    pictures = torch.randn(3, 3, 16, 16)
    logits, features = network.logits_and_features(pictures)
    assert features.shape == (3, 8 * 16)
    assert torch.equal(features, network.features(pictures))
    assert torch.equal(logits, network(pictures))
    last = network.head if head == "conv" else network.head[1]
    torch.testing.assert_close(logits, features @ last.weight.flatten() + last.bias)


def test_features_and_logits_share_one_dropout_mask() -> None:
    network = DCGANDiscriminator(16, (64, 64), norm="none", dropout=0.5)
    pictures = torch.randn(3, 3, 16, 16)
    logits, features = network.logits_and_features(pictures)
    torch.testing.assert_close(logits, features @ network.head.weight.flatten())
    assert not torch.equal(logits, network(pictures))
    network.eval()
    assert torch.equal(network(pictures), network(pictures))


def test_dropout_drops_whole_maps_where_it_was_asked_for_and_only_in_training() -> None:
    network = DCGANGenerator(16, 5, (64, 64), norm="none", dropout=0.5, dropout_first=True)
    torch.nn.init.uniform_(network.layers[0].weight, 0.1, 1)
    seen: list[torch.Tensor] = []
    network.layers[2].register_forward_hook(lambda m, x, y: seen.append(y))
    latents = torch.ones(8, 5)
    network(latents)
    first = network.layers[1](network.layers[0](latents[:, :, None, None]))
    dropped = (seen[0] == 0).flatten(2)  # [8, 64, 16]
    assert torch.equal(dropped.all(2), dropped.any(2))
    assert 0.35 < dropped.float().mean() < 0.65
    torch.testing.assert_close(seen[0][seen[0] != 0], 2 * first[seen[0] != 0])
    network.eval()
    assert torch.equal(network(latents), network(latents))
    everywhere = DCGANGenerator(16, 5, (8, 8), dropout=0.5)
    kinds = [type(module).__name__ for module in everywhere.modules()]
    assert kinds.count("Dropout2d") == 2


@pytest.mark.parametrize("kind", [DCGANGenerator, DCGANDiscriminator])
def test_spectral_is_on_every_layer_and_makes_sigma_one(kind: type) -> None:
    options = {"stem": "linear"} if kind is DCGANGenerator else {"head": "linear"}
    network = kind(16, channels=(8, 8), norm="spectral", attention=8, **options)
    initialise(network, "normal", torch.Generator().manual_seed(3))
    (norm,) = spectral_norms(network)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    layers += [m for m in network.modules() if isinstance(m, nn.Linear)]
    assert all(hasattr(layer, "parametrizations") for layer in layers)
    assert len(layers) == 3 + 4
    for _ in range(60):
        norm.forget()
        norm.refresh()
    for layer in layers:
        weight = layer.weight.detach()
        if isinstance(layer, nn.ConvTranspose2d):
            weight = weight.transpose(0, 1)
        largest = torch.linalg.svdvals(weight.flatten(1))[0].item()
        assert largest == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("norm", ["batch", "instance", "layer", "lrn", "spectral", "none"])
def test_every_norm_trains_in_both_networks(norm: str) -> None:
    generator = DCGANGenerator(16, 5, (8, 8), norm=norm, attention=8)
    discriminator = DCGANDiscriminator(16, (8, 8), norm=norm, attention=8)
    discriminator(generator(torch.randn(4, 5))).square().sum().backward()
    for network in (generator, discriminator):
        gradients = [parameter.grad for parameter in network.parameters()]
        assert all(g is not None and g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("norm", ["instance", "spectral"])
def test_the_derivative_of_a_penalty_on_gradients_equals_finite_differences(norm: str) -> None:
    torch.manual_seed(0)  # no activation changes its sign within the steps
    network = DCGANDiscriminator(16, (8, 8), norm=norm, attention=8).double().eval()
    (attention,) = (m for m in network.modules() if isinstance(m, SelfAttention))
    nn.init.ones_(attention.gamma)
    pictures = torch.randn(4, 3, 16, 16, dtype=torch.double, requires_grad=True)

    def penalty() -> torch.Tensor:
        (gradient,) = torch.autograd.grad(network(pictures).sum(), pictures, create_graph=True)
        return gradient.square().sum()

    weights = [p for p in network.parameters() if p.dim() == 4]
    directions = [torch.randn_like(weight) * 1e-6 for weight in weights]
    slopes = torch.autograd.grad(penalty(), weights)
    expected = sum((s * d).sum().item() for s, d in zip(slopes, directions, strict=True))
    values = []
    for step in (1, -2):
        with torch.no_grad():
            for weight, direction in zip(weights, directions, strict=True):
                weight += step * direction
        values.append(penalty().item())
    assert (values[0] - values[1]) / 2 == pytest.approx(expected, rel=1e-4)


def test_initialisation_is_dcgans_and_counted() -> None:
    networks = [DCGANGenerator(64, 100) for _ in range(2)]
    for network in networks:
        initialise(network, "normal", torch.Generator().manual_seed(4))
    first = networks[0].layers[0].weight
    assert abs(first.std().item() - 0.02) < 2e-4
    assert abs(networks[0].layers[1].weight.mean().item() - 1) < 0.01
    assert torch.equal(networks[0].layers[1].bias, torch.zeros(512))
    for one, two in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_same_seed_initialises_the_same_run() -> None:
    one, two = (build_networks(recipes.get("house-dcgan")) for _ in range(2))
    torch.manual_seed(99)  # the global state plays no part
    for name in one:
        for left, right in zip(one[name].parameters(), two[name].parameters(), strict=True):
            assert torch.equal(left, right)
