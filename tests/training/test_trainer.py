"""What a run leaves behind, and the faults of the older projects that it must not have."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pokegan.config import OptimizerConfig, RunConfig, override
from pokegan.data.batches import Augmentation, ResidentSource
from pokegan.data.packed import PackedImages
from pokegan.errors import ConfigError
from pokegan.monitor.stats import read_stats
from pokegan.training.distributed import Ranks
from pokegan.training.generator import load
from pokegan.training.growth import Growth
from pokegan.training.run_folder import create
from pokegan.training.session import resume, train
from pokegan.training.step import Step
from pokegan.training.trainer import Trainer, steps_between_samples


def test_a_run_folder_has_what_the_design_says(tiny: RunConfig, tmp_path: Path) -> None:
    fast = dataclasses.replace(tiny, generator_optimizer=OptimizerConfig(lr=0.02))
    changes = {"length.epochs": 8.0, "training.ema_kimg": 0.0, "output.plots": True}
    run = train(override(fast, changes), tmp_path / "run")
    names = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("events.out.tfevents")}
    assert len(events) == 1
    assert names - events == {
        "config.json",
        "environment.json",
        "report.html",
        "stats.jsonl",
        "gradients.jsonl",
        "generator.safetensors",
        "generator.json",
        "plots/losses.png",
        "plots/scores.png",
        "plots/learning-rates.png",
        "plots/gradient-norms.png",
        "plots/gradient-flow-generator.png",
        "plots/gradient-flow-discriminator.png",
        "plots/gradient-flow/generator-step-00000020.png",
        "plots/gradient-flow/discriminator-step-00000020.png",
        "samples/animation.gif",
        "samples/epoch-0000.png",
        "samples/epoch-0004.png",  # the first after 10 steps of 8 pictures of 20
        "samples/epoch-0008.png",
        "checkpoints/step-00000020.pt",
    }
    with Image.open(run.animation) as animation:
        assert animation.n_frames == 3
    assert RunConfig.from_json((run.folder / "config.json").read_text()).length.epochs == 8


def test_without_plots_nothing_is_drawn(tiny: RunConfig, tmp_path: Path) -> None:
    run = train(override(tiny, {"output.plots": False}), tmp_path / "run")
    assert not (run.folder / "plots").exists()
    assert not (run.folder / "report.html").exists()
    assert not run.animation.exists()
    assert run.grid.exists()
    resume(run.folder, {"length.steps": 8, "output.plots": True})
    assert (run.folder / "plots" / "losses.png").exists()
    assert (run.folder / "report.html").exists()
    assert run.animation.exists()


def test_the_weights_left_make_the_last_grid(tiny: RunConfig, tmp_path: Path) -> None:
    fast = dataclasses.replace(tiny, generator_optimizer=OptimizerConfig(lr=0.02))
    changes = {"training.seed": 11, "training.ema_kimg": 0.0}
    run = train(override(fast, changes), tmp_path / "run")
    grid = np.asarray(Image.open(run.grid))
    picture = load(run.folder).sample(1, seed=11)[0].astype(int)
    places = [
        (y, x)
        for y in range(grid.shape[0] - 15)
        for x in range(grid.shape[1] - 15)
        if np.abs(grid[y : y + 16, x : x + 16].astype(int) - picture).max() <= 1
    ]
    assert len(places) == 1


@pytest.mark.parametrize("batch", [2, 7, 64])
def test_a_set_smaller_than_a_batch_trains(tiny: RunConfig, tmp_path: Path, batch: int) -> None:
    run = train(override(tiny, {"training.batch": batch, "length.steps": 3}), tmp_path / "run")
    assert run.images == 3 * batch
    assert all(
        np.isfinite(record["loss/generator"]) for record in read_stats(run.folder / "stats.jsonl")
    )


def test_weights_change_and_statistics_are_written(tiny: RunConfig, tmp_path: Path) -> None:
    config = override(tiny, {"output.log_every": 2})
    first = train(override(config, {"length.steps": 0}), tmp_path / "first")
    run = train(config, tmp_path / "run")
    assert first.weights.read_bytes() != run.weights.read_bytes()
    records = read_stats(run.folder / "stats.jsonl")
    assert [record["step"] for record in records] == [2, 4, 6]
    assert [record["kimg"] for record in records] == pytest.approx([0.016, 0.032, 0.048])
    assert records[-1]["epoch"] == pytest.approx(48 / 20)
    for record in records:
        assert sum(value for key, value in record.items() if key.startswith("share/")) == (
            pytest.approx(1, abs=0.01)
        )
        assert record["speed/images_per_s"] * record["speed/s_per_kimg"] == pytest.approx(1000)
        assert record["memory/peak_bytes"] > 0
    spent = sum(record["speed/s_per_kimg"] * 0.016 for record in records)
    assert spent == pytest.approx(records[-1]["seconds"], rel=1e-4)


def test_an_existing_folder_is_not_touched(tiny: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/keep.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists and is not empty"):
        train(tiny, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["keep.txt"]


def test_a_wrong_network_leaves_no_folder(tiny: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--size 17"):
        train(override(tiny, {"data.size": 17}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_shorter_than_an_epoch_keeps_its_first_grid(tiny: RunConfig, tmp_path: Path) -> None:
    run = train(override(tiny, {"length.steps": 2}), tmp_path / "run")
    names = sorted(path.name for path in (run.folder / "samples").glob("*.png"))
    assert names == ["epoch-0000.png", "epoch-0001.png"]
    assert run.grid.name == "epoch-0001.png"


def test_samples_are_written_as_training_goes_on(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each step those of the steps before it are there, each a whole picture."""
    there: list[list[str]] = []
    step = Trainer._step

    def looking(trainer: Trainer) -> None:
        paths = sorted(trainer.folder.samples.glob("*.png"))
        for path in paths:
            with Image.open(path) as picture:
                picture.load()
        there.append([path.name for path in paths])
        step(trainer)

    monkeypatch.setattr(Trainer, "_step", looking)
    train(override(tiny, {"length.steps": 24, "output.sample_every": 1}), tmp_path / "run")
    first, second, third = (f"epoch-{number:04d}.png" for number in (0, 4, 8))
    assert there[0] == there[9] == [first]
    assert there[10] == there[19] == [first, second]  # after 10 steps of 8 pictures of 20
    assert there[20] == there[23] == [first, second, third]


def test_smoothing_without_targets_is_refused(tiny: RunConfig, tmp_path: Path) -> None:
    changes = {"objective.loss": "hinge", "objective.label_smoothing": 0.1}
    with pytest.raises(ConfigError, match="--label-smoothing has no effect"):
        train(override(tiny, changes), tmp_path / "run")
    train(override(tiny, changes | {"objective.label_smoothing": 0.0}), tmp_path / "run")


def test_the_settings_on_disk_are_those_of_this_machine(tiny: RunConfig, tmp_path: Path) -> None:
    changes = {"training.precision": "auto", "training.device": "auto", "length.steps": 1}
    run = train(override(tiny, changes), tmp_path / "run")
    stored = RunConfig.from_json((run.folder / "config.json").read_text())
    assert stored.training.precision in ("fp32", "bf16")
    assert stored.training.device in ("cpu", "cuda")


def test_runs_are_named_and_the_latest_is_pointed_to(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = override(tiny, {"length.steps": 1, "output.note": "a/b: ü ../x"})
    run, second = train(config), train(config)
    assert run.folder.parent == Path("runs")
    assert run.folder.name.endswith("-house-dcgan-a-b-ü-..-x")
    assert run.folder != second.folder
    assert Path("runs/latest").resolve() == second.folder.resolve()
    assert load("runs/latest").spec.recipe == "house-dcgan"


def epochs(source: ResidentSource, batch: int, steps: int) -> list[int]:
    """Which pictures the run shows, in order, told by their mean (all of them differ)."""
    known = {round(source.images[i].double().mean().item(), 9): i for i in range(source.count)}
    seen = []
    for step in range(steps):
        images = source.batch(step * batch, batch).images
        bytes_back = ((images + 1) * 127.5).round().double()
        seen += [known[round(image.mean().item(), 9)] for image in bytes_back]
    return seen


@pytest.mark.parametrize("batch", [3, 8, 45])
def test_every_picture_is_shown_once_an_epoch(packed_folder: Path, batch: int) -> None:
    packed = PackedImages.open(packed_folder)
    source = ResidentSource(
        packed.images,
        packed.background,
        5,
        torch.device("cpu"),
        augmentation=Augmentation(flip=True),
    )
    seen = epochs(source, batch, steps=-(-60 // batch))
    rounds = [seen[start : start + 20] for start in (0, 20, 40)]
    assert all(sorted(one) == list(range(20)) for one in rounds)
    assert rounds[0] != rounds[1]


def test_the_order_does_not_depend_on_the_batch(packed_folder: Path) -> None:
    packed = PackedImages.open(packed_folder)

    def make() -> ResidentSource:
        return ResidentSource(packed.images, packed.background, 5, torch.device("cpu"))

    assert epochs(make(), 4, 10) == epochs(make(), 10, 4)


def test_half_of_the_pictures_are_mirrored_and_the_shift_is_bounded(packed_folder: Path) -> None:
    packed = PackedImages.open(packed_folder)
    device = torch.device("cpu")
    source = ResidentSource(
        packed.images, packed.background, 5, device, augmentation=Augmentation(flip=True, shift=3)
    )
    samples = torch.arange(4000)
    assert abs(source.gather.flips(samples).float().mean() - 0.5) < 0.03
    shifts = source.gather.shifts(samples)
    assert shifts.min() == -3
    assert shifts.max() == 3
    counts = torch.stack([(shifts == value).sum() for value in range(-3, 4)])
    assert (counts - 8000 / 7).abs().max() < 5 * (8000 / 7) ** 0.5


class Telling:
    """A step that has news after its first time."""

    mode = "telling"

    def __init__(self, step: Step) -> None:
        self.step = step
        self.untold = ["compile: not here"]

    def __call__(self, *arguments: Any) -> Mapping[str, torch.Tensor]:
        return self.step(*arguments)

    def news(self) -> list[str]:
        news, self.untold = self.untold, []
        return news

    def close(self) -> None:
        self.step.close()


class Second(Ranks):
    """Rank 1, which here meets nobody."""

    rank = 1


@pytest.mark.parametrize(("ranks", "who"), [(Ranks(), ""), (Second(), "rank 1: ")])
def test_a_steps_news_are_told_by_every_rank(
    ranks: Ranks, who: str, tiny: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = PackedImages.open(tiny.data.source)
    folder = create(tiny, tmp_path / "run")
    folder.samples.mkdir()
    (folder.samples / "epoch-0000.png").write_bytes(b"")  # what rank 0 would have written
    trainer = Trainer(tiny, Growth(tiny, packed), folder, packed.checksum, ranks)
    step = Telling(trainer.parts.step)
    trainer.parts = dataclasses.replace(trainer.parts, step=step)
    assert trainer.train().steps == 6
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note")]
    assert told == [f"note      {who}compile: not here"]
    assert folder.stats.exists() == folder.weights.exists() == (not who)  # rank 0 alone writes


def test_on_a_gpu_grids_come_ever_more_seldom() -> None:
    """There a grid costs many steps. By the step alone: a resumed run writes the same ones."""
    for device, most in (("cpu", 10_000), ("cuda", 50 + 50 * math.log(100_000 / 500))):
        sampled, grids = 0, 0
        for done in range(1, 100_001):
            if done - sampled >= steps_between_samples(done, torch.device(device)):
                sampled, grids = done, grids + 1
        assert abs(grids / most - 1) < 0.05, device
