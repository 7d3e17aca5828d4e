"""Precision, recall, density and coverage against brute force, torch-fidelity and made cases."""

import pytest
import torch
from torch import Tensor

from pokegan.metrics.manifold import manifold, spread
from pokegan.metrics.neighbours import distances, nearest, radii


def draw(count: int, seed: int, shift: float = 0.0, dimensions: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimensions, generator=generator) + shift


def exact(one: Tensor, two: Tensor) -> Tensor:
    return (one.double()[:, None] - two.double()[None]).norm(dim=2)


def brute_force(real: Tensor, fake: Tensor) -> dict[str, float]:
    """The papers' definitions on whole matrices of distances."""

    def kth(points: Tensor, k: int) -> Tensor:
        return exact(points, points).sort(dim=1).values[:, k]  # place 0 is the point itself

    between = exact(real, fake)
    near, far, reach = kth(real, 3), kth(real, 5), kth(fake, 3)
    inside = between < far[:, None]
    return {
        "precision": float((between <= near[:, None]).any(dim=0).double().mean()),
        "recall": float((between <= reach).any(dim=1).double().mean()),
        "density": float(inside.double().sum() / (5 * len(fake))),
        "coverage": float(inside.any(dim=1).double().mean()),
    }


@pytest.mark.parametrize("rows", [7, 512])
def test_equals_brute_force(rows: int) -> None:
    real, fake = draw(60, 1), draw(60, 2, 0.7)
    found = manifold(real, fake, rows)
    for name, wanted in brute_force(real, fake).items():
        assert float(getattr(found, name).mean()) == pytest.approx(wanted, abs=1e-12), name
    assert 0.05 < float(found.precision.mean()) < 0.95  # a case in which something is at stake


def test_equals_torch_fidelity() -> None:
    prc = pytest.importorskip("torch_fidelity.metric_prc")
    real, fake = draw(150, 3), draw(150, 4, 0.5)
    precision, recall = prc.calculate_precision_recall_full(fake.double(), real.double())
    found = manifold(real, fake)
    assert float(found.precision.mean()) == pytest.approx(precision, abs=1e-6)
    assert float(found.recall.mean()) == pytest.approx(recall, abs=1e-6)


def test_more_fakes_are_compared_in_sets_of_as_many_as_there_are_reals() -> None:
    real, fake = draw(40, 1), draw(95, 2, 0.5)
    sets = [brute_force(real, fake[:40]), brute_force(real, fake[40:80])]
    found = manifold(real, fake)
    for name in sets[0]:
        wanted = (sets[0][name] + sets[1][name]) / 2
        assert float(getattr(found, name).mean()) == pytest.approx(wanted, abs=1e-12), name
    assert len(found.precision) == 80
    assert len(found.recall) == 40


def test_more_reals_are_cut_to_as_many_as_there_are_fakes() -> None:
    real, fake = draw(70, 1), draw(30, 2)
    wanted = brute_force(real[:30], fake)
    assert float(manifold(real, fake).coverage.mean()) == pytest.approx(wanted["coverage"])


def test_dropping_modes_lowers_recall_and_not_precision() -> None:
    centres = 8 * torch.eye(6)
    everything = torch.cat([draw(50, i, dimensions=6) + centres[i] for i in range(6)])
    again = torch.cat([draw(50, 10 + i, dimensions=6) + centres[i] for i in range(6)])
    two_modes = torch.cat([draw(150, 20 + i, dimensions=6) + centres[i] for i in range(2)])
    whole, dropped = manifold(everything, again), manifold(everything, two_modes)
    assert float(dropped.precision.mean()) > float(whole.precision.mean()) - 0.05
    assert float(dropped.recall.mean()) < 0.4 < 0.7 < float(whole.recall.mean())
    assert float(dropped.coverage.mean()) < 0.4


def test_spread_tells_copies_of_one_another_from_variety() -> None:
    real = draw(200, 1)
    few = real[:8].repeat(25, 1) + 0.01 * draw(200, 2)
    assert spread(real, few) < 0.1
    assert spread(real, draw(200, 3)) == pytest.approx(1, abs=0.15)
    assert spread(real, draw(400, 3)) == pytest.approx(manifold(real, draw(400, 3)).spread)


def test_distances_of_far_away_points_keep_their_digits() -> None:
    points = draw(30, 1, dimensions=8)
    moved = points.double() + 1e6
    _, block = next(distances(moved, moved))
    torch.testing.assert_close(block, exact(points, points), rtol=0, atol=1e-6)


def test_memory_is_that_of_the_rows_asked_for() -> None:
    sizes = [block.shape for _, block in distances(draw(50, 1), draw(33, 2), rows=16)]
    assert sizes == [(16, 33), (16, 33), (16, 33), (2, 33)]


def test_the_nearest_of_several_variants() -> None:
    queries, points, other = draw(20, 1), draw(30, 2), draw(30, 3)
    found, places = nearest(queries, (points, other), 2, rows=6)
    wanted = torch.minimum(exact(queries, points), exact(queries, other)).sort(dim=1)
    torch.testing.assert_close(found, wanted.values[:, :2])
    assert (places == wanted.indices[:, :2]).all()


def test_a_point_is_no_neighbour_of_its_own_variants() -> None:
    points = draw(12, 1)
    found, places = nearest(points, (points, points + 1e-3), others=True, rows=5)
    assert (places[:, 0] != torch.arange(12)).all()
    assert float(found.min()) > 0.1


def test_too_few_points() -> None:
    with pytest.raises(ValueError, match="5 neighbours among 4 points"):
        radii(draw(5, 1), (3, 5))
