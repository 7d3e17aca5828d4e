"""Adversarial losses on logits, as pairs: one for the discriminator, one for the generator.

Each returns the mean over the batch. Sources: bce (non-saturating) arXiv 1406.2661, lsgan
1611.04076, hinge 1802.05957 (equations 16 and 17), rgan and ragan 1807.00734 (RSGAN and RaSGAN).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from pokegan.errors import ConfigError
from pokegan.ops.soft_labels import FORMS, cross_entropy


@dataclass(frozen=True)
class AdversarialLoss:
    """The two sides of a loss.

    Attributes:
        discriminator: (real logits [N], fake logits [N], real target, fake target) to a scalar.
        generator: (fake logits [N], real logits [N]) to a scalar; only a relativistic loss looks
            at the real logits, the others take any.
        form: the name of the discriminator's side in `pokegan.ops.soft_labels`, for targets drawn
            for each sample; None for a loss without targets.
        relativistic: whether the generator's side needs the real logits.
    """

    discriminator: Callable[[Tensor, Tensor, float, float], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    form: str | None = None
    relativistic: bool = False

    @property
    def uses_targets(self) -> bool:
        """Whether the targets matter (label smoothing has an effect)."""
        return self.form is not None


def _bce_generator(fake: Tensor, real: Tensor) -> Tensor:
    return cross_entropy(fake, 1.0)


def _lsgan_generator(fake: Tensor, real: Tensor) -> Tensor:
    return 0.5 * (fake - 1.0).square().mean()


def _hinge_discriminator(
    real: Tensor, fake: Tensor, real_target: float, fake_target: float
) -> Tensor:
    return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()


def _hinge_generator(fake: Tensor, real: Tensor) -> Tensor:
    return -fake.mean()


def _rgan_generator(fake: Tensor, real: Tensor) -> Tensor:
    return cross_entropy(fake - real, 1.0)


def _ragan_generator(fake: Tensor, real: Tensor) -> Tensor:
    return cross_entropy(fake - real.mean(), 1.0) + cross_entropy(real - fake.mean(), 0.0)


LOSSES = {
    "bce": AdversarialLoss(FORMS["bce"], _bce_generator, form="bce"),
    "lsgan": AdversarialLoss(FORMS["lsgan"], _lsgan_generator, form="lsgan"),
    "hinge": AdversarialLoss(_hinge_discriminator, _hinge_generator),
    "rgan": AdversarialLoss(FORMS["rgan"], _rgan_generator, form="rgan", relativistic=True),
    "ragan": AdversarialLoss(FORMS["ragan"], _ragan_generator, form="ragan", relativistic=True),
}


def adversarial_loss(name: str) -> AdversarialLoss:
    """Return the loss called `name`.

    Raises:
        ConfigError: there is no such loss.
    """
    if name not in LOSSES:
        raise ConfigError(f"--loss {name}: choose one of {', '.join(LOSSES)}")
    return LOSSES[name]
