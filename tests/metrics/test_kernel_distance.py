"""The kernel distance against sums over all pairs, torch-fidelity, and repeated draws."""

import itertools

import pytest
import torch
from torch import Tensor

from pokegan.metrics.kernel import kernel_distance


def draw(count: int, seed: int, shift: float = 0.0, dimensions: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimensions, generator=generator) + shift


def by_pairs(real: Tensor, fake: Tensor) -> float:
    """Equation 4 of arXiv 1801.01401, a pair at a time."""

    def kernel(x: Tensor, y: Tensor) -> float:
        return float((x.double() @ y.double() / len(x) + 1) ** 3)

    m, n = len(real), len(fake)
    inside = sum(kernel(x, y) for x, y in itertools.permutations(real, 2)) / (m * (m - 1))
    inside += sum(kernel(x, y) for x, y in itertools.permutations(fake, 2)) / (n * (n - 1))
    return inside - 2 * sum(kernel(x, y) for x in real for y in fake) / (m * n)


def test_equals_the_sum_over_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pokegan.metrics.kernel._ROWS", 5)
    real, fake = draw(12, 1), draw(17, 2, 0.4)
    assert kernel_distance(real, fake).value == pytest.approx(by_pairs(real, fake), rel=1e-10)


def test_equals_torch_fidelity_on_one_subset_of_all() -> None:
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    real, fake = draw(80, 1).double(), draw(80, 2, 0.3).double()
    theirs = kid.kid_features_to_metric(
        fake, real, kid_subsets=1, kid_subset_size=80, verbose=False
    )[kid.KEY_METRIC_KID_MEAN]
    assert kernel_distance(real, fake).value == pytest.approx(theirs, rel=1e-9)


def test_its_mean_over_subsets_is_the_same_and_it_is_unbiased() -> None:
    """Of sets of one distribution the mean over draws is 0, and the errors are as stated."""
    found = [kernel_distance(draw(30, 2 * seed), draw(50, 2 * seed + 1)) for seed in range(200)]
    values = torch.tensor([one.value for one in found])
    errors = torch.tensor([(one.high - one.low) / (2 * 1.96) for one in found])
    assert values.mean().abs() < 3 * values.std() / 200**0.5
    assert 0.7 < errors.square().mean().sqrt() / values.std() < 1.6


def test_the_error_away_from_0_is_that_of_repeated_draws() -> None:
    found = [
        kernel_distance(draw(60, 2 * seed), draw(90, 2 * seed + 1, 1.0)) for seed in range(100)
    ]
    values = torch.tensor([one.value for one in found])
    errors = torch.tensor([(one.high - one.low) / (2 * 1.96) for one in found])
    assert 0.75 < errors.mean() / values.std() < 1.3


def test_too_few_pictures() -> None:
    with pytest.raises(ValueError, match="2 and 9"):
        kernel_distance(draw(2, 1), draw(9, 2))
