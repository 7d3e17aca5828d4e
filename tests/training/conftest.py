"""Fixtures of the training tests: every recipe as a small run."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pokegan import recipes
from pokegan.config import LengthConfig, NetworkConfig, RunConfig, override

Narrow = Callable[..., RunConfig]


@pytest.fixture
def narrow(packed_folder: Path) -> Narrow:
    """(name, changes by path) to a recipe at 16 px with few channels, on the CPU, eager."""

    def make(recipe: str, changes: dict[str, Any] | None = None) -> RunConfig:
        config = recipes.get(recipe)
        config = dataclasses.replace(
            config,
            generator=_few(config.generator, {"aegan": [8, 8]}),
            discriminator=_few(config.discriminator, {"aegan": [8, 8]}),
            encoder=config.encoder and _few(config.encoder, {"aegan": [8, 8]}),
            length=LengthConfig(steps=6),
        )
        small = {
            "data.source": str(packed_folder),
            "data.size": 16,
            "data.holdout": 0,
            "data.shift": 0,
            "latent.size": 8,
            "training.batch": 4,
            "training.precision": "fp32",
            "training.device": "cpu",
            "training.compile": "off",
            "output.samples": 4,
            "output.plots": False,
        }
        if config.schedule.stages:
            small["schedule.stages"] = "8:5e-4x1;16:5e-4x1"
        return override(config, {**small, **(changes or {})})

    return make


def _few(network: NetworkConfig, own: dict[str, list[int]]) -> NetworkConfig:
    left_out = ("base", "keep_side")  # they belong to larger pictures
    options = {key: value for key, value in network.options.items() if key not in left_out}
    return dataclasses.replace(
        network, options={**options, "channels": own.get(network.name, [8, 8])}
    )
