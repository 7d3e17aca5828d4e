"""Adversarial losses on logits, as pairs: one for the discriminator, one for the generator.

Each returns the mean over the batch. Sources: bce (non-saturating) arXiv 1406.2661, lsgan
1611.04076, hinge 1802.05957 (equations 16 and 17).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from pokegan.errors import ConfigError


@dataclass(frozen=True)
class AdversarialLoss:
    """The two sides of a loss.

    Attributes:
        discriminator: (real logits [N], fake logits [N], real target, fake target) to a scalar.
        generator: (fake logits [N]) to a scalar.
        uses_targets: whether the targets matter (label smoothing has an effect).
    """

    discriminator: Callable[[Tensor, Tensor, float, float], Tensor]
    generator: Callable[[Tensor], Tensor]
    uses_targets: bool


def _bce(logits: Tensor, target: float) -> Tensor:
    # -t log s(x) - (1 - t) log(1 - s(x)) = softplus(x) - t x, with no target tensor.
    return (F.softplus(logits) - target * logits).mean()


def _bce_discriminator(
    real: Tensor, fake: Tensor, real_target: float, fake_target: float
) -> Tensor:
    return _bce(real, real_target) + _bce(fake, fake_target)


def _bce_generator(fake: Tensor) -> Tensor:
    return _bce(fake, 1.0)


def _lsgan_discriminator(
    real: Tensor, fake: Tensor, real_target: float, fake_target: float
) -> Tensor:
    return 0.5 * ((real - real_target).square().mean() + (fake - fake_target).square().mean())


def _lsgan_generator(fake: Tensor) -> Tensor:
    return 0.5 * (fake - 1.0).square().mean()


def _hinge_discriminator(
    real: Tensor, fake: Tensor, real_target: float, fake_target: float
) -> Tensor:
    return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()


def _hinge_generator(fake: Tensor) -> Tensor:
    return -fake.mean()


LOSSES = {
    "bce": AdversarialLoss(_bce_discriminator, _bce_generator, uses_targets=True),
    "lsgan": AdversarialLoss(_lsgan_discriminator, _lsgan_generator, uses_targets=True),
    "hinge": AdversarialLoss(_hinge_discriminator, _hinge_generator, uses_targets=False),
}


def adversarial_loss(name: str) -> AdversarialLoss:
    """Return the loss called `name`.

    Raises:
        ConfigError: there is no such loss.
    """
    if name not in LOSSES:
        raise ConfigError(f"--loss {name}: choose one of {', '.join(LOSSES)}")
    return LOSSES[name]
