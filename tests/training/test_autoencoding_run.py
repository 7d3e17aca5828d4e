"""A run of AEGAN: what it was not trained on comes back, and a resumed run is the same run."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pokegan import recipes
from pokegan.config import NetworkConfig, OptimizerConfig, RunConfig, override
from pokegan.data import prepare
from pokegan.data.options import PrepareOptions
from pokegan.data.packed import PackedImages
from pokegan.data.sources import FolderSource
from pokegan.monitor.stats import read_stats
from pokegan.training.build import build
from pokegan.training.session import resume, train

COUNT, HELD_OUT, STEPS = 40, 8, 90


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A narrow AEGAN of 16 px on pictures of one colour each, its noise layers on."""
    folder = tmp_path_factory.mktemp("flat")
    random = np.random.default_rng(3)
    for number, colour in enumerate(random.integers(0, 256, (COUNT, 3))):
        Image.new("RGB", (16, 16), tuple(map(int, colour))).save(folder / f"{number}.png")
    packed = folder / "packed"
    options = PrepareOptions(size=16, keep_duplicates=True)
    prepare(FolderSource(folder), options, packed, workers=1)
    adam = OptimizerConfig(lr=5e-3, weight_decay=1e-8)
    narrow = dataclasses.replace(
        recipes.get("aegan"),
        generator=NetworkConfig("aegan", {"channels": [64, 32, 16]}),
        encoder=NetworkConfig("aegan", {"channels": [16, 32]}),
        discriminator=NetworkConfig("aegan", {"channels": [16, 32]}),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
    )
    return override(
        narrow,
        {
            "data.source": str(packed),
            "data.size": 16,
            "data.hue": 0.0,
            "data.shift": 0,
            "data.holdout": HELD_OUT,
            "latent.size": 8,
            "length.steps": STEPS,
            "training.batch": 16,
            "training.precision": "fp32",
            "training.device": "cpu",
            "output.samples": 4,
            "output.plots": False,
            "output.log_every": 15,
            "output.sample_every": 10,
        },
    )


def test_held_out_pictures_come_back_and_a_resumed_run_is_the_same(
    config: RunConfig, tmp_path: Path
) -> None:
    whole = train(config, tmp_path / "whole")
    records = read_stats(whole.folder / "stats.jsonl")
    measured = [
        (record["step"], record["held_out/reconstruction"])
        for record in records
        if "held_out/reconstruction" in record
    ]
    assert measured[0][0] == 15  # of the networks before their first step
    assert measured[-1][0] == STEPS  # the finished networks are measured too
    assert measured[-1][1] < measured[0][1] / 2
    grids = sorted((whole.folder / "reconstructions").glob("epoch-*.png"))
    assert len(grids) == len(list((whole.folder / "samples").glob("epoch-*.png"))) > 2

    train(override(config, {"length.steps": STEPS // 2}), tmp_path / "parts")
    parts = resume(tmp_path / "parts", {"length.steps": STEPS})
    assert parts.weights.read_bytes() == whole.weights.read_bytes()
    last = read_stats(parts.folder / "stats.jsonl")[-1]
    for name, value in records[-1].items():
        if name.startswith(("loss/", "score/", "held_out/", "gradient/")):
            assert last[name] == value, name


def test_held_out_pictures_are_never_trained_on(config: RunConfig) -> None:
    packed = PackedImages.open(Path(config.data.source))
    parts = build(config, packed)
    assert parts.held_out is not None
    assert parts.held_out.shape == (HELD_OUT, 3, 16, 16)
    assert parts.source.count == COUNT - HELD_OUT

    def colours(pictures: torch.Tensor) -> set[tuple[int, ...]]:
        corners = ((pictures[:, :, 0, 0] + 1) * 127.5).round().int()
        return {tuple(corner.tolist()) for corner in corners}

    seen = set.union(*(colours(parts.source.batch(16 * step, 16).images) for step in range(10)))
    kept_out = colours(parts.held_out)
    assert len(seen) == COUNT - HELD_OUT
    assert len(kept_out) == HELD_OUT
    assert not seen & kept_out
    assert seen | kept_out == {tuple(map(int, image[0, 0])) for image in packed.images}
