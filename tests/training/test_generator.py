"""The trained generator: same creature whatever it is drawn with, truncation, damaged files."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pokegan.config import LatentConfig, NetworkConfig
from pokegan.errors import CheckpointError, ConfigError
from pokegan.training.generator import Generator, GeneratorSpec, load
from pokegan.training.networks import build_generator

SPEC = GeneratorSpec(
    NetworkConfig("dcgan", {"channels": [16, 8]}), LatentConfig(size=6), 16, "test", 3, 1.5
)


def make(spec: GeneratorSpec = SPEC) -> Generator:
    torch.manual_seed(0)
    return Generator(build_generator(spec.network, spec.latent, spec.size), spec)


@settings(deadline=None, max_examples=25)
@given(first=st.integers(0, 70), n=st.integers(1, 40), truncation=st.sampled_from([None, 0.5, 1.0]))
def test_a_creature_is_the_same_alone_or_in_any_batch(first, n, truncation) -> None:
    generator = make()
    every = generator.sample(110, seed=5, truncation=truncation)
    part = generator.sample(n, seed=5, truncation=truncation, first=first)
    assert (part == every[first : first + n]).all()


def test_another_seed_gives_other_creatures() -> None:
    generator = make()
    assert (generator.sample(4, seed=1) != generator.sample(4, seed=2)).any(axis=(1, 2, 3)).all()


def test_samples_are_made_in_eval_mode_and_leave_no_trace() -> None:
    generator = make()
    before = {key: value.clone() for key, value in generator.network.state_dict().items()}
    one, two = generator.sample(8), generator.sample(8)
    assert (one == two).all()
    assert not generator.network.training
    for key, value in generator.network.state_dict().items():
        assert torch.equal(value, before[key])


def test_a_samples_picture_undoes_the_normalisation() -> None:
    class Constant(torch.nn.Module):
        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            levels = torch.tensor([-1.0, 0.0, 1.0])
            return levels.view(1, 3, 1, 1).expand(len(latents), 3, 4, 4)

    picture = Generator(Constant(), SPEC).sample(1)[0]
    assert picture[0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize("bound", [0.1, 0.7, 2.0])
def test_truncation_is_that_of_resampling(distribution: str, bound: float) -> None:
    spec = GeneratorSpec(
        SPEC.network, LatentConfig(size=64, distribution=distribution), 16, "test", 0, 0
    )
    generator = make(spec)
    free = generator.latents(2000, seed=1)
    held = generator.latents(2000, seed=1, truncation=bound)
    assert held.abs().max() <= bound
    inside = free.abs() <= bound
    assert torch.equal(held[inside], free[inside])
    # Against the closed form of the truncated distribution's second moment.
    if distribution == "normal":
        density = math.exp(-(bound**2) / 2) / math.sqrt(2 * math.pi)
        variance = 1 - 2 * bound * density / math.erf(bound / math.sqrt(2))
    else:
        variance = min(bound, 1.0) ** 2 / 3
    assert held.double().square().mean().item() == pytest.approx(variance, rel=0.02)


@pytest.mark.parametrize("arguments", [{"n": 0}, {"n": 1, "seed": -1}, {"n": 1, "first": -1}])
def test_numbers_out_of_range_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        make().sample(**arguments)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan, math.inf])
def test_a_truncation_that_is_none_is_refused(bound: float) -> None:
    with pytest.raises(ConfigError, match="--truncation"):
        make().sample(1, truncation=bound)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    generator = make()
    generator.save(tmp_path / "g.safetensors")
    again = load(tmp_path / "g.safetensors")
    assert again.spec == SPEC
    assert (again.sample(5, seed=9) == generator.sample(5, seed=9)).all()


def test_the_description_is_enough_for_plain_pytorch(tmp_path: Path) -> None:
    generator = make()
    generator.save(tmp_path / "g.safetensors")
    facts = json.loads((tmp_path / "g.json").read_text())
    assert facts["network"] == {
        "name": "dcgan",
        "options": {"channels": [16, 8]},
        "init": "normal",
    }
    assert facts["latent"] == {"size": 6, "distribution": "normal"}
    network = torch.nn.Sequential(
        torch.nn.ConvTranspose2d(6, 16, 4, bias=False),
        torch.nn.BatchNorm2d(16),
        torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(8, 3, 4, 2, 1, bias=False),
        torch.nn.Tanh(),
    ).eval()
    weights = load_file(tmp_path / "g.safetensors")
    network.load_state_dict({key.removeprefix("layers."): value for key, value in weights.items()})
    latents = torch.randn(3, 6)
    expected = generator.network(latents)
    torch.testing.assert_close(network(latents[:, :, None, None]), expected)


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    make().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged weight file"):
        load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="not a generator of pokegan"):
        load(path)
    save_file({"a": torch.zeros(1)}, path, {"pokegan": SPEC.to_json()})
    with pytest.raises(CheckpointError, match="do not fit"):
        load(path)
    with pytest.raises(CheckpointError, match="there is no such"):
        load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="not a run folder"):
        load(tmp_path)
