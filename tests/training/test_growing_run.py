"""A run that grows: killed anywhere and continued it is the same run, and no stage begins anew."""

import dataclasses
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pokegan import recipes
from pokegan.cli.main import main
from pokegan.config import NetworkConfig, RunConfig, override
from pokegan.data import prepare
from pokegan.data.options import PrepareOptions
from pokegan.data.sources import DemoSource
from pokegan.monitor.stats import read_stats
from pokegan.training import checkpoint
from pokegan.training.generator import load
from pokegan.training.growth import Growth
from pokegan.training.run import Run
from pokegan.training.session import resume, train

STEPS = 15  # five a stage, of which the first three fade: alpha 0, 0.4, 0.8
SIZES = (8, 16, 32)
PADDING = 2  # of a sample grid, px


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The recipe progan at 8, 16 and 32 px, with narrow networks."""
    folder = tmp_path_factory.mktemp("packed") / "creatures-32"
    options = PrepareOptions(size=32, keep_duplicates=True)
    prepare(DemoSource(count=12), options, folder, workers=1)
    narrow = dataclasses.replace(
        recipes.get("progan"),
        generator=NetworkConfig("pokegan", {"channels": [16, 12, 8]}, init="kaiming"),
        discriminator=NetworkConfig("pokegan", {"channels": [8, 12, 16]}, init="kaiming"),
    )
    return override(
        narrow,
        {
            "data.source": str(folder),
            "data.size": 32,
            "latent.size": 8,
            "schedule.stages": "8:5e-3x1,2e-3x1;16:5e-3x1,2e-3x1;32:5e-3x1,2e-3x1",
            "length.steps": STEPS,
            "training.batch": 6,
            "training.precision": "fp32",
            "training.device": "cpu",
            "training.ema_kimg": 0.02,
            "output.samples": 4,
            "output.plots": False,
            "output.log_every": 1,
            "output.checkpoint_every": 1,
            "output.keep_checkpoints": 100,
        },
    ).validated()


@pytest.fixture(scope="module")
def whole(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that nothing disturbed, with a checkpoint of every step."""
    return train(config, tmp_path_factory.mktemp("growing") / "whole")


def state(folder: Path, step: int) -> dict:
    return checkpoint.load(folder / "checkpoints" / f"step-{step:08d}.pt")


def forget(folder: Path, step: int) -> None:
    """Remove the checkpoints behind `step`, as if the run had been killed then."""
    for path in checkpoint.available(folder / "checkpoints"):
        if path.name > f"step-{step:08d}.pt":
            path.unlink()


def samples(folder: Path) -> dict[str, bytes]:
    grids = (folder / "samples").rglob("*.png")
    return {str(path.relative_to(folder)): path.read_bytes() for path in grids}


def assert_same_states(one: object, two: object) -> None:
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_same_states(one[key], two[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    else:
        assert one == two


def assert_same_run(one: Run, two: Run) -> None:
    assert one.weights.read_bytes() == two.weights.read_bytes()
    assert samples(one.folder) == samples(two.folder)
    states = [state(run.folder, run.steps) for run in (one, two)]
    for name in ("networks", "optimizers", "ema", "stage", "planned"):
        assert_same_states(states[0][name], states[1][name])


def test_each_stage_has_its_steps_sizes_and_rates(whole: Run) -> None:
    stages = [state(whole.folder, step)["stage"] for step in range(1, STEPS + 1)]
    assert stages == [0] * 5 + [1] * 5 + [2] * 5
    rates = [record["lr/discriminator"] for record in read_stats(whole.folder / "stats.jsonl")]
    assert sorted({*rates}) == [2e-3, 5e-3]
    assert rates[:5] == rates[5:10] == rates[10:]
    alphas = [state(whole.folder, step)["ema"].get("fade.alpha") for step in range(1, STEPS + 1)]
    assert alphas[:5] == [None] * 5
    assert [round(float(alpha), 4) for alpha in alphas[5:]] == [0.0, 0.4, 0.8, 1.0, 1.0] * 2
    folders = sorted(path.name for path in (whole.folder / "samples").iterdir() if path.is_dir())
    assert folders == ["stage-1-8px", "stage-2-16px", "stage-3-32px"]


@pytest.mark.parametrize("step", [3, 10, 13])
def test_a_killed_run_goes_on_to_the_same_end(whole: Run, tmp_path: Path, step: int) -> None:
    killed = tmp_path / "killed"
    shutil.copytree(whole.folder, killed)
    forget(killed, step)
    saved = (killed / f"checkpoints/step-{step:08d}.pt").stat().st_mtime_ns
    for path in (*(killed / "samples").rglob("*.png"), killed / "generator.safetensors"):
        if path.stat().st_mtime_ns > saved:
            path.unlink()
    assert_same_run(resume(killed), whole)


def interrupt_at(step: int) -> Callable[..., None]:
    """Return a `Growth.prepare` that sends SIGINT in the step numbered `step` from 0."""
    real = Growth.prepare

    def prepare(self: Growth, parts: object, index: int, number: int) -> None:
        real(self, parts, index, number)
        if number == step:
            signal.raise_signal(signal.SIGINT)

    return prepare


@pytest.mark.parametrize("steps", [5, 7])
def test_an_interrupted_run_goes_on_to_the_same_end(
    config: RunConfig, whole: Run, tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Growth, "prepare", interrupt_at(steps - 1))
        stopped = train(config, tmp_path / "run")
    assert (stopped.steps, stopped.signal) == (steps, signal.SIGINT)
    assert_same_run(resume(tmp_path / "run"), whole)


def cells(path: Path, size: int) -> NDArray[np.int64]:
    """Return the [4, size, size, 3] pictures of a grid of two rows and two columns."""
    grid = np.asarray(Image.open(path).convert("RGB")).astype(np.int64)
    assert grid.shape == (2 * (size + PADDING) + PADDING,) * 2 + (3,)
    starts = (PADDING, size + 2 * PADDING)
    return np.stack([grid[y : y + size, x : x + size] for y in starts for x in starts])


def test_a_new_stage_begins_with_the_old_pictures(whole: Run) -> None:
    for index, size in enumerate(SIZES[:-1]):
        last = sorted((whole.folder / f"samples/stage-{index + 1}-{size}px").glob("epoch-*.png"))[
            -1
        ]
        first = sorted(
            (whole.folder / f"samples/stage-{index + 2}-{2 * size}px").glob("epoch-*.png")
        )[0]
        old = cells(last, size)
        assert old.std() > 5  # there is something to compare
        assert np.abs(cells(first, 2 * size) - old.repeat(2, 1).repeat(2, 2)).max() <= 1


def carried(role: str, name: str) -> str | None:
    """Return the name that a tensor of one stage has in the next, None for those left behind."""
    if name.startswith(("fade.", "last.", "first.")):
        return None
    if role == "generator" or not name.startswith("hidden."):
        return name
    _, place, rest = name.split(".", 2)
    return f"hidden.{int(place) + 1}.{rest}"


def test_frozen_stages_keep_what_they_learned(config: RunConfig, tmp_path: Path) -> None:
    run = train(override(config, {"schedule.freeze": True}), tmp_path / "run")
    for end in (5, 10):
        for role, old in state(run.folder, end)["networks"].items():
            new, begun = (state(run.folder, at)["networks"][role] for at in (end + 5, end + 1))
            kept = {carried(role, name): name for name in old if carried(role, name)}
            assert len(kept) > 1
            for name, before in kept.items():
                assert torch.equal(new[name], old[before]), (role, name)
            learned = [name for name in new if name.endswith("weight") and name not in kept]
            assert learned
            assert not any(torch.equal(new[name], begun[name]) for name in learned)
    shutil.copytree(run.folder, tmp_path / "part")
    forget(tmp_path / "part", 7)
    part = resume(tmp_path / "part")
    assert part.weights.read_bytes() == run.weights.read_bytes()


def test_without_freezing_the_old_layers_go_on_learning(whole: Run) -> None:
    for role, old in state(whole.folder, 5)["networks"].items():
        new = state(whole.folder, 10)["networks"][role]
        assert not torch.equal(new["linear.weight"], old["linear.weight"])


def test_pictures_of_every_stage_can_be_generated(whole: Run, tmp_path: Path) -> None:
    for step, size in ((5, 8), (7, 16), (10, 16), (12, 32), (15, 32)):
        path = whole.folder / f"checkpoints/step-{step:08d}.pt"
        assert main(["generate", str(path), "-n", "2", "--out", str(tmp_path / str(step))]) == 0
        made = sorted((tmp_path / str(step)).iterdir())
        assert [Image.open(one).size for one in made] == [(size, size)] * 2
    assert main(["generate", str(whole.folder), "-n", "2", "--out", str(tmp_path / "run")]) == 0
    for one in sorted((tmp_path / "run").iterdir()):
        assert one.read_bytes() == (tmp_path / "15" / one.name).read_bytes()
    assert not any(name.startswith("fade.") for name in load(whole.folder).network.state_dict())


def test_a_checkpoint_within_a_fade_makes_what_the_run_made(
    config: RunConfig, tmp_path: Path
) -> None:
    changes = {"length.steps": 7, "schedule.stages": "16:5e-3x4;32:5e-3x3", "schedule.fade": 1.0}
    run = train(override(config, changes), tmp_path / "run")
    generator = load(tmp_path / "run/checkpoints/step-00000007.pt")
    assert 0 < generator.spec.alpha < 1
    made = generator.sample(4, seed=config.training.seed)
    assert (cells(run.grid, 32) == made).all()
    assert (load(run.folder).sample(4, seed=config.training.seed) == made).all()


@pytest.mark.parametrize("step", [7, 15])
def test_a_longer_run_keeps_the_boundaries_of_its_plan(
    whole: Run, tmp_path: Path, step: int
) -> None:
    folder = tmp_path / "longer"
    shutil.copytree(whole.folder, folder)
    forget(folder, step)
    longer = resume(folder, {"length.steps": STEPS + 4})
    assert longer.steps == STEPS + 4
    for at in (10, STEPS):
        assert_same_states(state(folder, at)["networks"], state(whole.folder, at)["networks"])
    last = state(folder, STEPS + 4)
    assert (last["stage"], last["planned"]) == (2, STEPS)
    assert float(last["ema"]["fade.alpha"]) == 1.0
    assert read_stats(folder / "stats.jsonl")[-1]["lr/discriminator"] == 2e-3
