"""The Fréchet distance against closed forms, a matrix root in numpy, and torch-fidelity."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pokegan.metrics.frechet import Gaussian, fit, frechet_distance, frechet_estimate


def features(count: int, dimensions: int, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimensions, dimensions, generator=generator)
    return scale * torch.randn(count, dimensions, generator=generator) @ mixing + seed


def root_in_numpy(one: Tensor, two: Tensor) -> float:
    """Equation 6 of arXiv 1706.08500, word for word, with the root by eigenvalues of S T."""
    x, y = one.double().numpy(), two.double().numpy()
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(s @ t).astype(complex)).real.sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * root)


def test_closed_form_of_commuting_gaussians() -> None:
    """For diagonal covariances the distance is |m - n|^2 + sum (sqrt s - sqrt t)^2."""
    s, t = torch.tensor([1.0, 4.0, 0.25]).double(), torch.tensor([9.0, 4.0, 1e-12]).double()
    mean = torch.tensor([1.0, 2.0, 3.0]).double()
    one = Gaussian(torch.zeros(3).double(), s.sqrt().diag(), 100)
    two = Gaussian(mean, t.sqrt().diag(), 100)
    wanted = 14.0 + float((s.sqrt() - t.sqrt()).square().sum())
    assert frechet_distance(one, two) == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize(("counts", "rows"), [((400, 300), 2048), ((3000, 2500), 37)])
def test_equals_the_root_of_the_product(
    counts: tuple[int, int], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pokegan.metrics.frechet._ROWS", rows)
    one, two = features(counts[0], 24, 1), features(counts[1], 24, 2, 0.5)
    ours = frechet_distance(fit(one), fit(two))
    assert ours == pytest.approx(root_in_numpy(one, two), rel=1e-9)


@pytest.mark.parametrize("counts", [(500, 400), (30, 400), (20, 25)])
def test_equals_torch_fidelity(counts: tuple[int, int]) -> None:
    """Singular covariances too, where its root of eigenvalues keeps only half of the digits."""
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    one, two = features(counts[0], 48, 1).double(), features(counts[1], 48, 2).double()
    statistics = [fid.fid_features_to_statistics(side) for side in (one, two)]
    theirs = fid.fid_statistics_to_metric(*statistics, False)[fid.KEY_METRIC_FID]
    assert frechet_distance(fit(one), fit(two)) == pytest.approx(theirs, rel=1e-6)


def test_the_factor_is_that_of_the_covariance() -> None:
    some = features(200, 16, 3)
    found = fit(some)
    assert found.factor.shape == (16, 16)
    covariance = torch.from_numpy(np.cov(some.double().numpy(), rowvar=False))
    torch.testing.assert_close(found.factor.T @ found.factor, covariance, rtol=1e-10, atol=1e-10)
    assert not found.singular
    assert fit(features(16, 16, 3)).singular


def test_equal_sets_are_at_distance_0_even_where_singular() -> None:
    few = features(20, 200, 4)
    scale = float(fit(few).factor.square().sum())
    assert frechet_distance(fit(few), fit(few.flip(0))) < 1e-12 * scale


def test_one_picture_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="covariance of 1"):
        fit(torch.zeros(1, 4))


def test_the_interval_is_as_wide_as_repeated_draws_say() -> None:
    real = fit(features(300, 8, 1))
    mixing = torch.eye(8) * 3
    draws = [
        frechet_estimate(
            real,
            torch.randn(400, 8, generator=torch.Generator().manual_seed(seed)) @ mixing + 0.5,
            seed,
        )
        for seed in range(40)
    ]
    spread = torch.tensor([one.value for one in draws]).std()
    errors = torch.tensor([(one.high - one.low) / (2 * 1.96) for one in draws])
    assert 0.7 < errors.mean() / spread < 1.4


def test_the_parts_add_up_to_the_whole() -> None:
    """Each group once is the set itself."""
    from pokegan.metrics.frechet import _Parts

    real, fakes = fit(features(60, 10, 1)), features(90, 10, 2)
    parts = _Parts.of(real, fakes)
    whole = parts.distance(torch.ones(len(parts.counts), dtype=torch.float64))
    assert whole == pytest.approx(frechet_distance(real, fit(fakes)), rel=1e-5)
