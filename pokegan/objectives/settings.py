"""What goes with a loss: the settings that it implies, and the pairs that are refused.

Only what is wrong is refused: what has no effect, what has no bound, what a paper rules out. What
is merely unusual (R1 with batch norm, two gradient penalties, a clip under a spectral norm) is not.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from pokegan.errors import ConfigError
from pokegan.networks.spectral_norm import spectral_norms
from pokegan.objectives.labels import LabelRule
from pokegan.objectives.losses import LOSSES, adversarial_loss
from pokegan.objectives.penalties import R1, R2, Consistency, GradientPenalty, Penalty

_NOISE = ("Dropout", "Dropout2d", "GaussianNoise", "MultiplicativeNoise")  # of networks.noise

_OFF = {
    "--smooth-fakes": "--no-smooth-fakes",
    "--real-labels": "--real-labels ''",
    "--fake-labels": "--fake-labels ''",
}


@dataclass(frozen=True)
class LossSettings:
    """What the discriminator is trained with beside its loss.

    Attributes:
        discriminator_steps: discriminator updates a generator update, at least 1.
        gradient_penalty: lambda of WGAN-GP, 0 for none.
        r1: gamma of R1, 0 for none.
        r2: gamma of R2, 0 for none.
        consistency: lambda_2 of the consistency term, 0 for none.
        gradient_penalty_every: it counts in the last of every so many steps, at least 1; so do
            the other three.
        weight_clip: bound of the discriminator's parameters, 0 for none.
        labels: the targets, where smoothing, noise and intervals are not given.
    """

    discriminator_steps: int = 1
    gradient_penalty: float = 0.0
    r1: float = 0.0
    r2: float = 0.0
    consistency: float = 0.0
    gradient_penalty_every: int = 1
    r1_every: int = 1
    r2_every: int = 1
    consistency_every: int = 1
    weight_clip: float = 0.0
    labels: LabelRule = field(default_factory=LabelRule)

    @property
    def penalised(self) -> bool:
        """Whether there is any penalty."""
        return max(self.gradient_penalty, self.r1, self.r2, self.consistency) > 0


# R1 and R2 of r3gan: arXiv 2501.05441 uses gamma 2 for 64 px faces (FFHQ), 0.05 for 32 px
# (CIFAR-10) and 150 for 256 px, all falling to a tenth. Our pictures are mostly of 64 px.
_DEFAULTS = {
    "smooth-bce": LossSettings(labels=LabelRule((0.7, 1.2), (0.0, 0.2))),
    "wgan": LossSettings(discriminator_steps=5, weight_clip=0.01),
    "wgan-gp": LossSettings(discriminator_steps=5, gradient_penalty=10.0),
    "r3gan": LossSettings(r1=2.0, r2=2.0),
}


def defaults(loss: str) -> LossSettings:
    """Return what `loss` implies unless the user says otherwise, as its paper has it.

    Raises:
        ConfigError: there is no such loss.
    """
    adversarial_loss(loss)
    return _DEFAULTS.get(loss, LossSettings())


def settle(loss: str, **given: float | None) -> LossSettings:
    """Return the defaults of `loss` with what is `given`, by attribute; None means not given."""
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(defaults(loss), **chosen)


def penalties(settings: LossSettings, seed: int) -> list[Penalty]:
    """Return the penalties that `settings` asks for; `seed` is the run's.

    Raises:
        ConfigError: a weight is not finite, or an interval is below 1.
    """
    asked: list[Penalty] = []
    if settings.gradient_penalty:
        asked.append(
            GradientPenalty(seed, settings.gradient_penalty, settings.gradient_penalty_every)
        )
    if settings.r1:
        asked.append(R1(settings.r1, settings.r1_every))
    if settings.r2:
        asked.append(R2(settings.r2, settings.r2_every))
    if settings.consistency:
        asked.append(Consistency(settings.consistency, settings.consistency_every))
    return asked


@dataclass(frozen=True)
class Traits:
    """What matters here of a discriminator.

    Attributes:
        batch_norm: a logit depends on the other pictures of the batch.
        spectral_norm: its layers are Lipschitz by construction.
        noise: two runs on the same pictures differ in training.
        features: it has `logits_and_features`.
    """

    batch_norm: bool = False
    spectral_norm: bool = False
    noise: bool = False
    features: bool = False

    @classmethod
    def of(cls, discriminator: nn.Module) -> "Traits":
        """Return the traits of `discriminator`, without running it."""
        modules = list(discriminator.modules())
        return cls(
            batch_norm=any(isinstance(module, _BatchNorm) for module in modules),
            spectral_norm=bool(spectral_norms(discriminator)),
            noise=any(map(_is_noisy, modules)),
            features=callable(getattr(discriminator, "logits_and_features", None)),
        )


def check(
    loss: str,
    settings: LossSettings,
    traits: Traits,
    target_flags: Sequence[str] = (),
    share_fakes: bool = False,
) -> None:
    """Refuse what cannot be right, with the reason and a way out.

    Args:
        loss: its name.
        settings: what `settle` returned.
        traits: of the discriminator.
        target_flags: the flags among --label-smoothing, --smooth-fakes, --label-noise,
            --label-swap, --real-labels and --fake-labels that are given a value other than off.
        share_fakes: whether both phases share their fakes.

    Raises:
        ConfigError: one line that names the flags.
    """
    _check_targets(loss, target_flags)
    _check_intervals(settings)
    if share_fakes and settings.discriminator_steps > 1:
        raise ConfigError(
            f"--loss {loss} with --discriminator-steps {settings.discriminator_steps} needs "
            "--no-share-fakes: in most steps there is no generator phase to share with"
        )
    if settings.weight_clip > 0 and settings.gradient_penalty > 0:
        raise ConfigError(
            f"--weight-clip {settings.weight_clip:g} with --gradient-penalty "
            f"{settings.gradient_penalty:g}: clipped weights cannot reach the gradient of 1 that "
            "the penalty asks for; give --weight-clip 0 or --gradient-penalty 0"
        )
    if settings.gradient_penalty > 0 and traits.batch_norm:
        raise ConfigError(
            f"--gradient-penalty {settings.gradient_penalty:g} needs a gradient for each picture "
            "alone, and this discriminator's batch norm mixes them; give --discriminator-option "
            "norm=layer (or instance, spectral, none)"
        )
    _check_consistency(settings, traits)
    held = settings.weight_clip > 0 or settings.penalised or traits.spectral_norm
    if not (LOSSES[loss].bounded or held):
        raise ConfigError(
            f"--loss {loss} has no bound while nothing limits the discriminator; give "
            "--weight-clip 0.01, --gradient-penalty 10 or --discriminator-option norm=spectral"
        )


def _check_targets(loss: str, flags: Sequence[str]) -> None:
    if flags and not adversarial_loss(loss).uses_targets:
        known = ", ".join(name for name in LOSSES if LOSSES[name].uses_targets)
        raise ConfigError(
            f"--loss {loss} has no targets, so {flags[0]} has no effect; give "
            f"{_OFF.get(flags[0], flags[0] + ' 0')} or use one of {known}"
        )
    shifted = {"--label-smoothing", "--smooth-fakes", "--label-noise"} & set(flags)
    if loss == "smooth-bce" and shifted:
        raise ConfigError(
            f"--loss smooth-bce draws its targets from intervals, so {min(shifted)} has no effect; "
            "use --loss bce, or set the intervals by --real-labels and --fake-labels"
        )


def _check_intervals(settings: LossSettings) -> None:
    for name in ("gradient_penalty", "r1", "r2", "consistency"):
        every = getattr(settings, f"{name}_every")
        if every > 1 and not getattr(settings, name):
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag}-every {every} has no effect without {flag}")


def _check_consistency(settings: LossSettings, traits: Traits) -> None:
    if settings.consistency <= 0:
        return
    if not traits.noise:
        raise ConfigError(
            f"--consistency {settings.consistency:g} compares two runs of the discriminator, which "
            "are equal without dropout; give --discriminator-option dropout=0.5"
        )
    if not traits.features:
        raise ConfigError(
            f"--consistency {settings.consistency:g} compares the last hidden layer, which this "
            "discriminator does not give; use another one or --consistency 0"
        )


def _is_noisy(module: nn.Module) -> bool:
    dropped = isinstance(module, _DropoutNd) or type(module).__name__ in _NOISE
    amount = getattr(module, "p", None) or getattr(module, "sigma", None) or 0.0
    return dropped and float(amount) > 0
