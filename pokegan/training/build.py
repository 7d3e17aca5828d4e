"""The one place where the names in a config become objects."""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pokegan.augment import AdaptiveAugment, DiffAugment
from pokegan.config import ObjectiveConfig, OptimizerConfig, RunConfig, interval
from pokegan.data.batches import BatchSource
from pokegan.data.loaders import Choice, PictureSet
from pokegan.data.options import RGB
from pokegan.networks.batch_norm import share
from pokegan.networks.noise import CountedNoise, attach
from pokegan.objectives.adversarial import AdversarialObjective
from pokegan.objectives.autoencoding import AutoencodingObjective, TermWeights
from pokegan.objectives.labels import LabelRule, Labels
from pokegan.objectives.losses import adversarial_loss
from pokegan.objectives.phases import Phase
from pokegan.objectives.settings import LossSettings, penalties, settle
from pokegan.ops.random import Stream
from pokegan.peers import whole
from pokegan.tf32 import allow_tf32, search_algorithms
from pokegan.training.adam_update import Adam
from pokegan.training.distributed import Ranks
from pokegan.training.ema import MovingAverage
from pokegan.training.hardware import (
    choose_device,
    choose_precision,
    keep_freed_memory,
)
from pokegan.training.latents import draw
from pokegan.training.modes import build_step
from pokegan.training.networks import build_networks
from pokegan.training.pictures import build_held_out, build_source
from pokegan.training.rates import GENERATOR_SIDE
from pokegan.training.step import Step, StepParts


@dataclass(frozen=True)
class Parts:
    """What a run, or one stage of a growing one, is made of.

    Attributes:
        device: where everything lives.
        dtype: of the networks' arithmetic.
        size: of the pictures in px.
        networks: by name.
        optimizers: by the name of the network that each updates.
        ema: the averaged generator.
        step: runs a training step.
        source: the pictures to train on.
        held_out: [K, 3, size, size] pictures kept out of training in [-1, 1], or None.
        adaptive: ADA's augmentation, with its strength, or None.
        loader: what kind of source it is, and why.
    """

    device: torch.device
    dtype: torch.dtype
    size: int
    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    ema: MovingAverage
    step: Step
    source: BatchSource
    held_out: Tensor | None
    adaptive: AdaptiveAugment | None
    loader: Choice

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "networks": {name: one.state_dict() for name, one in self.networks.items()},
            "optimizers": {name: one.state_dict() for name, one in self.optimizers.items()},
            "ema": self.ema.network.state_dict(),
            "adaptive": None if self.adaptive is None else self.adaptive.state_dict(),
        }

    @torch.no_grad()
    def norms(self) -> dict[str, float]:
        """Return the 1-norm of every weight and buffer, the averaged generator's too; waits once.

        Not finite where a number of it is not.
        """
        networks = {**self.networks, "moving average": self.ema.network}
        tensors = {
            f"{name}: {place}": tensor
            for name, network in networks.items()
            for place, tensor in network.state_dict().items()
            if tensor.is_floating_point()
        }
        norms = torch._foreach_norm(list(tensors.values()), 1)
        values = torch.stack([norm.double() for norm in norms]).tolist()
        return dict(zip(tensors, values, strict=True))

    def close(self) -> None:
        """Give up what the pictures and the steps hold; nobody asks for more of either."""
        self.source.close()
        self.step.close()

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
            self.optimizers[name].load_state_dict(state["optimizers"][name])
        self.ema.network.load_state_dict(state["ema"])
        if self.adaptive is not None:
            self.adaptive.load_state_dict(state["adaptive"])


def build(
    config: RunConfig,
    packed: PictureSet,
    networks: dict[str, nn.Module] | None = None,
    size: int | None = None,
    ranks: Ranks | None = None,
) -> Parts:
    """Return the parts of the run that `config` describes, initialised by its seed.

    Args:
        config: all settings.
        packed: the pictures.
        networks: to train, instead of new ones.
        size: of the pictures in px; the config's if None, smaller for a stage of growth.
        ranks: that train together; None for this process alone.
    """
    peers = ranks if ranks is not None and ranks.several else None
    device = choose_device(config.training.device)
    dtype = choose_precision(config.training.precision, device)
    allow_tf32(config.training.precision == "tf32")
    search_algorithms(device.type == "cuda")
    if device.type == "cpu":
        keep_freed_memory()
    networks = build_networks(config, size) if networks is None else networks
    for network in networks.values():
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's
    optimizers = {
        name: build_optimizer(network, _optimizer_of(config, name))
        for name, network in networks.items()
    }
    ema = MovingAverage(networks["generator"], config.training.ema_kimg)
    if config.training.sync_batchnorm == "on":
        for network in networks.values():
            share(network, peers)
    noise = [CountedNoise(config.training.seed, index) for index in range(len(networks))]
    used = [
        own for own, network in zip(noise, networks.values(), strict=True) if attach(network, own)
    ]
    adaptive = build_adaptive(config, packed.background, device, peers)
    phases = build_phases(config, networks, packed.background, adaptive, peers)
    reduce = peers.reduce if peers is not None else None
    autocast = dtype == torch.bfloat16
    split = autocast or config.training.precision == "tf32"
    step = build_step(
        config.training.compile,
        StepParts(networks, optimizers, phases, device, autocast, used, adaptive, reduce, split),
    )
    side = size or config.data.size
    source, loader = build_source(config, packed, device, dtype, side)
    held_out = build_held_out(config, packed, device, side)
    return Parts(
        device,
        dtype,
        size or config.data.size,
        networks,
        optimizers,
        ema,
        step,
        source,
        held_out,
        adaptive,
        loader,
    )


def build_optimizer(network: nn.Module, settings: OptimizerConfig) -> torch.optim.Optimizer:
    """Return fused Adam over the network's parameters."""
    return Adam(
        network.parameters(),
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def build_phases(
    config: RunConfig,
    networks: Mapping[str, nn.Module],
    background: RGB,
    adaptive: AdaptiveAugment | None,
    peers: Ranks | None = None,
) -> list[Phase]:
    """Return what a step consists of."""
    streams = {"discriminator": Stream.LATENT, "generator": Stream.GENERATOR_LATENT}
    seed = config.training.seed

    def latents(samples: Tensor, step: Tensor, phase: str) -> Tensor:
        return draw(config.latent, seed, streams[phase], step, samples)

    if "encoder" in networks:
        weights = TermWeights(**dataclasses.asdict(config.autoencoding))
        return AutoencodingObjective(
            networks["generator"],
            networks["encoder"],
            networks["discriminator"],
            networks["latent_discriminator"],
            latents,
            weights,
            config.objective.share_fakes,
        ).phases()
    rules = loss_settings(config.objective)
    augment = adaptive or build_diff_augment(config, background)
    return AdversarialObjective(
        networks["generator"],
        networks["discriminator"],
        latents,
        adversarial_loss(config.objective.loss),
        Labels(build_label_rule(config.objective), seed),
        config.objective.share_fakes,
        rules.discriminator_steps,
        penalties(rules, seed),
        rules.weight_clip or None,
        augment,
        adaptive.observe if adaptive is not None else None,
        functools.partial(whole, peers=peers) if peers is not None else None,
    ).phases()


def build_diff_augment(config: RunConfig, background: RGB) -> DiffAugment | None:
    """Return the augmentation of what the discriminator sees, or None."""
    if not config.objective.diff_augment:
        return None
    fill = sum(background) / 3 / 127.5 - 1  # one level for all channels
    return DiffAugment(config.objective.diff_augment, config.training.seed, fill)


def build_adaptive(
    config: RunConfig, background: RGB, device: torch.device, peers: Ranks | None = None
) -> AdaptiveAugment | None:
    """Return ADA's augmentation, of a strength that follows the discriminator or is fixed."""
    objective = config.objective
    if not (objective.ada_target or objective.ada_p):
        return None
    return AdaptiveAugment(
        config.training.seed,
        background,
        target=objective.ada_target or None,
        speed_kimg=objective.ada_kimg,
        p=objective.ada_p,
        peers=peers,
    ).to(device)


def loss_settings(objective: ObjectiveConfig) -> LossSettings:
    """Return penalties, clip and steps: what the loss implies, with what the user says."""
    return settle(
        objective.loss,
        discriminator_steps=objective.discriminator_steps,
        weight_clip=objective.weight_clip,
        gradient_penalty=objective.gradient_penalty,
        gradient_penalty_every=objective.gradient_penalty_every,
        r1=objective.r1,
        r1_every=objective.r1_every,
        r2=objective.r2,
        r2_every=objective.r2_every,
        consistency=objective.consistency,
        consistency_every=objective.consistency_every,
    )


def build_label_rule(objective: ObjectiveConfig) -> LabelRule:
    """Return how the discriminator's targets are drawn."""
    implied = settle(objective.loss).labels
    smoothed = LabelRule.smoothed(
        objective.label_smoothing,
        objective.label_noise,
        objective.label_swap,
        objective.smooth_fakes,
    )
    rule = implied if implied != LabelRule() else smoothed
    return LabelRule(
        interval("--real-labels", objective.real_labels) or rule.real,
        interval("--fake-labels", objective.fake_labels) or rule.fake,
        objective.label_swap,
    )


def _optimizer_of(config: RunConfig, name: str) -> OptimizerConfig:
    """Return Adam's settings for the network called `name`."""
    generators = name in GENERATOR_SIDE
    return config.generator_optimizer if generators else config.discriminator_optimizer
