"""The one place where the names in a config become objects."""

import json
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pokegan.config import (
    LatentConfig,
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
    RunConfig,
    interval,
)
from pokegan.data.batches import Augmentation, BatchSource, ResidentSource
from pokegan.data.packed import PackedImages
from pokegan.errors import ConfigError
from pokegan.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from pokegan.networks.layers import init_normal
from pokegan.objectives.adversarial import AdversarialObjective
from pokegan.objectives.labels import LabelRule, Labels
from pokegan.objectives.losses import adversarial_loss
from pokegan.ops.random import Stream
from pokegan.training.ema import MovingAverage
from pokegan.training.hardware import choose_device, choose_precision
from pokegan.training.latents import draw
from pokegan.training.step import EagerStep

GENERATORS: dict[str, Callable[..., nn.Module]] = {"dcgan": DCGANGenerator}
DISCRIMINATORS: dict[str, Callable[..., nn.Module]] = {"dcgan": DCGANDiscriminator}
INIT_STD = 0.02


@dataclass(frozen=True)
class Parts:
    """What a run is made of."""

    device: torch.device
    dtype: torch.dtype
    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    ema: MovingAverage
    step: EagerStep
    source: BatchSource


def build(config: RunConfig, packed: PackedImages) -> Parts:
    """Return the parts of the run that `config` describes, initialised by its seed."""
    device = choose_device(config.training.device)
    dtype = choose_precision(config.training.precision, device)
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32; bf16 is there for speed
    networks = build_networks(config)
    for network in networks.values():
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's
    optimizers = {
        "generator": build_optimizer(networks["generator"], config.generator_optimizer),
        "discriminator": build_optimizer(networks["discriminator"], config.discriminator_optimizer),
    }
    objective = build_objective(config, networks)
    step = EagerStep(networks, optimizers, objective.phases(), dtype == torch.bfloat16, device.type)
    augmentation = Augmentation(config.data.flip, config.data.shift)
    source = ResidentSource(packed, config.training.seed, device, dtype, augmentation)
    ema = MovingAverage(networks["generator"], config.training.ema_kimg)
    return Parts(device, dtype, networks, optimizers, ema, step, source)


def check(config: RunConfig) -> None:
    """Raise ConfigError for what can be known to be wrong before any picture is touched."""
    choose_device(config.training.device)
    build_networks(config)
    uses_targets = adversarial_loss(config.objective.loss).uses_targets
    if config.objective.label_smoothing > 0 and not uses_targets:
        raise ConfigError(
            f"--loss {config.objective.loss} has no targets to smooth; add --label-smoothing 0"
        )


def build_networks(config: RunConfig) -> dict[str, nn.Module]:
    """Return the freshly initialised networks, the same for a seed on every device and rank."""
    random = torch.Generator().manual_seed(config.training.seed)
    with torch.random.fork_rng(devices=[]):  # what constructors draw is counted too
        torch.manual_seed(config.training.seed)
        networks = {
            "generator": build_generator(config.generator, config.latent, config.data.size),
            "discriminator": build_discriminator(config.discriminator, config.data.size),
        }
    for network in networks.values():
        init_normal(network, INIT_STD, random)
    return networks


def build_generator(network: NetworkConfig, latent: LatentConfig, size: int) -> nn.Module:
    """Return the generator that `network` names, on the CPU."""
    return _construct("generator", GENERATORS, network, {"size": size, "latent_size": latent.size})


def build_discriminator(network: NetworkConfig, size: int) -> nn.Module:
    """Return the discriminator that `network` names, on the CPU."""
    return _construct("discriminator", DISCRIMINATORS, network, {"size": size})


def build_optimizer(network: nn.Module, settings: OptimizerConfig) -> torch.optim.Optimizer:
    """Return fused Adam over the network's parameters."""
    return torch.optim.Adam(
        network.parameters(),
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=True,
    )


def build_objective(config: RunConfig, networks: dict[str, nn.Module]) -> AdversarialObjective:
    """Return the objective over `networks`."""
    streams = {"discriminator": Stream.LATENT, "generator": Stream.GENERATOR_LATENT}

    def latents(samples: Tensor, step: Tensor, phase: str) -> Tensor:
        return draw(config.latent, config.training.seed, streams[phase], step, samples)

    return AdversarialObjective(
        networks["generator"],
        networks["discriminator"],
        latents,
        adversarial_loss(config.objective.loss),
        Labels(build_label_rule(config.objective), config.training.seed),
        config.objective.share_fakes,
        config.objective.discriminator_steps,
    )


def build_label_rule(objective: ObjectiveConfig) -> LabelRule:
    """Return how the discriminator's targets are drawn."""
    rule = LabelRule.smoothed(
        objective.label_smoothing,
        objective.label_noise,
        objective.label_swap,
        objective.smooth_fakes,
    )
    return LabelRule(
        interval("--real-labels", objective.real_labels) or rule.real,
        interval("--fake-labels", objective.fake_labels) or rule.fake,
        rule.swap,
    )


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
