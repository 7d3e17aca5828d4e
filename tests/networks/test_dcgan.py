"""DCGAN: parameter counts of the projects it comes from, shapes, sizes."""

import pytest
import torch

from pokegan import recipes
from pokegan.errors import ConfigError
from pokegan.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from pokegan.networks.layers import init_normal, ladder
from pokegan.training.build import build_networks


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_hpml_has_the_counts_of_its_project() -> None:
    networks = build_networks(recipes.get("hpml"))
    assert parameters(networks["generator"]) == 692_096
    assert parameters(networks["discriminator"]) == 661_376


def test_the_textbook_widths_have_the_counts_of_gan_pokemon() -> None:
    assert parameters(DCGANGenerator(64, 100, (512, 256, 128, 64))) == 3_576_704
    assert parameters(DCGANDiscriminator(64, (64, 128, 256, 512), norm="none")) == 2_763_776


@pytest.mark.parametrize("size", [8, 16, 32, 64, 128])
def test_shapes_at_every_size(size: int) -> None:
    generator = DCGANGenerator(size, 5, (16, 8, 8, 4))
    discriminator = DCGANDiscriminator(size, (4, 8, 8, 16))
    pictures = generator(torch.randn(3, 5))
    assert pictures.shape == (3, 3, size, size)
    assert pictures.abs().max() <= 1
    assert discriminator(pictures).shape == (3,)


def test_one_picture_gives_one_logit_not_a_scalar() -> None:
    assert DCGANDiscriminator(16, (4, 8), norm="none")(torch.zeros(1, 3, 16, 16)).shape == (1,)


@pytest.mark.parametrize("size", [4, 12, 63, 65, 96])
def test_a_size_that_cannot_be_made_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"--size {size}: .* power of two; the nearest are"):
        DCGANGenerator(size)


def test_the_ladder_keeps_the_end_near_the_picture() -> None:
    assert ladder(64, 4, (128, 128, 128, 64)) == (128, 128, 128, 64)
    assert ladder(16, 4, (512, 256, 128, 64)) == (128, 64)
    assert ladder(256, 4, (512, 256, 128, 64)) == (512, 512, 512, 256, 128, 64)


def test_the_norm_is_where_the_project_has_it() -> None:
    def norms(norm_first: bool) -> int:
        network = DCGANDiscriminator(64, (4, 4, 4, 4), norm_first=norm_first)
        return sum(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())

    assert norms(norm_first=True) == 4
    assert norms(norm_first=False) == 3


@pytest.mark.parametrize("kind", [DCGANGenerator, DCGANDiscriminator])
@pytest.mark.parametrize("option", [{"norm": "group"}, {"activation": "gelu"}])
def test_an_unknown_norm_or_activation_is_refused(kind: type, option: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="choose one of"):
        kind(64, **option)


def test_initialisation_is_dcgans_and_counted() -> None:
    networks = [DCGANGenerator(64, 100) for _ in range(2)]
    for network in networks:
        init_normal(network, 0.02, torch.Generator().manual_seed(4))
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
