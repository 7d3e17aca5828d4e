"""The one place where the names in a config become objects."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pokegan.augment import AdaptiveAugment, DiffAugment, PictureAugmentation
from pokegan.config import ObjectiveConfig, OptimizerConfig, RunConfig, interval
from pokegan.data.batches import (
    Augmentation,
    BatchSource,
    Recoloured,
    ResidentSource,
    split,
)
from pokegan.data.options import RGB
from pokegan.data.packed import PackedImages
from pokegan.networks.noise import CountedNoise, attach
from pokegan.objectives.adversarial import AdversarialObjective
from pokegan.objectives.autoencoding import AutoencodingObjective, TermWeights
from pokegan.objectives.labels import LabelRule, Labels
from pokegan.objectives.losses import adversarial_loss
from pokegan.objectives.phases import Phase
from pokegan.objectives.settings import LossSettings, penalties, settle
from pokegan.ops.random import Stream
from pokegan.training.ema import MovingAverage
from pokegan.training.hardware import allow_tf32, choose_device, choose_precision
from pokegan.training.latents import draw
from pokegan.training.modes import build_step
from pokegan.training.networks import build_networks
from pokegan.training.rates import GENERATOR_SIDE
from pokegan.training.stages import downscaled
from pokegan.training.step import Step

HELD_OUT_SEED = 0  # the same pictures are kept out in every run, so that runs compare


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


def build(
    config: RunConfig,
    packed: PackedImages,
    networks: dict[str, nn.Module] | None = None,
    size: int | None = None,
) -> Parts:
    """Return the parts of the run that `config` describes, initialised by its seed.

    Args:
        config: all settings.
        packed: the pictures.
        networks: to train, instead of new ones.
        size: of the pictures in px; the config's if None, smaller for a stage of growth.
    """
    device = choose_device(config.training.device)
    dtype = choose_precision(config.training.precision, device)
    allow_tf32(config.training.precision == "tf32")
    networks = build_networks(config, size) if networks is None else networks
    for network in networks.values():
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's
    optimizers = {
        name: build_optimizer(network, _optimizer_of(config, name))
        for name, network in networks.items()
    }
    ema = MovingAverage(networks["generator"], config.training.ema_kimg)
    noise = [CountedNoise(config.training.seed, index) for index in range(len(networks))]
    used = [
        own for own, network in zip(noise, networks.values(), strict=True) if attach(network, own)
    ]
    adaptive = build_adaptive(config, packed.background, device)
    phases = build_phases(config, networks, packed.background, adaptive)
    step = build_step(
        config.training.compile,
        device,
        networks,
        optimizers,
        phases,
        dtype == torch.bfloat16,
        used,
        adaptive,
    )
    source, held_out = build_source(config, packed, device, dtype, size or config.data.size)
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
    )


def build_source(
    config: RunConfig, packed: PackedImages, device: torch.device, dtype: torch.dtype, size: int
) -> tuple[BatchSource, Tensor | None]:
    """Return the source of training pictures, and those kept out as [K, 3, H, W] in [-1, 1]."""
    data, seed = config.data, config.training.seed
    trained, kept_out = split(len(packed), data.holdout, HELD_OUT_SEED)
    images = packed.images if not len(kept_out) else packed.images[trained]
    source: BatchSource = ResidentSource(
        downscaled(images, size),
        packed.background,
        seed,
        device,
        dtype,
        Augmentation(data.flip, data.shift * size // data.size),
    )
    change = PictureAugmentation(
        brightness=data.brightness,
        contrast=data.contrast,
        saturation=data.saturation,
        hue=data.hue,
        rotation=data.rotation,
        background=packed.background,
        seed=seed,
    )
    if change.active:
        source = Recoloured(source, change)
    if not len(kept_out):
        return source, None
    pictures = torch.from_numpy(downscaled(packed.images[kept_out], size)).to(device)
    return source, pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def build_optimizer(network: nn.Module, settings: OptimizerConfig) -> torch.optim.Optimizer:
    """Return fused Adam over the network's parameters."""
    return torch.optim.Adam(
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
    ).phases()


def build_diff_augment(config: RunConfig, background: RGB) -> DiffAugment | None:
    """Return the augmentation of what the discriminator sees, or None."""
    if not config.objective.diff_augment:
        return None
    fill = sum(background) / 3 / 127.5 - 1  # one level for all channels
    return DiffAugment(config.objective.diff_augment, config.training.seed, fill)


def build_adaptive(
    config: RunConfig, background: RGB, device: torch.device
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
