"""Penalties against values derived by hand, finite differences, and their own claims.

The critic of the derivations is D(x) = a . tanh(W x + b) on flattened pictures:
grad D = W^T (a * s) with s = 1 - tanh^2, and its derivative by the weights follows from the chain
rule alone, with no automatic differentiation.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pokegan.errors import ConfigError
from pokegan.networks.spectral_norm import spectral_norm_
from pokegan.objectives.penalties import (
    R1,
    R2,
    Consistency,
    GradientPenalty,
    Seen,
    consistency_term,
    gradient_penalty,
    zero_centred_penalty,
)
from pokegan.ops.random import Stream, uniform

N, SHAPE, HIDDEN = 5, (3, 2, 2), 4
SIZE = math.prod(SHAPE)


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class TwoLayers(nn.Module):
    """a . tanh(W x + b)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(numbers(HIDDEN, SIZE, seed=1))
        self.b = nn.Parameter(numbers(HIDDEN, seed=2))
        self.a = nn.Parameter(numbers(HIDDEN, seed=3))

    def forward(self, pictures: Tensor) -> Tensor:
        return torch.tanh(pictures.flatten(1) @ self.w.T + self.b) @ self.a


def by_hand(
    critic: TwoLayers, pictures: Tensor, outer: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> tuple[Tensor, list[Tensor]]:
    """The mean over samples of a function of g = grad D, and its gradients by w, b and a.

    `outer` gives (values [N], their gradients by g [N, SIZE]).
    """
    with torch.no_grad():
        w, b, a = critic.w, critic.b, critic.a
        x = pictures.flatten(1)
        t = torch.tanh(x @ w.T + b)  # [N, HIDDEN]
        slope = 1 - t**2
        c = a * slope
        values, v = outer(c @ w)
        u = v @ w.T  # dP/dc
        inner = u * a * -2 * t * slope  # dP/d(W x + b)
        by_w = c[:, :, None] * v[:, None, :] + inner[:, :, None] * x[:, None, :]
        return values.mean(), [by_w.mean(0), inner.mean(0), (u * slope).mean(0)]


def squared(g: Tensor) -> tuple[Tensor, Tensor]:
    return 0.5 * (g * g).sum(1), g


def around_one(g: Tensor) -> tuple[Tensor, Tensor]:
    length = (g * g).sum(1).sqrt()
    return (length - 1) ** 2, 2 * ((length - 1) / length)[:, None] * g


def check_all(got: Tensor, critic: TwoLayers, expected: tuple[Tensor, list[Tensor]]) -> None:
    torch.testing.assert_close(got, expected[0], rtol=1e-12, atol=0)
    gradients = torch.autograd.grad(got, (critic.w, critic.b, critic.a))
    for gradient, wanted in zip(gradients, expected[1], strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-12)


def test_zero_centred_value_and_second_order_gradients() -> None:
    critic, pictures = TwoLayers(), numbers(N, *SHAPE, seed=4)
    got = zero_centred_penalty(critic, pictures)
    check_all(got, critic, by_hand(critic, pictures, squared))


def test_gradient_penalty_value_and_second_order_gradients() -> None:
    critic, mix = TwoLayers(), torch.tensor([0.0, 0.25, 0.5, 0.875, 1.0]).double()
    real, fake = numbers(N, *SHAPE, seed=5), numbers(N, *SHAPE, seed=6)
    between = torch.stack([m * r + (1 - m) * f for m, r, f in zip(mix, real, fake, strict=True)])
    got = gradient_penalty(critic, real, fake, mix)
    check_all(got, critic, by_hand(critic, between, around_one))


def test_on_a_quadratic_the_values_are_those_of_the_page() -> None:
    """D(x) = k |x|^2 / 2 has the gradient k x: R1 is k^2 E|x|^2 / 2, d/dk is k E|x|^2."""
    k = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    pictures = torch.full((2, *SHAPE), 0.5, dtype=torch.float64)  # |x|^2 = 3
    penalty = zero_centred_penalty(lambda x: k * x.flatten(1).square().sum(1) / 2, pictures)
    assert penalty.item() == pytest.approx(1.5**2 * 3 / 2)
    assert torch.autograd.grad(penalty, k)[0].item() == pytest.approx(1.5 * 3)
    mix = torch.tensor([0.0, 1.0]).double()
    penalty = gradient_penalty(
        lambda x: k * x.flatten(1).square().sum(1) / 2, pictures, 2 * pictures, mix
    )
    lengths = [1.5 * math.sqrt(12), 1.5 * math.sqrt(3)]
    assert penalty.item() == pytest.approx(sum((n - 1) ** 2 for n in lengths) / 2)
    by_k = sum(2 * (n - 1) * n / 1.5 for n in lengths) / 2
    assert torch.autograd.grad(penalty, k)[0].item() == pytest.approx(by_k)


@pytest.mark.parametrize("name", ["gradient", "zero-centred"])
def test_second_order_gradients_by_finite_differences(name: str) -> None:
    """On a convolutional discriminator with a layer norm."""
    torch.manual_seed(0)
    critic = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(1, 4), nn.Softplus(), nn.Conv2d(4, 1, 2)
    ).double()
    first, last = critic[0].weight, critic[3].weight
    real, fake = numbers(2, *SHAPE, seed=7), numbers(2, *SHAPE, seed=8)
    mix = torch.tensor([0.3, 0.8]).double()

    def penalty(one: Tensor, other: Tensor) -> Tensor:
        weights = {**dict(critic.named_parameters()), "0.weight": one, "3.weight": other}

        def run(pictures: Tensor) -> Tensor:
            return torch.func.functional_call(critic, weights, (pictures,)).flatten()

        if name == "gradient":
            return gradient_penalty(run, real, fake, mix)
        return zero_centred_penalty(run, real)

    inputs = [weight.detach().clone().requires_grad_() for weight in (first, last)]
    assert torch.autograd.gradcheck(penalty, inputs)


def test_double_gradients_through_a_spectral_norm() -> None:
    """D(x) = (W / sigma) x: R1 is half the squared length of the normalised row."""
    critic = nn.Sequential(
        nn.Flatten(), nn.Linear(SIZE, HIDDEN), nn.Linear(HIDDEN, 1), nn.Flatten(0)
    )
    spectral_norm_(critic, iterations=50, generator=torch.Generator().manual_seed(3))
    got = zero_centred_penalty(critic, numbers(N, *SHAPE, seed=9, dtype=torch.float32))
    first, second = (critic[i].parametrizations.weight.original for i in (1, 2))
    w = first / torch.linalg.matrix_norm(first, 2)
    row = (second / torch.linalg.matrix_norm(second, 2)) @ w
    torch.testing.assert_close(got, 0.5 * row.square().sum(), rtol=1e-4, atol=1e-5)
    wanted = torch.autograd.grad(0.5 * row.square().sum(), first)[0]
    torch.testing.assert_close(torch.autograd.grad(got, first)[0], wanted, rtol=1e-3, atol=1e-5)


def test_a_flat_discriminator_gives_finite_gradients() -> None:
    """The length of a gradient of 0 has no derivative; training must survive it."""
    weight = torch.zeros(SIZE, dtype=torch.float64, requires_grad=True)
    pictures = numbers(N, *SHAPE)
    for penalty in (
        zero_centred_penalty(lambda x: x.flatten(1) @ weight, pictures),
        gradient_penalty(lambda x: x.flatten(1) @ weight, pictures, -pictures, torch.zeros(N)),
    ):
        assert torch.isfinite(torch.autograd.grad(penalty, weight)[0]).all()


class TwoViews(nn.Module):
    """Gives prepared (logits, features) in turn, scaled by a parameter."""

    def __init__(self, views: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.views = views
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.calls = 0

    def logits_and_features(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        logits, features = self.views[self.calls]
        self.calls += 1
        return self.scale * logits, self.scale * features


def views() -> list[tuple[Tensor, Tensor]]:
    return [(numbers(3, seed=10), numbers(3, 2, seed=11)), (numbers(3, seed=12), numbers(3, 2))]


@pytest.mark.parametrize("bound", [0.0, 0.3])
def test_the_consistency_term_is_the_formula(bound: float) -> None:
    (one, h), (other, k) = views()
    terms = [
        (one[n] - other[n]).item() ** 2
        + 0.1 * sum((h[n, f] - k[n, f]).item() ** 2 for f in range(2)) / 2
        for n in range(3)
    ]
    assert min(terms) < 0.3 < max(terms)  # the bound cuts some and leaves some
    critic = TwoViews(views())
    got = consistency_term(critic.logits_and_features, torch.zeros(3, *SHAPE), bound)
    assert got.item() == pytest.approx(sum(max(0, term - bound) for term in terms) / 3)
    # Every distance is quadratic in the scale, so its derivative at scale 1 is twice the distance.
    slope = torch.autograd.grad(got, critic.scale)[0].item()
    assert slope == pytest.approx(sum(2 * term for term in terms if term > bound) / 3)


def test_consistency_is_zero_without_dropout_and_not_with() -> None:
    class Dropping(nn.Module):
        def __init__(self, p: float) -> None:
            super().__init__()
            self.hidden, self.drop = nn.Linear(SIZE, 16), nn.Dropout(p)
            self.last = nn.Linear(16, 1)

        def logits_and_features(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
            features = self.drop(self.hidden(pictures.flatten(1)))
            return self.last(features).flatten(), features

    torch.manual_seed(0)
    real = numbers(N, *SHAPE, dtype=torch.float32)
    seen = Seen(real, real, torch.arange(N), torch.tensor(0))
    assert Consistency()(Dropping(0.0), seen) == 0
    assert Consistency()(Dropping(0.5), seen) > 0


def seen(step: int = 0, dtype: torch.dtype = torch.float64) -> Seen:
    real, fake = numbers(N, *SHAPE, seed=13), numbers(N, *SHAPE, seed=14)
    return Seen(real.to(dtype), fake.to(dtype), torch.arange(N) + 7, torch.tensor(step))


def test_each_penalty_looks_where_it_should_with_its_weight() -> None:
    critic, given = TwoLayers(), seen(step=3)
    mix = uniform(5, Stream.GRADIENT_PENALTY, 3, torch.arange(N) + 7, 1)[:, 0]
    assert mix.unique().numel() == N
    expected = {
        GradientPenalty(5): 10 * gradient_penalty(critic, given.real, given.fake, mix),
        R1(0.5): 0.5 * zero_centred_penalty(critic, given.real),
        R2(3.0): 3 * zero_centred_penalty(critic, given.fake),
    }
    for penalty, value in expected.items():
        assert torch.equal(penalty(critic, given), value), penalty
    both = views()
    plain = consistency_term(TwoViews(both).logits_and_features, given.real)
    assert torch.equal(Consistency()(TwoViews(both), given), 2 * plain)


def test_where_the_gradient_penalty_looks_is_counted() -> None:
    critic = TwoLayers()
    first = GradientPenalty(5)(critic, seen(0))
    assert torch.equal(GradientPenalty(5)(critic, seen(0)), first)
    assert GradientPenalty(5)(critic, seen(1)) != first
    assert GradientPenalty(6)(critic, seen(0)) != first


def test_bfloat16_pictures_under_autocast_are_computed_in_float32() -> None:
    critic, given = TwoLayers().float(), seen(dtype=torch.bfloat16)
    exact = Seen(given.real.float(), given.fake.float(), given.samples, given.step)
    for penalty in (GradientPenalty(1), R1(1.0), R2(1.0)):
        with torch.autocast("cpu", torch.bfloat16):
            got = penalty(critic, given)
        assert got.dtype == torch.float32
        assert torch.equal(got, penalty(critic, exact))


def test_the_pictures_are_left_as_they_were() -> None:
    critic, given = TwoLayers(), seen()
    for penalty in (GradientPenalty(1), R1(1.0), R2(1.0)):
        penalty(critic, given).backward()
    for pictures in (given.real, given.fake):
        assert not pictures.requires_grad
        assert pictures.grad is None
    assert critic.w.grad is not None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: R1(0.0), "--r1 0: a positive number"),
        (lambda: R2(float("inf")), "--r2 inf: a positive number"),
        (lambda: GradientPenalty(0, -1.0), "--gradient-penalty -1: a positive number"),
        (lambda: R1(1.0, every=0), "--r1-every 0: at least 1"),
        (lambda: Consistency(bound=-1.0), "consistency bound -1: a number of at least 0"),
    ],
)
def test_a_wrong_setting_is_named(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_a_discriminator_without_features_is_refused() -> None:
    with pytest.raises(ConfigError, match="--consistency: this discriminator has no"):
        Consistency()(TwoLayers(), seen())
