"""Shared fixtures: repeatable chance, the tests' own cache, a small packed set, quick configs."""

import dataclasses
from pathlib import Path

import hypothesis
import pytest
import torch

from pokegan import recipes
from pokegan.config import LengthConfig, NetworkConfig, RunConfig, override

# The same examples each time; `pytest --hypothesis-profile=default` tries others. A busy machine
# may take its time over one.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Let each test draw the same random numbers, whichever ran before it."""
    torch.manual_seed(1)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep the tests out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POKEGAN_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def packed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed set of 20 creatures of 16 px."""
    from pokegan.data import prepare
    from pokegan.data.options import PrepareOptions
    from pokegan.data.sources import DemoSource

    folder = tmp_path_factory.mktemp("packed") / "creatures-16"
    options = PrepareOptions(size=16, keep_duplicates=True)
    prepare(DemoSource(count=20), options, folder, workers=1)
    return folder


@pytest.fixture
def tiny(packed_folder: Path) -> RunConfig:
    """A run of 6 steps that takes about a second, in exact arithmetic."""
    config = dataclasses.replace(
        recipes.get("house-dcgan"),
        generator=NetworkConfig("dcgan", {"channels": [16, 8]}),
        discriminator=NetworkConfig("dcgan", {"channels": [8, 16]}),
        length=LengthConfig(steps=6),
    )
    return override(
        config,
        {
            "data.source": str(packed_folder),
            "data.size": 16,
            "latent.size": 8,
            "training.batch": 8,
            "training.precision": "fp32",
            "training.device": "cpu",
            "output.samples": 4,
            "output.plots": False,  # drawing takes longer than such a run
        },
    )
