"""The transforms of the adaptive augmentation against matrices multiplied one by one."""

import math

import numpy as np
import pytest
import torch

from pokegan.augment.adaptive_draws import TRANSFORMS, Draws, draw, placement, recolour
from pokegan.ops.random import Stream

IDENTITY = {"move_x": 0, "move_y": 0, "flip": 1, "turns": 0, "scale": 1, "turn_before": 0}
IDENTITY |= {"stretch": 1, "turn_after": 0, "drift_x": 0, "drift_y": 0, "brightness": 0}
IDENTITY |= {"contrast": 1, "luma": 1, "hue": 0, "saturation": 1}
COLOURS = ("brightness", "contrast", "luma", "hue", "saturation")


def drawn(p: float, count: int = 6000, policy=TRANSFORMS, step: int = 5) -> Draws:
    samples = torch.arange(count)
    return draw(1, Stream.ADA_REAL, step, samples, torch.tensor(p), frozenset(policy), 64, 48)


def values_of(draws: Draws, sample: int) -> dict[str, float]:
    return {name: part[sample].item() for name, part in draws._asdict().items()}


def shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def turn(angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])


def test_a_placement_undoes_the_product_of_the_steps() -> None:
    draws = drawn(0.8, 50)
    got = torch.stack(placement(draws), dim=1).double().numpy()
    for sample in range(50):
        v = values_of(draws, sample)
        forward = shift(v["move_x"], v["move_y"])
        forward = np.diag([v["flip"], 1, 1]) @ forward
        forward = turn(v["turns"] * math.pi / 2) @ forward
        forward = np.diag([v["scale"], v["scale"], 1]) @ forward
        forward = turn(v["turn_before"]) @ forward
        forward = np.diag([v["stretch"], 1 / v["stretch"], 1]) @ forward
        forward = turn(v["turn_after"]) @ forward
        forward = shift(v["drift_x"], v["drift_y"]) @ forward
        inverse = np.linalg.inv(forward)
        want = [*inverse[0, :2], *inverse[1, :2], *inverse[:2, 2]]
        np.testing.assert_allclose(got[sample], want, atol=1e-4, rtol=1e-5)


def test_a_recolouring_is_the_product_of_4x4_matrices() -> None:
    draws = drawn(0.8, 50)
    random = torch.Generator().manual_seed(1)
    pictures = torch.rand((50, 3, 2, 2), generator=random, dtype=torch.float64) * 2 - 1
    got = recolour(pictures, draws).numpy()
    axis = np.array([1, 1, 1, 0]) / math.sqrt(3)
    along = np.outer(axis, axis)
    skew = np.zeros((4, 4))
    skew[:3, :3] = np.cross(np.eye(3), axis[:3])  # skew @ x is axis x x
    for sample in range(50):
        v = values_of(draws, sample)
        matrix = np.eye(4)
        matrix[:3, 3] += v["brightness"]
        matrix = np.diag([v["contrast"]] * 3 + [1]) @ matrix
        matrix = (np.eye(4) - (1 - v["luma"]) * along) @ matrix
        cos, sin = math.cos(v["hue"]), math.sin(v["hue"])
        turned = np.eye(4) * cos + (1 - cos) * along + sin * skew
        turned[3, 3] = 1
        matrix = turned @ matrix
        matrix = (along + (np.diag([1, 1, 1, 0]) - along) * v["saturation"]) @ matrix
        ones = np.ones((1, 2, 2))
        homogeneous = np.concatenate([pictures[sample].numpy(), ones])
        want = np.einsum("ij,jyx->iyx", matrix, homogeneous)[:3]
        np.testing.assert_allclose(got[sample], want, atol=1e-5)


def test_at_zero_every_transform_is_its_identity() -> None:
    for name, part in drawn(0.0)._asdict().items():
        assert torch.equal(part, torch.full_like(part, IDENTITY[name])), name


def test_a_group_left_out_is_the_identity_and_leaves_the_rest() -> None:
    alone, together = drawn(0.7, 500, ["colour"])._asdict(), drawn(0.7, 500)._asdict()
    for name in IDENTITY:
        if name in COLOURS:
            assert torch.equal(alone[name], together[name])
        else:
            assert torch.equal(alone[name], torch.full_like(alone[name], IDENTITY[name]))


def test_at_one_the_parameters_have_the_distributions_of_the_paper() -> None:
    draws = drawn(1.0)
    for part, sides in ((draws.flip, (-1, 1)), (draws.luma, (-1, 1)), (draws.turns, range(4))):
        for side in sides:
            assert (part == side).float().mean().item() == pytest.approx(1 / len(sides), abs=0.03)
    for part, deviation in (
        (draws.scale.log2(), 0.2),
        (draws.stretch.log2(), 0.2),
        (draws.drift_x / 48, 0.125),
        (draws.drift_y / 64, 0.125),
        (draws.brightness, 0.2),
        (draws.contrast.log2(), 0.5),
        (draws.saturation.log2(), 1.0),
    ):
        assert part.mean().item() == pytest.approx(0, abs=0.06 * deviation)
        assert part.std().item() == pytest.approx(deviation, rel=0.05)
    assert draws.move_x.abs().max() == 6
    assert draws.move_y.abs().max() == 8
    assert torch.equal(draws.move_x, draws.move_x.round())
    assert draws.hue.std().item() == pytest.approx(2 * math.pi / math.sqrt(12), rel=0.03)
    # With both rotations applied always, either covers the circle.
    assert draws.turn_before.std().item() == pytest.approx(math.pi / math.sqrt(3), rel=0.03)


def test_each_transform_is_applied_with_probability_p_and_on_its_own() -> None:
    p = 0.3
    draws = drawn(p)._asdict()
    applied = {name: draws[name] != IDENTITY[name] for name in IDENTITY}
    for name in ("scale", "stretch", "drift_x", "brightness", "contrast", "hue", "saturation"):
        assert applied[name].float().mean().item() == pytest.approx(p, abs=0.025), name
    for name, share in (("flip", p / 2), ("luma", p / 2), ("turns", p * 3 / 4)):
        assert applied[name].float().mean().item() == pytest.approx(share, abs=0.025), name
    either = (applied["turn_before"] | applied["turn_after"]).float().mean().item()
    assert either == pytest.approx(p, abs=0.025)
    single = [name for name in IDENTITY if name not in ("move_y", "drift_y")]
    gates = torch.stack([applied[name].float() for name in single])
    correlation = torch.corrcoef(gates) - torch.eye(len(single))
    assert correlation.abs().max() < 0.06


def test_parameters_are_uncorrelated() -> None:
    parts = torch.corrcoef(torch.stack(drawn(1.0))) - torch.eye(15)
    assert parts.abs().max() < 0.06


def test_steps_and_streams_differ() -> None:
    assert not torch.equal(drawn(1.0, 20).hue, drawn(1.0, 20, step=6).hue)
