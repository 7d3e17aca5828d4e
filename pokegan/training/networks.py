"""Networks by the names that a config gives them."""

import json
import typing
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pokegan.config import LatentConfig, NetworkConfig, RunConfig
from pokegan.errors import ConfigError
from pokegan.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from pokegan.networks.layers import initialise
from pokegan.networks.resnet import ResNetDiscriminator, ResNetGenerator

Make = Callable[..., nn.Module]
GENERATORS: dict[str, Make] = {"dcgan": DCGANGenerator, "resnet": ResNetGenerator}
DISCRIMINATORS: dict[str, Make] = {
    "dcgan": DCGANDiscriminator,
    "resnet": ResNetDiscriminator,
}
ENCODERS: dict[str, Make] = {}
LATENT_DISCRIMINATORS: dict[str, Make] = {}


def build_networks(config: RunConfig, size: int | None = None) -> dict[str, nn.Module]:
    """Return the freshly initialised networks, the same for a seed on every device and rank.

    Args:
        config: names and options.
        size: of the pictures, for a stage of growth; else the config's.
    """
    size = size or config.data.size
    random = torch.Generator().manual_seed(config.training.seed)
    latent = config.latent.size
    with torch.random.fork_rng(devices=[]):  # what constructors draw is counted too
        torch.manual_seed(config.training.seed)
        networks = {
            "generator": build_generator(config.generator, config.latent, size),
            "discriminator": _construct(
                "discriminator", DISCRIMINATORS, config.discriminator, {"size": size}
            ),
        }
        described = {"generator": config.generator, "discriminator": config.discriminator}
        if config.encoder is not None and config.latent_discriminator is not None:
            networks["encoder"] = _construct(
                "encoder", ENCODERS, config.encoder, {"size": size, "latent_size": latent}
            )
            networks["latent_discriminator"] = _construct(
                "latent discriminator",
                LATENT_DISCRIMINATORS,
                config.latent_discriminator,
                {"latent_size": latent},
            )
            described["encoder"] = config.encoder
            described["latent_discriminator"] = config.latent_discriminator
    for name, network in networks.items():
        initialise(network, described[name].init, random)
    return networks


def build_generator(network: NetworkConfig, latent: LatentConfig, size: int) -> nn.Module:
    """Return the generator that `network` names, on the CPU, its weights not initialised."""
    return _construct("generator", GENERATORS, network, {"size": size, "latent_size": latent.size})


def _construct(
    role: str,
    known: dict[str, Callable[..., nn.Module]],
    network: NetworkConfig,
    given: dict[str, Any],
) -> nn.Module:
    """Call a network's constructor, with messages instead of tracebacks for wrong options."""
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
