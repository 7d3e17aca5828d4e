"""Adversarial losses on logits, as pairs: one for the discriminator, one for the generator.

Each returns the mean over the batch. Sources: bce and smooth-bce (non-saturating) arXiv 1406.2661,
lsgan 1611.04076, hinge 1802.05957 (equations 16 and 17), wgan 1701.07875 (equation 2), wgan-gp
1704.00028, rgan and ragan 1807.00734 (RSGAN and RaSGAN), r3gan 2501.05441 (equation 2). What goes
with a loss (clipping, penalties, targets) is in `pokegan.objectives.settings`.
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
        probability: whether the sigmoid of a logit is the probability of being real.
        undecided: the logit of a picture that may be real or not as well, from which ADA counts
            signs; None where a logit by itself says nothing.
        bounded: whether the discriminator's side has a lower bound of its own; without one,
            something must keep the discriminator Lipschitz.
        batchwide: whether a picture's part depends on means over the whole batch; otherwise the
            loss of a batch is the mean of the losses of its shares.
    """

    discriminator: Callable[[Tensor, Tensor, float, float], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    form: str | None = None
    relativistic: bool = False
    probability: bool = False
    undecided: float | None = None
    bounded: bool = True
    batchwide: bool = False

    @property
    def uses_targets(self) -> bool:
        """Whether the targets matter (label smoothing has an effect)."""
        return self.form is not None

    def score(self, logits: Tensor) -> Tensor:
        """Return the mean score of `logits` [N] as it is recorded, detached.

        A probability in [0, 1] for bce and smooth-bce; the mean of the raw outputs for the other
        losses, whose outputs are no log odds of a picture being real.
        """
        scores = logits.detach()
        return (scores.sigmoid() if self.probability else scores).mean()


def _bce_generator(fake: Tensor, real: Tensor) -> Tensor:
    return cross_entropy(fake, 1.0)


def _lsgan_generator(fake: Tensor, real: Tensor) -> Tensor:
    return 0.5 * (fake - 1.0).square().mean()


def _hinge_discriminator(
    real: Tensor, fake: Tensor, real_target: float, fake_target: float
) -> Tensor:
    return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()


def _wasserstein_discriminator(
    real: Tensor, fake: Tensor, real_target: float, fake_target: float
) -> Tensor:
    return fake.mean() - real.mean()


def _minus_mean(fake: Tensor, real: Tensor) -> Tensor:
    return -fake.mean()


def _rgan_generator(fake: Tensor, real: Tensor) -> Tensor:
    return cross_entropy(fake - real, 1.0)


def _ragan_generator(fake: Tensor, real: Tensor) -> Tensor:
    return cross_entropy(fake - real.mean(), 1.0) + cross_entropy(real - fake.mean(), 0.0)


def _pairing_discriminator(
    real: Tensor, fake: Tensor, real_target: float, fake_target: float
) -> Tensor:
    return F.softplus(fake - real).mean()


def _pairing_generator(fake: Tensor, real: Tensor) -> Tensor:
    return F.softplus(real - fake).mean()


_BCE = AdversarialLoss(FORMS["bce"], _bce_generator, form="bce", probability=True, undecided=0.0)
_WASSERSTEIN = AdversarialLoss(_wasserstein_discriminator, _minus_mean, bounded=False)
LOSSES = {
    "bce": _BCE,
    "smooth-bce": _BCE,
    "lsgan": AdversarialLoss(FORMS["lsgan"], _lsgan_generator, form="lsgan", undecided=0.5),
    "hinge": AdversarialLoss(_hinge_discriminator, _minus_mean, undecided=0.0),
    "wgan": _WASSERSTEIN,
    "wgan-gp": _WASSERSTEIN,
    "rgan": AdversarialLoss(FORMS["rgan"], _rgan_generator, form="rgan", relativistic=True),
    "ragan": AdversarialLoss(
        FORMS["ragan"], _ragan_generator, form="ragan", relativistic=True, batchwide=True
    ),
    "r3gan": AdversarialLoss(_pairing_discriminator, _pairing_generator, relativistic=True),
}


def adversarial_loss(name: str) -> AdversarialLoss:
    """Return the loss called `name`.

    Raises:
        ConfigError: there is no such loss.
    """
    if name not in LOSSES:
        raise ConfigError(f"--loss {name}: choose one of {', '.join(LOSSES)}")
    return LOSSES[name]
