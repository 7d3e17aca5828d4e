"""Whole runs: a loader changes nothing but where the pictures are read."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from pokegan import recipes
from pokegan.config import NetworkConfig, RunConfig, override
from pokegan.data.batches import BatchSource, RealBatch
from pokegan.data.creatures import draw_creature
from pokegan.data.loaders import open_pictures
from pokegan.data.options import PrepareOptions
from pokegan.data.packed import PackedImages
from pokegan.errors import ConfigError, DataError
from pokegan.training import checkpoint
from pokegan.training.distributed import Ranks
from pokegan.training.growth import Growth
from pokegan.training.pictures import build_held_out
from pokegan.training.run_folder import create
from pokegan.training.session import resume, train
from pokegan.training.trainer import Trainer


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eleven files of three kinds."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(11):
        picture = Image.fromarray(draw_creature(i, 24, 0))
        if i % 2:
            picture.save(folder / f"{i:02d}.png")
        else:
            picture.convert("RGB").save(folder / f"{i:02d}.jpg")
    return folder


def assert_same_networks(one: Path, other: Path) -> None:
    states = [checkpoint.newest(run / "checkpoints")[1]["networks"] for run in (one, other)]
    for name, network in states[0].items():
        assert all(torch.equal(network[key], states[1][name][key]) for key in network)


def assert_same_from_every_source(config: RunConfig, folder: Path) -> None:
    runs = [
        train(override(config, {"data.loader": loader}), folder / loader)
        for loader in ("resident", "mapped", "torch")
    ]
    assert len({run.weights.read_bytes() for run in runs}) == 1
    for run in runs[1:]:
        assert_same_networks(runs[0].folder, run.folder)


def test_a_run_is_the_same_from_every_source(
    tiny: RunConfig, pictures: Path, tmp_path: Path
) -> None:
    changes = {"data.source": str(pictures), "data.shift": 2, "data.hue": 0.1}
    config = override(tiny, changes)
    assert_same_from_every_source(config, tmp_path)


def test_a_growing_run_is_the_same_from_every_source(
    tiny: RunConfig, pictures: Path, tmp_path: Path
) -> None:
    narrow = dataclasses.replace(
        recipes.get("progan"),
        generator=NetworkConfig("pokegan", {"channels": [8, 8]}, init="kaiming"),
        discriminator=NetworkConfig("pokegan", {"channels": [8, 8]}, init="kaiming"),
        output=tiny.output,
        training=tiny.training,
    )
    changes = {
        "data.source": str(pictures),
        "data.size": 16,
        "data.shift": 2,
        "latent.size": 8,
        "schedule.stages": "8:5e-3x1;16:5e-3x1",
        "length.steps": 6,
    }
    config = override(narrow, changes)
    assert_same_from_every_source(config, tmp_path)


def test_pictures_kept_out_are_the_same_from_every_source(tiny: RunConfig, pictures: Path) -> None:
    config = override(tiny, {"data.source": str(pictures), "data.holdout": 3})
    cpu = torch.device("cpu")
    held_out = [
        build_held_out(
            config, open_pictures(str(pictures), PrepareOptions(16), loader), cpu, size=8
        )
        for loader in ("resident", "torch")
    ]
    assert held_out[0].shape == (3, 3, 8, 8)
    assert torch.equal(*held_out)


def test_resident_and_mapped_take_each_others_place(tiny: RunConfig, tmp_path: Path) -> None:
    whole = train(override(tiny, {"length.steps": 8, "data.loader": "mapped"}), tmp_path / "whole")
    train(override(tiny, {"length.steps": 3, "data.loader": "mapped"}), tmp_path / "parts")
    resume(tmp_path / "parts", {"length.steps": 5, "data.loader": "resident"})
    parts = resume(tmp_path / "parts", {"length.steps": 8, "data.loader": "auto"})
    assert parts.weights.read_bytes() == whole.weights.read_bytes()
    assert_same_networks(whole.folder, parts.folder)


def test_a_decoding_loader_goes_on_as_it_began(
    tiny: RunConfig, pictures: Path, tmp_path: Path
) -> None:
    changes = {"data.source": str(pictures), "data.loader": "torch", "data.workers": 0}
    config = override(tiny, changes)
    whole = train(override(config, {"length.steps": 6}), tmp_path / "whole")
    train(override(config, {"length.steps": 3}), tmp_path / "parts")
    with pytest.raises(ConfigError, match="--loader mapped: this run decodes its pictures by"):
        resume(tmp_path / "parts", {"length.steps": 6, "data.loader": "mapped"})
    parts = resume(tmp_path / "parts", {"length.steps": 6, "data.workers": 1})
    assert_same_networks(whole.folder, parts.folder)


class Before:
    """A source that calls `what` before the batch that begins at sample `first`."""

    def __init__(self, source: BatchSource, first: int, what: Callable[[], object]) -> None:
        self.source, self.first, self.what = source, first, what
        self.count, self.close = source.count, source.close

    def batch(self, first: int, size: int) -> RealBatch:
        if first == self.first:
            self.what()
        return self.source.batch(first, size)


def test_pictures_lost_on_the_way_cost_no_step(
    tiny: RunConfig, packed_folder: Path, tmp_path: Path
) -> None:
    mine = Path(shutil.copytree(packed_folder, tmp_path / "set"))
    changes = {"data.source": str(mine), "data.loader": "mapped", "length.steps": 9}
    config = override(tiny, changes)
    packed = PackedImages.open(mine)
    torch.manual_seed(config.training.seed)
    folder = create(config, tmp_path / "run")
    trainer = Trainer(config, Growth(config, packed), folder, packed.checksum)
    source = Before(trainer.parts.source, 4 * 8, lambda: os.truncate(mine / "images.u8", 100))
    trainer.parts = dataclasses.replace(trainer.parts, source=source)
    with pytest.raises(DataError, match=r"images\.u8 was cut short while it was in use"):
        trainer.train()
    assert 4 <= trainer.done < 9
    assert checkpoint.newest(folder.checkpoints)[1]["step"] == trainer.done
    whole = train(override(config, {"data.source": str(packed_folder)}), tmp_path / "whole")
    parts = resume(folder.path, {"data.source": str(packed_folder)})
    assert_same_networks(whole.folder, parts.folder)


class Lonely(Ranks):
    """One of two ranks, whose other one comes to no exchange."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.place = rank

    @property
    def rank(self) -> int:
        return self.place

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        raise AssertionError("nobody answers")


@pytest.mark.parametrize("rank", [0, 1])
def test_pictures_lost_on_one_rank_alone_are_no_ones_wait(
    tiny: RunConfig, tmp_path: Path, rank: int
) -> None:
    def lose() -> None:
        raise DataError("gone")

    packed = PackedImages.open(tiny.data.source)
    folder = create(tiny, tmp_path / "run")
    trainer = Trainer(tiny, Growth(tiny, packed), folder, packed.checksum, Lonely(rank))
    source = Before(trainer.parts.source, 3 * 8, lose)
    trainer.parts = dataclasses.replace(trainer.parts, source=source)
    with pytest.raises(DataError, match="gone"):
        trainer.train()
    kept = [path.name for path in checkpoint.available(folder.checkpoints)]
    assert kept == ([] if rank else ["step-00000003.pt"])


def test_a_run_says_which_loader_it_uses_and_why(tiny: RunConfig, tmp_path: Path) -> None:
    said: list[str] = []
    train(override(tiny, {"length.steps": 1}), tmp_path / "run", said.append)
    (line,) = [line for line in said if line.startswith("loader")]
    assert line.startswith("loader    resident: the pictures take 15.4 kB, at most 25% of the ")
    with pytest.raises(ConfigError, match="--workers 3 has no effect"):
        train(override(tiny, {"data.workers": 3}), tmp_path / "other")
    assert not (tmp_path / "other").exists()
