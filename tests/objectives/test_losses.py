"""Losses against the formulas of their papers, and gradients against finite differences."""

import math

import pytest
import torch

from pokegan.errors import ConfigError
from pokegan.objectives.losses import LOSSES, adversarial_loss

REAL = [1.5, -0.25, 0.0, 3.0]
FAKE = [-2.0, 0.5, 1.25, -0.75]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def cross_entropy(logits: list[float], target: float) -> float:
    terms = [
        -target * math.log(sigmoid(x)) - (1 - target) * math.log(1 - sigmoid(x)) for x in logits
    ]
    return sum(terms) / len(terms)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def relative(one: list[float], other: list[float]) -> list[float]:
    return [x - y for x, y in zip(one, other, strict=True)]


def shifted(values: list[float], by: float) -> list[float]:
    return [value - by for value in values]


DISCRIMINATOR = {
    "bce": lambda real, fake, t: cross_entropy(real, t) + cross_entropy(fake, 0.0),
    "lsgan": lambda real, fake, t: (
        0.5 * mean([(x - t) ** 2 for x in real]) + 0.5 * mean([x**2 for x in fake])
    ),
    "hinge": lambda real, fake, t: (
        mean([max(0, 1 - x) for x in real]) + mean([max(0, 1 + x) for x in fake])
    ),
    # Both terms of the paper's general form, halved: f1(real - fake) and f2(fake - real).
    "rgan": lambda real, fake, t: (
        0.5 * cross_entropy(relative(real, fake), t)
        + 0.5 * cross_entropy(relative(fake, real), 0.0)
    ),
    "ragan": lambda real, fake, t: (
        cross_entropy(shifted(real, mean(fake)), t) + cross_entropy(shifted(fake, mean(real)), 0.0)
    ),
    "smooth-bce": lambda real, fake, t: cross_entropy(real, t) + cross_entropy(fake, 0.0),
    "wgan": lambda real, fake, t: mean(fake) - mean(real),
    "wgan-gp": lambda real, fake, t: mean(fake) - mean(real),
    "r3gan": lambda real, fake, t: mean([math.log(1 + math.exp(z)) for z in relative(fake, real)]),
}
GENERATOR = {
    "bce": lambda fake, real: cross_entropy(fake, 1.0),
    "lsgan": lambda fake, real: 0.5 * mean([(x - 1) ** 2 for x in fake]),
    "hinge": lambda fake, real: -mean(fake),
    "rgan": lambda fake, real: mean([-math.log(sigmoid(z)) for z in relative(fake, real)]),
    "ragan": lambda fake, real: (
        -mean([math.log(1 - sigmoid(z)) for z in shifted(real, mean(fake))])
        - mean([math.log(sigmoid(z)) for z in shifted(fake, mean(real))])
    ),
    "smooth-bce": lambda fake, real: cross_entropy(fake, 1.0),
    "wgan": lambda fake, real: -mean(fake),
    "wgan-gp": lambda fake, real: -mean(fake),
    "r3gan": lambda fake, real: mean([math.log(1 + math.exp(z)) for z in relative(real, fake)]),
}


def test_every_loss_has_a_formula_here() -> None:
    assert set(LOSSES) == set(DISCRIMINATOR) == set(GENERATOR)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("target", [1.0, 0.9])
def test_discriminator_side(name: str, target: float) -> None:
    real, fake = torch.tensor(REAL).double(), torch.tensor(FAKE).double()
    got = adversarial_loss(name).discriminator(real, fake, target, 0.0)
    assert got.item() == pytest.approx(DISCRIMINATOR[name](REAL, FAKE, target), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_generator_side(name: str) -> None:
    real, fake = torch.tensor(REAL).double(), torch.tensor(FAKE).double()
    got = adversarial_loss(name).generator(fake, real)
    assert got.item() == pytest.approx(GENERATOR[name](FAKE, REAL), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_by_finite_differences(name: str) -> None:
    loss = adversarial_loss(name)
    real = torch.tensor(REAL, dtype=torch.float64, requires_grad=True)
    fake = torch.tensor(FAKE, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r, f: loss.discriminator(r, f, 0.9, 0.0), (real, fake))
    assert torch.autograd.gradcheck(lambda f: loss.generator(f, real.detach()), (fake,))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_stay_finite(name: str, dtype: torch.dtype) -> None:
    """Also the gradients; a relativistic loss sees the difference of both."""
    loss = adversarial_loss(name)
    for sign in (1, -1):
        real = torch.tensor([1e4, -1e4], dtype=dtype, requires_grad=True)
        fake = (sign * real.detach()).requires_grad_()
        sides = loss.discriminator(real, fake, 1.0, 0.0), loss.generator(fake, real)
        for side in sides:
            assert torch.isfinite(side)
        for gradient in torch.autograd.grad(sides[0] + sides[1], (real, fake)):
            assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", LOSSES)
def test_the_generator_side_looks_at_the_reals_where_it_says_so(name: str) -> None:
    loss, fake = adversarial_loss(name), torch.tensor(FAKE)
    differs = loss.generator(fake, torch.tensor(REAL)) != loss.generator(fake, torch.tensor(FAKE))
    assert bool(differs) == loss.relativistic


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_without_bound_falls_with_the_scale_of_the_logits(name: str) -> None:
    """A discriminator that is right by ever more: without a bound its loss has no end."""
    loss, right = adversarial_loss(name), torch.tensor([1.0, 2.0])
    values = [loss.discriminator(s * right, -s * right, 1.0, 0.0).item() for s in (1e2, 1e3, 1e4)]
    assert (values[2] < -1e4) == (not loss.bounded)
    assert loss.bounded == (min(values) >= 0)


@pytest.mark.parametrize("name", LOSSES)
def test_a_score_is_a_probability_or_the_raw_output(name: str) -> None:
    logits = torch.tensor(REAL, requires_grad=True)
    expected = mean([sigmoid(x) for x in REAL]) if name in ("bce", "smooth-bce") else mean(REAL)
    score = adversarial_loss(name).score(logits)
    assert score.item() == pytest.approx(expected, rel=1e-6)
    assert not score.requires_grad


def test_whether_targets_matter_is_told_right() -> None:
    real, fake = torch.tensor(REAL), torch.tensor(FAKE)
    for loss in LOSSES.values():
        differs = loss.discriminator(real, fake, 1.0, 0.0) != loss.discriminator(
            real, fake, 0.8, 0.0
        )
        assert bool(differs) == loss.uses_targets


def test_with_hard_labels_the_relativistic_loss_is_the_papers() -> None:
    real, fake = torch.tensor(REAL).double(), torch.tensor(FAKE).double()
    got = adversarial_loss("rgan").discriminator(real, fake, 1.0, 0.0)
    expected = -mean([math.log(sigmoid(z)) for z in relative(REAL, FAKE)])
    assert got.item() == pytest.approx(expected, rel=1e-12)


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(ConfigError, match="--loss LB_CE: choose one of bce"):
        adversarial_loss("LB_CE")


@pytest.mark.parametrize("name", LOSSES)
def test_a_picture_real_or_fake_alike_gets_the_undecided_logit(name: str) -> None:
    loss = adversarial_loss(name)
    start = 0.3 if loss.undecided is None else loss.undecided
    logit = torch.full((1,), start, dtype=torch.float64, requires_grad=True)
    loss.discriminator(logit, logit, 1.0, 0.0).backward()
    torch.testing.assert_close(logit.grad, torch.zeros_like(logit))  # the best, where there is one
    if loss.undecided is None:  # or any logit is as good
        value = [loss.discriminator(x, x, 1.0, 0.0) for x in (logit.detach(), logit.detach() + 5)]
        torch.testing.assert_close(value[0], value[1])
