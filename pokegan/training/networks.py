"""Networks by the names that a config gives them."""

import dataclasses
import json
import typing
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pokegan.config import LatentConfig, NetworkConfig, RunConfig
from pokegan.errors import ConfigError
from pokegan.networks.aegan import (
    AEGANDiscriminator,
    AEGANEncoder,
    AEGANGenerator,
    AEGANLatentDiscriminator,
)
from pokegan.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from pokegan.networks.layers import initialise
from pokegan.networks.pokegan import PokeganDiscriminator, PokeganGenerator
from pokegan.networks.progressive import Growable
from pokegan.networks.resnet import ResNetDiscriminator, ResNetGenerator

Make = type[nn.Module]
GENERATORS: dict[str, Make] = {
    "dcgan": DCGANGenerator,
    "resnet": ResNetGenerator,
    "pokegan": PokeganGenerator,
    "aegan": AEGANGenerator,
}
DISCRIMINATORS: dict[str, Make] = {
    "dcgan": DCGANDiscriminator,
    "resnet": ResNetDiscriminator,
    "pokegan": PokeganDiscriminator,
    "aegan": AEGANDiscriminator,
}
ENCODERS: dict[str, Make] = {"aegan": AEGANEncoder}
LATENT_DISCRIMINATORS: dict[str, Make] = {"aegan": AEGANLatentDiscriminator}

ROLES = {
    "generator": GENERATORS,
    "discriminator": DISCRIMINATORS,
    "encoder": ENCODERS,
    "latent_discriminator": LATENT_DISCRIMINATORS,
}


def build_networks(config: RunConfig, size: int | None = None) -> dict[str, nn.Module]:
    """Return the freshly initialised networks, the same for a seed on every device and rank.

    Args:
        config: names and options.
        size: of the pictures, for a stage of growth; else the config's.
    """
    described = {"generator": config.generator, "discriminator": config.discriminator}
    if config.encoder is not None and config.latent_discriminator is not None:
        described["encoder"] = config.encoder
        described["latent_discriminator"] = config.latent_discriminator
    given = {"size": size or config.data.size, "latent_size": config.latent.size}
    wanted = {
        "generator": ("size", "latent_size"),
        "discriminator": ("size",),
        "encoder": ("size", "latent_size"),
        "latent_discriminator": ("latent_size",),
    }
    random = torch.Generator().manual_seed(config.training.seed)
    networks: dict[str, nn.Module] = {}
    with torch.random.fork_rng(devices=[]):  # what constructors draw is counted too
        torch.manual_seed(config.training.seed)
        for role, network in described.items():
            arguments = {name: given[name] for name in wanted[role]}
            networks[role] = _construct(role, network, arguments)
    for role, made in networks.items():
        initialise(made, described[role].init, random)
    return networks


def grown_options(config: RunConfig) -> RunConfig:
    """Return `config` with networks that keep the widths of the last stage in every stage.

    Raises:
        ConfigError: the networks cannot grow.
    """
    parts: dict[str, Any] = {}
    for role in ("generator", "discriminator"):
        network: NetworkConfig = getattr(config, role)
        make = ROLES[role].get(network.name)
        if not (isinstance(make, type) and issubclass(make, Growable)):
            able = [name for name, one in ROLES[role].items() if issubclass(one, Growable)]
            raise ConfigError(f"--stages: the {role} {network.name} does not grow; use {able[0]}")
        options = {**network.options, "final_size": config.data.size}
        parts[role] = dataclasses.replace(network, options=options)
    return dataclasses.replace(
        config, generator=parts["generator"], discriminator=parts["discriminator"]
    )


def build_generator(network: NetworkConfig, latent: LatentConfig, size: int) -> nn.Module:
    """Return the generator that `network` names, on the CPU, its weights not initialised."""
    return _construct("generator", network, {"size": size, "latent_size": latent.size})


def _construct(role: str, network: NetworkConfig, given: Mapping[str, Any]) -> nn.Module:
    """Call a network's constructor, with messages instead of tracebacks for wrong options."""
    known, role = ROLES[role], role.replace("_", " ")
    if network.name not in known:
        raise ConfigError(f"{role} {network.name!r}: choose one of {', '.join(known)}")
    make = known[network.name]
    hints = typing.get_type_hints(make.__init__)
    allowed = set(hints) - set(given) - {"return"}
    unknown = sorted(set(network.options) - allowed)
    if unknown:
        raise ConfigError(
            f"{role} {network.name} has no option {unknown[0]!r}; it has "
            f"{', '.join(sorted(allowed))}"
        )
    for key, value in network.options.items():
        _check_option(f"{role} {network.name}: option {key}", hints[key], value)
    return make(**given, **network.options)


def _check_option(what: str, hint: Any, value: Any) -> None:
    """Refuse a value that the constructor's annotation does not allow."""
    if hint in (bool, int, str, float):
        wanted, fits = hint.__name__, type(value) is hint or (hint is float and type(value) is int)
    else:
        wanted = "list of whole numbers of 1 and more, such as [64, 32]"
        fits = isinstance(value, list | tuple) and bool(value)
        fits = fits and all(type(item) is int and item >= 1 for item in value)
    if not fits:
        raise ConfigError(f"{what} is {json.dumps(value)}; a {wanted} is wanted (as JSON)")
