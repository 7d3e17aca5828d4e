"""What is refused before anything is made: settings that cannot go together or have no effect."""

import dataclasses

from torch import nn

from pokegan.config import ObjectiveConfig, OutputConfig, RunConfig, settings
from pokegan.data.loaders import STREAMING, PictureSet, check_loader
from pokegan.errors import ConfigError
from pokegan.metrics.evaluation import LEAST
from pokegan.metrics.features import require
from pokegan.objectives.losses import LOSSES
from pokegan.objectives.settings import Traits, penalties
from pokegan.objectives.settings import check as check_loss
from pokegan.training.build import build_diff_augment, loss_settings
from pokegan.training.hardware import choose_device
from pokegan.training.networks import build_networks, grown_options
from pokegan.training.rates import build_schedule
from pokegan.training.stages import parse_stages


def check(config: RunConfig) -> None:
    """Raise ConfigError for what can be known to be wrong before any picture is touched."""
    choose_device(config.training.device)
    check_loader(config.data.loader, config.data.workers)
    build_schedule(config.schedule)
    _check_metrics(config)
    if config.data.shift >= config.data.size:
        raise ConfigError(
            f"--shift {config.data.shift}: less than --size {config.data.size} is wanted"
        )
    if config.encoder is not None:
        _check_autoencoding(config)
        build_networks(config)
        return
    stages = parse_stages(config.schedule.stages, config.data.size)
    grown = grown_options(config) if stages else config
    for size in [stage.size for stage in stages] or [config.data.size]:
        networks = build_networks(grown, size)
    _check_idle(config)
    _check_augmentation(config)
    _check_loss(config, networks["discriminator"])


def check_pictures(config: RunConfig, packed: PictureSet) -> None:
    """Raise ConfigError when `packed` are too few to train on, or to measure against."""
    held_out = config.data.holdout
    if len(packed) - held_out < 2:
        raise ConfigError(
            f"--holdout {held_out}: of {len(packed)} pictures at least 2 must stay to train on"
        )
    every = config.output.metrics_every
    if every > 0 and len(packed) < LEAST:
        raise ConfigError(
            f"--metrics-every {every:g}: measuring wants at least {LEAST} pictures, and there are "
            f"{len(packed)}; give more of them with --data, or leave it out"
        )


def check_ranks(config: RunConfig, count: int) -> None:
    """Raise ConfigError when the batch cannot be shared by `count` ranks."""
    batch = config.training.batch
    if batch % count:
        below, above = batch // count * count, (batch // count + 1) * count
        near = f"{below} or {above}" if below >= 2 else f"{above}"
        raise ConfigError(
            f"--batch {batch} on {count} ranks: every rank needs as many images; give {near}"
        )
    if batch == count > 1 and config.training.sync_batchnorm == "off":
        raise ConfigError(
            f"--batch {batch} on {count} ranks with --sync-batchnorm off: one image alone has no "
            f"variance; give --batch {2 * count} or --sync-batchnorm on"
        )


def _check_metrics(config: RunConfig) -> None:
    """Refuse what measuring would fail for in the middle of a run."""
    output = config.output
    if output.metrics_every > 0:
        if config.data.loader in STREAMING:
            raise ConfigError(
                f"--metrics-every with --loader {config.data.loader}: measuring needs the prepared "
                "pictures; use --loader mapped, or pokegan evaluate afterwards"
            )
        require(output.metrics_features)
        return
    plain = OutputConfig()
    for name in ("metrics_samples", "metrics_features", "best_by"):
        if getattr(output, name) != getattr(plain, name):
            flag = name.replace("_", "-")
            raise ConfigError(
                f"--{flag} {getattr(output, name)} has no effect without --metrics-every"
            )


def _check_idle(config: RunConfig) -> None:
    """Refuse what has no effect without another setting, which is off."""
    if config.data.holdout:
        raise ConfigError(
            f"--holdout {config.data.holdout}: measures reconstructions, and {config.recipe} has "
            "no encoder to make them; use the recipe aegan or leave it out"
        )
    schedule, objective = config.schedule, config.objective
    needs = {
        "autoencoding.": (False, "a recipe with an encoder, such as aegan"),
        "schedule.final": (schedule.rates == "cosine", "--lr-schedule cosine"),
        "schedule.decay": (schedule.rates == "step", "--lr-schedule step"),
        "schedule.decay_kimg": (schedule.rates == "step", "--lr-schedule step"),
        "schedule.freeze": (bool(schedule.stages), "--stages"),
        "schedule.fade": (bool(schedule.stages), "--stages"),
        "objective.ada_kimg": (objective.ada_target > 0, "--ada-target"),
    }
    plain = RunConfig(config.recipe, config.generator, config.discriminator)
    for entry in settings():
        part = entry.path.split(".")[0] + "."
        given, other = needs.get(entry.path) or needs.get(part) or (True, "")
        if not given and entry.value_in(config) != entry.value_in(plain):
            value = "" if entry.kind is bool else f" {entry.value_in(config)}"
            raise ConfigError(f"{entry.flag}{value} has no effect without {other}")


def _check_augmentation(config: RunConfig) -> None:
    """Refuse two augmentations of the discriminator's inputs, and ADA's rule without a sign."""
    objective = config.objective
    augment = build_diff_augment(config, (255, 255, 255))
    if augment is not None and not augment.policy:
        raise ConfigError(f"--diff-augment {objective.diff_augment}: names no augmentation")
    used = [
        flag
        for flag, value in (
            ("--diff-augment", objective.diff_augment),
            ("--ada-target", objective.ada_target),
            ("--ada-p", objective.ada_p),
        )
        if value
    ]
    if len(used) > 1:
        raise ConfigError(f"{used[0]} and {used[1]}: give one of them")
    if objective.ada_target and LOSSES[objective.loss].undecided is None:
        known = ", ".join(name for name, loss in LOSSES.items() if loss.undecided is not None)
        raise ConfigError(
            f"--ada-target {objective.ada_target:g} follows the sign of D(real), which means "
            f"nothing under --loss {objective.loss}; give a fixed probability, such as --ada-p "
            f"0.3, or use one of {known}"
        )


def _check_loss(config: RunConfig, discriminator: nn.Module) -> None:
    objective = config.objective
    rules = loss_settings(objective)
    penalties(rules, config.training.seed)
    targets = {
        "--label-smoothing": objective.label_smoothing,
        "--smooth-fakes": objective.smooth_fakes,
        "--label-noise": objective.label_noise,
        "--label-swap": objective.label_swap,
        "--real-labels": objective.real_labels,
        "--fake-labels": objective.fake_labels,
    }
    check_loss(
        objective.loss,
        rules,
        Traits.of(discriminator),
        [flag for flag, value in targets.items() if value],
        objective.share_fakes,
    )


def _check_autoencoding(config: RunConfig) -> None:
    """Refuse what AEGAN's objective does not look at."""
    plain = dataclasses.replace(ObjectiveConfig(), share_fakes=config.objective.share_fakes)
    for entry in settings():
        part, name = entry.path.split(".")
        if part == "objective" and getattr(config.objective, name) != getattr(plain, name):
            raise ConfigError(
                f"{entry.flag}: the recipe {config.recipe} has AEGAN's own eight terms, with "
                "cross-entropy on hard labels; leave this out, or use another recipe"
            )
    if config.schedule.stages:
        raise ConfigError(f"--stages: the networks of {config.recipe} do not grow")
