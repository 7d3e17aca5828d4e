"""The recipes of the five projects have the parameters and the settings of these projects."""

import dataclasses
from typing import Any

import pytest
from torch import nn

from pokegan import recipes
from pokegan.config import RunConfig, override
from pokegan.training.build import build_label_rule, loss_settings
from pokegan.training.checks import check
from pokegan.training.networks import build_networks, grown_options
from pokegan.training.stages import Cycle, Stage, parse_stages

# dcgan-fc prints its layers, not their parameters: (inputs, outputs, kernel, bias, norm behind it)
FC_GENERATOR = [
    (100, 512 * 4**2, 1, True, False),
    *((2 * width, width, 4, False, True) for width in (256, 128, 64, 32)),
    (32, 3, 3, False, False),
]
FC_DISCRIMINATOR = [
    (3, 32, 4, False, False),
    *((width // 2, width, 4, False, True) for width in (64, 128, 256)),
    (256 * 4**2, 1, 1, True, False),
]
FC_128_GENERATOR = [
    (100, 1024 * 8**2, 1, True, False),
    *((2 * width, width, 4, False, True) for width in (512, 256, 128, 64)),
    (64, 3, 3, False, False),
]
FC_128_DISCRIMINATOR = [
    (3, 64, 4, False, False),
    *((width // 2, width, 4, False, True) for width in (128, 256)),
    (256, 512, 3, False, True),
    (512, 1024, 4, False, True),
    (1024 * 8**2, 1, 1, True, False),
]


def listed(layers: list[tuple[int, int, int, bool, bool]]) -> int:
    return sum(i * o * k * k + o * bias + 2 * o * norm for i, o, k, bias, norm in layers)


COUNTS = {
    "hpml": {"generator": 692_096, "discriminator": 661_376},
    "gan-pokemon-dcgan": {"generator": 3_576_704, "discriminator": 2_763_776},
    "gan-pokemon-sngan": {"generator": 3_576_704, "discriminator": 2_763_776},
    "gan-pokemon-resnet": {"generator": 401_731, "discriminator": 264_769},
    "dcgan-fc": {"generator": listed(FC_GENERATOR), "discriminator": listed(FC_DISCRIMINATOR)},
    "dcgan-fc-128": {
        "generator": listed(FC_128_GENERATOR),
        "discriminator": listed(FC_128_DISCRIMINATOR),
    },
    "dcgan-deep": {"generator": 3_837_376, "discriminator": 44_611_328},
    "dcgan-deep-noise": {"generator": 3_837_376, "discriminator": 44_611_328},
    "pokegan-dcgan": {"generator": 1_475_360, "discriminator": 392_993},
    "progan": {"generator": 1_475_360, "discriminator": 392_993},
    "aegan": {
        "generator": 2_378_280,
        "encoder": 9_078_224,
        "discriminator": 1_571_329,
        "latent_discriminator": 2_481,
    },
}


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_every_recipe_of_the_projects_is_tested_here() -> None:
    assert {*COUNTS} == {*SETTINGS, VARIANT} == {*recipes.RECIPES} - {"house-dcgan"}


@pytest.mark.parametrize("name", COUNTS)
def test_the_networks_have_the_parameters_of_the_project(name: str) -> None:
    made = {role: parameters(one) for role, one in build_networks(recipes.get(name)).items()}
    assert made == COUNTS[name]


def test_the_last_stage_of_progan_is_the_network_of_pokegan() -> None:
    grown = build_networks(grown_options(recipes.get("progan")), 64)
    plain = build_networks(recipes.get("pokegan-dcgan"))
    for role, network in grown.items():
        shapes = {name: value.shape for name, value in plain[role].state_dict().items()}
        assert {name: value.shape for name, value in network.state_dict().items()} == shapes


def optimizer(lr: float, betas: tuple[float, float], eps: float = 1e-8, decay: float = 0.0) -> Any:
    return {"lr": lr, "beta1": betas[0], "beta2": betas[1], "eps": eps, "weight_decay": decay}


DCGAN = (0.5, 0.999)
HPML = {
    "size": 64,
    "batch": 128,
    "epochs": 500,
    "latent": (16, "normal"),
    "loss": "bce",
    "adam": optimizer(2.8e-4, DCGAN),
    "init": "normal",
    "fit": "crop",
    "augmentation": {},
    "labels": ((1.0, 1.0), (0.0, 0.0), 0.0),
    "share_fakes": True,
}
GAN_POKEMON = HPML | {
    "epochs": 1000,
    "latent": (100, "normal"),
    "adam": optimizer(1e-4, (0.0, 0.9)),
    "fit": "pad",
    "augmentation": {"flip": True},
    "share_fakes": False,
}
FC = HPML | {
    "batch": 32,
    "latent": (100, "uniform"),
    "adam": optimizer(2e-4, (0.5, 0.99)),
    "fit": "pad",
    "labels": ((0.9, 0.9), (0.0, 0.0), 0.0),
    "share_fakes": False,
}
POKEGAN = HPML | {
    "batch": 32,
    "epochs": 400,
    "latent": (96, "normal"),
    "adam": optimizer(1e-3, DCGAN, 1e-6),
    "init": "kaiming",
    "fit": "pad",
    "augmentation": {
        "flip": True,
        "brightness": 0.3,
        "contrast": 0.2,
        "saturation": 0.1,
        "rotation": 15.0,
    },
    "labels": ((0.85, 0.95), (0.05, 0.15), 0.03),
    "share_fakes": False,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "hpml": HPML,
    "gan-pokemon-dcgan": GAN_POKEMON,
    "gan-pokemon-sngan": GAN_POKEMON,
    "gan-pokemon-resnet": GAN_POKEMON | {"init": "xavier"},
    "dcgan-fc": FC,
    "dcgan-fc-128": FC | {"size": 128},
    "dcgan-deep": HPML
    | {
        "size": 128,
        "batch": 64,
        "epochs": 50,
        "latent": (128, "normal"),
        "adam": optimizer(1e-4, DCGAN),
        "init": "pytorch",
        "share_fakes": False,
    },
    "pokegan-dcgan": POKEGAN,
    "progan": POKEGAN | {"epochs": 900},
    "aegan": HPML
    | {
        "size": 96,
        "batch": 32,
        "epochs": 1000,
        "adam": optimizer(2e-4, DCGAN, decay=1e-8),
        "discriminator_adam": optimizer(1e-4, DCGAN, decay=1e-8),
        "fit": "pad",
        "augmentation": {"flip": True, "shift": 5, "hue": 0.5},
        "share_fakes": False,
    },
}
VARIANT = "dcgan-deep-noise"
CHANGES = ("flip", "shift", "brightness", "contrast", "saturation", "hue", "rotation")


def settings_of(config: RunConfig) -> dict[str, Any]:
    rule = build_label_rule(config.objective)
    assert config.generator.init == config.discriminator.init
    augmentation = {name: getattr(config.data, name) for name in CHANGES}
    found = {
        "size": config.data.size,
        "batch": config.training.batch,
        "epochs": config.length.epochs,
        "latent": (config.latent.size, config.latent.distribution),
        "loss": config.objective.loss,
        "adam": dataclasses.asdict(config.generator_optimizer),
        "init": config.generator.init,
        "fit": config.data.fit,
        "augmentation": {name: value for name, value in augmentation.items() if value},
        "labels": (pytest.approx(rule.real), pytest.approx(rule.fake), rule.swap),
        "share_fakes": config.objective.share_fakes,
    }
    if config.discriminator_optimizer != config.generator_optimizer:
        found["discriminator_adam"] = dataclasses.asdict(config.discriminator_optimizer)
    return found


@pytest.mark.parametrize("name", SETTINGS)
def test_the_settings_are_those_of_the_project(name: str) -> None:
    config = recipes.get(name)
    assert config.recipe == name
    assert settings_of(config) == SETTINGS[name]
    rules = loss_settings(config.objective)
    assert not rules.penalised
    assert (rules.discriminator_steps, rules.weight_clip) == (1, 0.0)
    assert (config.training.ema_kimg, config.schedule.rates) == (0.0, "constant")
    assert config.data.background == "white"


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_is_allowed_as_it_is(name: str) -> None:
    check(recipes.get(name).validated())


@pytest.mark.parametrize("name", [name for name in SETTINGS if name.startswith("gan-pokemon")])
def test_the_wgan_of_gan_pokemon(name: str) -> None:
    rules = loss_settings(
        override(recipes.get(name), {"objective.loss": "wgan-gp"}).validated().objective
    )
    assert (rules.gradient_penalty, rules.discriminator_steps, rules.weight_clip) == (10.0, 5, 0.0)


def test_the_label_smoothing_of_gan_pokemon() -> None:
    config = override(recipes.get("gan-pokemon-dcgan"), {"objective.loss": "smooth-bce"})
    rule = build_label_rule(config.objective)
    assert (rule.real, rule.fake, rule.swap) == ((0.7, 1.2), (0.0, 0.2), 0.0)


def test_dcgan_deep_with_noise_differs_from_dcgan_deep_in_what_holds_its_discriminator_back() -> (
    None
):
    plain, noisy = (settings_of(recipes.get(name)) for name in ("dcgan-deep", VARIANT))
    changed = {name: noisy[name] for name in noisy if noisy[name] != plain.get(name)}
    assert changed == {
        "batch": 16,
        "init": "normal",
        "adam": optimizer(4e-4, DCGAN),
        "discriminator_adam": optimizer(1e-4, DCGAN),
        "labels": ((0.85, 0.95), (0.05, 0.15), 0.0),
    }


def test_the_stages_of_progan() -> None:
    config = recipes.get("progan")
    cycles = (Cycle(5e-4, 100), Cycle(2e-4, 200))
    stages = parse_stages(config.schedule.stages, config.data.size)
    assert stages == (Stage(16, cycles), Stage(32, cycles), Stage(64, cycles))
    assert config.length.epochs == sum(stage.epochs for stage in stages)


def test_the_weights_and_noise_of_aegan() -> None:
    config = recipes.get("aegan")
    assert dataclasses.asdict(config.autoencoding) == {
        "reconstruction": 1.0,
        "latent_reconstruction": 0.5,
        "generator": 0.005,
        "encoder": 0.1,
    }
    networks = build_networks(config)
    sigmas = {
        round(module.sigma, 4)
        for role in ("encoder", "discriminator")
        for module in networks[role].modules()
        if hasattr(module, "sigma")
    }
    assert sigmas == {0.02, round(0.02 * 2**0.5, 4)}  # two factors of .02 are drawn as one


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_config_of_every_recipe_survives_json(name: str) -> None:
    config = recipes.get(name).validated()
    assert RunConfig.from_json(config.to_json()) == config
    assert config.continues(config)
