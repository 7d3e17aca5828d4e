"""Ways through the latent space: where they pass, that they close, and how they are spread."""

import math

import numpy as np
import pytest
import torch

from pokegan.config import LatentConfig, NetworkConfig
from pokegan.errors import ConfigError
from pokegan.training.generator import Generator, GeneratorSpec
from pokegan.training.latents import between
from pokegan.training.networks import build_generator
from pokegan.training.walks import line, sweep, walk

NORMAL, UNIFORM = LatentConfig(size=6), LatentConfig(size=6, distribution="uniform")
NETWORK = NetworkConfig("dcgan", {"channels": [16, 8]})


def make(latent: LatentConfig = NORMAL) -> Generator:
    torch.manual_seed(0)
    network = build_generator(NETWORK, latent, 16)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4.0)  # so that pictures differ clearly
    return Generator(network, GeneratorSpec(NETWORK, latent, 16, "test", 0, 0))


def slerp(start: np.ndarray, end: np.ndarray, share: float) -> np.ndarray:
    """Turn the direction of `start` toward `end` by rotation in their plane."""
    a, b = start / np.linalg.norm(start), end / np.linalg.norm(end)
    across = b - (a @ b) * a
    across /= np.linalg.norm(across)
    angle = share * math.acos(a @ b)
    length = (1 - share) * np.linalg.norm(start) + share * np.linalg.norm(end)
    return length * (math.cos(angle) * a + math.sin(angle) * across)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.83])
def test_normal_latents_turn_along_the_great_circle(share: float) -> None:
    start, end = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
    found = between(NORMAL, start, end, share)
    for a, b, c in zip(start, end, found, strict=True):
        expected = slerp(a.double().numpy(), b.double().numpy(), share)
        np.testing.assert_allclose(c.numpy(), expected, atol=1e-6)


def test_uniform_latents_stay_uniform_on_the_way() -> None:
    numbers = torch.Generator().manual_seed(2)
    start, end = torch.rand(2, 4000, 32, generator=numbers) * 2 - 1
    middle = between(UNIFORM, start, end, 0.5).double().flatten()
    assert middle.abs().max() <= 1
    quantiles = torch.quantile(middle[:100_000], torch.linspace(0.05, 0.95, 19).double())
    assert torch.allclose(quantiles, torch.linspace(-0.9, 0.9, 19).double(), atol=0.02)


@pytest.mark.parametrize("latent", [NORMAL, UNIFORM], ids=["normal", "uniform"])
def test_the_ends_come_back_bit_for_bit(latent: LatentConfig) -> None:
    generator = make(latent)
    start, end = generator.latents(3), generator.latents(3, first=3)
    assert torch.equal(between(latent, start, end, 0), start)
    assert torch.equal(between(latent, start, end, 1), end)


@pytest.mark.parametrize(
    ("start", "end"),
    [([1.0, 0.0], [1.0, 0.0]), ([1.0, 0.0], [-1.0, 0.0]), ([0.0, 0.0], [1.0, 0.0])],
    ids=["equal", "opposite", "zero"],
)
def test_ends_without_a_circle_give_finite_latents(start: list[float], end: list[float]) -> None:
    latent = LatentConfig(size=2)
    assert between(latent, torch.tensor([start]), torch.tensor([end]), 0.3).isfinite().all()


@pytest.mark.parametrize("latent", [NORMAL, UNIFORM], ids=["normal", "uniform"])
def test_a_walk_passes_through_the_samples_of_its_seed(latent: LatentConfig) -> None:
    generator = make(latent)
    frames = list(walk(generator, n=3, frames=20, keys=4, seed=9, truncation=1.5, first=2, psi=0.9))
    assert len(frames) == 20
    for key in range(4):
        expected = generator.sample(3, 9, 1.5, 2 + 3 * key, psi=0.9)
        assert (frames[5 * key] == expected).all()


@pytest.mark.parametrize("latent", [NORMAL, UNIFORM], ids=["normal", "uniform"])
@pytest.mark.parametrize("kind", ["walk", "sweep"])
def test_a_closed_way_has_no_jump_at_its_seam(kind: str, latent: LatentConfig) -> None:
    generator = make(latent)
    frames = list(walk(generator, 4, 60) if kind == "walk" else sweep(generator, 4, 60))
    pixels = np.stack(frames).astype(np.float64)
    steps = np.sqrt(((np.roll(pixels, -1, axis=0) - pixels) ** 2).mean(axis=(1, 2, 3, 4)))
    assert np.median(steps) > 0.1  # it moves
    assert steps[-1] <= 1.5 * np.median(steps)


def test_a_sweep_goes_from_all_variety_to_one_creature_and_back() -> None:
    generator = make()
    frames = list(sweep(generator, 5, 10, seed=4))
    assert (frames[0] == generator.sample(5, seed=4)).all()
    assert (frames[5] == frames[5][:1]).all()
    assert (frames[5][0] == generator.decode(torch.zeros(1, 6))[0]).all()
    assert all((frames[i] == frames[-i]).all() for i in range(1, 5))


def test_rows_go_from_one_sample_to_the_next() -> None:
    generator = make()
    every = line(generator, rows=3, columns=5, seed=1).reshape(3, 5, 16, 16, 3)
    samples = generator.sample(4, seed=1)
    assert (every[:, 0] == samples[:3]).all()
    assert (every[:, -1] == samples[1:]).all()
    assert (every[:, 2] != every[:, 0]).any(axis=(1, 2, 3)).all()


def test_psi_scales_toward_the_mean() -> None:
    generator = make()
    free = generator.latents(8, seed=3)
    assert torch.equal(generator.latents(8, seed=3, psi=0.25), free * 0.25)
    assert (generator.sample(4, psi=0.0) == generator.decode(torch.zeros(1, 6))).all()


@pytest.mark.parametrize("psi", [-0.1, 1.1, math.nan])
def test_a_psi_out_of_range_is_refused(psi: float) -> None:
    with pytest.raises(ConfigError, match="--psi"):
        make().sample(1, psi=psi)


@pytest.mark.parametrize(("frames", "keys"), [(10, 1), (3, 4)])
def test_a_walk_needs_two_creatures_and_a_frame_for_each(frames: int, keys: int) -> None:
    with pytest.raises(ConfigError, match="--keys"):
        next(walk(make(), 1, frames, keys))


def test_a_row_needs_two_columns() -> None:
    with pytest.raises(ConfigError, match="--interpolate"):
        line(make(), 1, 1)
