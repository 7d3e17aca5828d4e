"""Penalties on the discriminator, and how often and how heavily each counts.

Sources: gradient penalty arXiv 1704.00028 (equation 3), R1 and R2 1801.04406 (equations 9 and 10),
consistency term 1803.01541 (equation 4), lazy penalties 1912.04958 (section 3.1).

All are computed in float32 (in float64 for float64 pictures), whatever autocast is around them:
squared gradients are too small for bfloat16. Gradients are taken where the discriminator sees the
pictures, after augmentation, so augmentation need not be differentiable twice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from pokegan.errors import ConfigError
from pokegan.objectives.precision import at_least_float32
from pokegan.ops.random import Stream, uniform
from pokegan.ops.second_order import gradients_by_input

Critic = Callable[[Tensor], Tensor]
FeatureCritic = Callable[[Tensor], tuple[Tensor, Tensor]]

FEATURE_WEIGHT = 0.1  # of the last hidden layer in the consistency term


def gradient_penalty(
    critic: Critic, real: Tensor, fake: Tensor, mix: Tensor, anchor: Tensor | None = None
) -> Tensor:
    """Return the mean of (||grad D(x)||_2 - 1)^2 at x = mix real + (1 - mix) fake.

    Args:
        critic: pictures [N, C, H, W] to logits [N], each of its own picture alone (no batch norm).
        real: [N, C, H, W]; needs no gradient and gets none.
        fake: like `real`.
        mix: [N] in [0, 1], one number a sample.
        anchor: `StepInput.anchor`.

    Returns:
        Scalar, differentiable by the critic's parameters.
    """
    with _full_precision(real):
        real, fake = at_least_float32(real), at_least_float32(fake)
        between = torch.lerp(fake, real, mix.to(real)[:, None, None, None])
        norms: Tensor = torch.linalg.vector_norm(_gradients(critic, between, anchor), dim=1)  # [N]
        return (norms - 1).square().mean()


def zero_centred_penalty(critic: Critic, pictures: Tensor, anchor: Tensor | None = None) -> Tensor:
    """Return half of the mean of ||grad D(x)||_2^2 at `pictures` [N, C, H, W].

    R1 on real pictures, R2 on fakes; gamma is to be multiplied. `anchor` is `StepInput.anchor`.
    """
    with _full_precision(pictures):
        gradients: Tensor = _gradients(critic, at_least_float32(pictures), anchor)
        return 0.5 * gradients.square().sum(dim=1).mean()


def consistency_term(critic: FeatureCritic, real: Tensor, bound: float = 0.0) -> Tensor:
    """Return the mean of max(0, d(D(x'), D(x'')) + 0.1 d(D_(x'), D_(x'')) - M').

    x' and x'' are the same pictures seen through two draws of dropout, D_ is the last hidden
    layer. d is the squared difference, averaged over features: the form that the paper's weight
    of 2 belongs to, and the one with a gradient at 0.

    Args:
        critic: pictures to (logits [N], features [N, F]); two runs draw different dropout.
        real: [N, C, H, W].
        bound: M', at least 0.
    """
    with _full_precision(real):
        pictures = at_least_float32(real.detach())
        (one, features), (other, other_features) = critic(pictures), critic(pictures)
        distance = (one - other).square()
        distance = distance + FEATURE_WEIGHT * (features - other_features).square().mean(dim=1)
        return torch.relu(distance - bound).mean()


@dataclass(frozen=True)
class Seen:
    """What the discriminator sees in one step: pictures as they are after augmentation.

    Attributes:
        real: [N, 3, H, W] of any floating dtype.
        fake: like `real`, detached from the generator.
        samples: [N] int64 global sample indices.
        step: int64 scalar on the device.
        anchor: `StepInput.anchor`.
    """

    real: Tensor
    fake: Tensor
    samples: Tensor
    step: Tensor
    anchor: Tensor | None = None


class Penalty(Protocol):
    """A term of the discriminator's loss.

    Attributes:
        name: it is recorded as `penalty/<name>`.
        second_order: it is made of the discriminator's gradients.
    """

    name: ClassVar[str]
    second_order: ClassVar[bool]

    @property
    def every(self) -> int:
        """It counts in the last of every so many steps, so many times as much."""

    def __call__(self, discriminator: Critic, seen: Seen) -> Tensor:
        """Return the scalar as in the paper's loss: with its weight, without `every`."""


@dataclass(frozen=True)
class GradientPenalty:
    """lambda times `gradient_penalty`, at places drawn from the seed's own stream."""

    name: ClassVar[str] = "gradient"
    second_order: ClassVar[bool] = True
    seed: int
    weight: float = 10.0
    every: int = 1

    def __post_init__(self) -> None:
        _check("gradient-penalty", self.weight, self.every)

    def __call__(self, discriminator: Critic, seen: Seen) -> Tensor:
        """Return lambda times the penalty."""
        mix = uniform(self.seed, Stream.GRADIENT_PENALTY, seen.step, seen.samples, 1)[:, 0]
        return self.weight * gradient_penalty(discriminator, seen.real, seen.fake, mix, seen.anchor)


@dataclass(frozen=True)
class R1:
    """gamma / 2 times the mean squared gradient on real pictures."""

    name: ClassVar[str] = "r1"
    second_order: ClassVar[bool] = True
    weight: float
    every: int = 1

    def __post_init__(self) -> None:
        _check("r1", self.weight, self.every)

    def __call__(self, discriminator: Critic, seen: Seen) -> Tensor:
        """Return gamma times the penalty."""
        return self.weight * zero_centred_penalty(discriminator, seen.real, seen.anchor)


@dataclass(frozen=True)
class R2:
    """gamma / 2 times the mean squared gradient on fakes."""

    name: ClassVar[str] = "r2"
    second_order: ClassVar[bool] = True
    weight: float
    every: int = 1

    def __post_init__(self) -> None:
        _check("r2", self.weight, self.every)

    def __call__(self, discriminator: Critic, seen: Seen) -> Tensor:
        """Return gamma times the penalty."""
        return self.weight * zero_centred_penalty(discriminator, seen.fake, seen.anchor)


@dataclass(frozen=True)
class Consistency:
    """lambda_2 times `consistency_term`, by the discriminator's `logits_and_features`."""

    name: ClassVar[str] = "consistency"
    second_order: ClassVar[bool] = False
    weight: float = 2.0
    every: int = 1
    bound: float = 0.0

    def __post_init__(self) -> None:
        _check("consistency", self.weight, self.every)
        if not self.bound >= 0:
            raise ConfigError(f"consistency bound {self.bound:g}: a number of at least 0 is wanted")

    def __call__(self, discriminator: Critic, seen: Seen) -> Tensor:
        """Return lambda_2 times the term.

        Raises:
            ConfigError: the discriminator has no `logits_and_features`.
        """
        critic = getattr(discriminator, "logits_and_features", None)
        if critic is None:
            raise ConfigError("--consistency: this discriminator has no logits_and_features")
        return self.weight * consistency_term(critic, seen.real, self.bound)


def _gradients(critic: Critic, pictures: Tensor, anchor: Tensor | None) -> Tensor:
    """Return [N, C H W]: each logit's gradient by its own picture, itself differentiable."""
    if anchor is not None:
        # torch 2.11 compiles no `requires_grad_()`; `torch.func.grad` no batch norm's statistics.
        return _gradients_at(critic, pictures.detach() + anchor)
    outside = _gradients_outside
    if torch.compiler.is_compiling():  # asked for here alone: it imports all that compiles
        outside = torch.compiler.disable(  # type: ignore[no-untyped-call]  # torch's
            outside, reason="differentiated twice"
        )
    return outside(critic, pictures)


def _gradients_outside(critic: Critic, pictures: Tensor) -> Tensor:
    return _gradients_at(critic, pictures.detach().requires_grad_())


def _gradients_at(critic: Critic, points: Tensor) -> Tensor:
    with gradients_by_input():
        (gradients,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    return gradients.flatten(1)


def _full_precision(tensor: Tensor) -> torch.autocast:
    return torch.autocast(tensor.device.type, enabled=False)


def _check(name: str, weight: float, every: int) -> None:
    if not 0 < weight < float("inf"):
        raise ConfigError(f"--{name} {weight:g}: a positive number is wanted")
    if every < 1:
        raise ConfigError(f"--{name}-every {every}: at least 1 is wanted")
