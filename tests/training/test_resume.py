"""A run that is stopped and continued is the run that was not stopped."""

import contextlib
import dataclasses
import json
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pokegan.config import NetworkConfig, OptimizerConfig, RunConfig, override
from pokegan.data import prepare
from pokegan.data.options import PrepareOptions
from pokegan.data.packed import PackedImages
from pokegan.data.sources import DemoSource
from pokegan.errors import CheckpointError, ConfigError, DivergedError
from pokegan.monitor.stats import read_stats
from pokegan.training import checkpoint
from pokegan.training.growth import Growth
from pokegan.training.run_folder import RunFolder
from pokegan.training.session import resume, train
from pokegan.training.trainer import Trainer

LOSSES = ("loss/discriminator", "loss/generator", "score/real", "score/fake")


def losses(run: Path) -> list[tuple[float, ...]]:
    return [tuple(record[name] for name in LOSSES) for record in read_stats(run / "stats.jsonl")]


@pytest.mark.parametrize("share", [True, False])
def test_bit_for_bit(tiny: RunConfig, tmp_path: Path, share: bool) -> None:
    config = override(
        tiny,
        {
            "length.steps": 10,
            "output.log_every": 3,
            "training.ema_kimg": 0.05,
            "data.shift": 2,
            "objective.share_fakes": share,
        },
    )
    whole = train(config, tmp_path / "whole")
    train(override(config, {"length.steps": 5}), tmp_path / "parts")
    parts = resume(tmp_path / "parts", {"length.steps": 10})
    assert parts.weights.read_bytes() == whole.weights.read_bytes()
    assert parts.grid.read_bytes() == whole.grid.read_bytes()
    states = [checkpoint.newest(run.folder / "checkpoints")[1] for run in (whole, parts)]
    for name in ("networks", "optimizers"):
        assert_equal(states[0][name], states[1][name])
    steps = {record["step"]: record for record in read_stats(tmp_path / "parts/stats.jsonl")}
    for record in read_stats(tmp_path / "whole/stats.jsonl"):
        if record["step"] > 6:  # the first part logged its own end at step 5
            assert all(record[name] == steps[record["step"]][name] for name in LOSSES)


def test_bit_for_bit_with_a_spectral_norm(tiny: RunConfig, tmp_path: Path) -> None:
    options = {**tiny.discriminator.options, "norm": "spectral"}
    config = override(
        dataclasses.replace(tiny, discriminator=NetworkConfig("dcgan", options)),
        {"length.steps": 8, "objective.loss": "hinge", "objective.label_smoothing": 0.0},
    )
    whole = train(config, tmp_path / "whole")
    train(override(config, {"length.steps": 4}), tmp_path / "parts")
    parts = resume(tmp_path / "parts", {"length.steps": 8})
    states = [checkpoint.newest(run.folder / "checkpoints")[1] for run in (whole, parts)]
    for name in ("networks", "optimizers"):
        assert_equal(states[0][name], states[1][name])


def test_bit_for_bit_with_everything_that_is_counted(tiny: RunConfig, tmp_path: Path) -> None:
    options = {**tiny.discriminator.options, "dropout": 0.3}
    config = override(
        dataclasses.replace(
            tiny,
            discriminator=NetworkConfig("dcgan", options),
            discriminator_optimizer=OptimizerConfig(lr=0.01),
        ),
        {
            "length.steps": 9,
            "objective.ada_target": 0.01,
            "objective.ada_kimg": 0.1,
            "objective.r1": 1.0,
            "objective.r1_every": 4,
            "objective.consistency": 2.0,
            "data.rotation": 20.0,
            "data.hue": 0.2,
            "schedule.warmup_kimg": 0.04,
        },
    )
    whole = train(config, tmp_path / "whole")
    train(override(config, {"length.steps": 5}), tmp_path / "parts")
    parts = resume(tmp_path / "parts", {"length.steps": 9})
    states = [checkpoint.newest(run.folder / "checkpoints")[1] for run in (whole, parts)]
    assert states[0]["adaptive"]["p"] > 0
    for name in ("networks", "optimizers", "ema", "adaptive"):
        assert_equal(states[0][name], states[1][name])


def assert_equal(one: object, two: object) -> None:
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_equal(one[key], two[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    else:
        assert one == two


def test_a_killed_run_goes_on_from_its_newest_checkpoint(tiny: RunConfig, tmp_path: Path) -> None:
    config = override(
        tiny, {"length.steps": 9, "output.checkpoint_every": 4, "output.log_every": 1}
    )
    whole = train(config, tmp_path / "whole")
    train(config, tmp_path / "killed")
    (tmp_path / "killed/checkpoints/step-00000009.pt").unlink()  # as if killed at step 9
    with (tmp_path / "killed/stats.jsonl").open("a") as file:
        file.write('{"step": 9, "los')
    again = resume(tmp_path / "killed")
    assert again.weights.read_bytes() == whole.weights.read_bytes()
    records = read_stats(tmp_path / "killed/stats.jsonl")
    assert [record["step"] for record in records] == list(range(1, 10))
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_a_damaged_newest_checkpoint_is_passed_over(tiny: RunConfig, tmp_path: Path) -> None:
    config = override(tiny, {"length.steps": 8, "output.checkpoint_every": 4})
    run = train(config, tmp_path / "run")
    newest = tmp_path / "run/checkpoints/step-00000008.pt"
    whole = newest.read_bytes()
    newest.write_bytes(whole[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(newest)
    before = run.weights.read_bytes()
    run.weights.unlink()
    told: list[str] = []
    assert resume(tmp_path / "run", say=told.append).weights.read_bytes() == before
    assert any("passed over" in line and newest.name in line for line in told)
    assert checkpoint.load(newest)["step"] == 8
    assert newest.with_name(newest.name + ".damaged").stat().st_size == 1000


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_of_damaged_checkpoints_every_one_says_so(tmp_path: Path) -> None:
    """PyTorch's reader raises whatever it stumbles over; a state that it still reads is one."""
    state = {"config": "{}", "weights": torch.arange(6.0), "nested": {"rates": [1e-4, None]}}
    path = checkpoint.save(tmp_path, 7, state, keep=1)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    said: list[str] = []
    for _ in range(1500):
        content = bytearray(whole)
        for place in random.integers(len(content), size=random.integers(1, 4)):
            content[place] = random.integers(256)
        path.write_bytes(
            content[: random.integers(len(content))] if len(said) % 5 == 4 else content
        )
        try:
            assert checkpoint.load(path)["format"] == checkpoint.FORMAT
        except CheckpointError as error:
            said.append(str(error))
    assert 300 < len(said) < 1500
    assert all(str(path) in line and "\n" not in line for line in said)


def test_a_damaged_checkpoint_never_costs_a_good_one(tiny: RunConfig, tmp_path: Path) -> None:
    changes = {"length.steps": 6, "output.checkpoint_every": 2, "output.keep_checkpoints": 1}
    train(override(tiny, changes | {"length.steps": 4}), tmp_path / "run")
    (tmp_path / "run/checkpoints/step-00000009.pt").write_bytes(b"damaged")
    resume(tmp_path / "run", {"length.steps": 6})
    assert resume(tmp_path / "run", {"length.steps": 8}).steps == 8


def test_a_diverged_run_keeps_its_last_good_checkpoint(tiny: RunConfig, tmp_path: Path) -> None:
    config = override(tiny, {"length.steps": 4, "output.checkpoint_every": 1})
    good = train(config, tmp_path / "run").weights.read_bytes()
    state = checkpoint.newest(tmp_path / "run/checkpoints")[1]
    state["networks"]["generator"]["layers.0.weight"].fill_(float("nan"))
    checkpoint.save(tmp_path / "run/checkpoints", 4, state, keep=3)
    with pytest.raises(DivergedError, match=r"not finite at step 5.*step-00000004.pt"):
        resume(tmp_path / "run", {"length.steps": 6})
    assert (tmp_path / "run/generator.safetensors").read_bytes() == good
    assert not (tmp_path / "run/checkpoints/step-00000005.pt").exists()


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("generator", "generator: .* is not finite at step 2"),
        ("discriminator", "discriminator: .* is not finite at step 2"),
        ("ema", "moving average: .* is not finite at step 2"),
    ],
)
def test_an_update_that_spoils_the_weights_is_never_kept(
    tiny: RunConfig, tmp_path: Path, where: str, words: str
) -> None:
    """The losses of the step are those before its update: they are all finite."""
    packed = PackedImages.open(tiny.data.source)
    config = override(tiny, {"length.steps": 1})
    good = train(config, tmp_path / "run").weights.read_bytes()
    trainer = Trainer(
        override(tiny, {"length.steps": 2}),
        Growth(override(tiny, {"length.steps": 2}), packed),
        RunFolder(tmp_path / "run"),
        packed.checksum,
    )
    trainer.resume()
    parts, update = trainer.parts, trainer.parts.ema.update
    spoiled = parts.ema.network if where == "ema" else parts.networks[where]

    def spoil(*arguments: int) -> None:
        update(*arguments)
        with torch.no_grad():
            next(spoiled.parameters())[0].fill_(float("nan"))

    parts.ema.update = spoil  # type: ignore[method-assign]  # spoils weights
    with pytest.raises(DivergedError, match=words):
        trainer.train()
    assert (tmp_path / "run/generator.safetensors").read_bytes() == good
    kept = [path.name for path in (tmp_path / "run/checkpoints").iterdir()]
    assert kept == ["step-00000001.pt"]


def test_what_a_killed_process_left_half_written_is_removed(
    tiny: RunConfig, tmp_path: Path
) -> None:
    train(override(tiny, {"length.steps": 1}), tmp_path / "run")
    checkpoints = tmp_path / "run/checkpoints"
    (checkpoints / ".step-00000002-77-0123abcd.pt").write_bytes(b"half")
    (checkpoints / ".best-77-0123abcd.pt").write_bytes(b"half")
    resume(tmp_path / "run", {"length.steps": 2})
    kept = sorted(path.name for path in checkpoints.iterdir())
    assert kept == ["step-00000001.pt", "step-00000002.pt"]


def test_changed_settings_are_noticed(tiny: RunConfig, tmp_path: Path) -> None:
    train(tiny, tmp_path / "run")
    config = tmp_path / "run/config.json"
    config.write_text(config.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(CheckpointError, match="was changed since"):
        resume(tmp_path / "run", {"length.steps": 9})
    with pytest.raises(ConfigError, match="goes on with the run's own settings"):
        resume(tmp_path / "run", {"training.batch": 16})


def test_the_place_of_the_pictures_may_change(
    tiny: RunConfig, tmp_path: Path, packed_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(packed_folder, tmp_path / "here/pictures")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    train(override(tiny, {"data.source": "pictures"}), tmp_path / "run")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert resume(tmp_path / "run", {"length.steps": 7}).steps == 7
    (tmp_path / "here").rename(tmp_path / "moved")
    changes = {"length.steps": 8, "data.source": str(tmp_path / "moved/pictures")}
    assert resume(tmp_path / "run", changes).steps == 8


def test_one_process_a_run(tiny: RunConfig, tmp_path: Path) -> None:
    run = train(tiny, tmp_path / "run")
    with (
        RunFolder(run.folder).locked(),
        pytest.raises(CheckpointError, match="another process trains in it"),
    ):
        resume(run.folder, {"length.steps": 9})
    assert resume(run.folder, {"length.steps": 9}).steps == 9


def test_a_failure_of_the_run_is_not_told_as_another_process(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError, match="a pipe is full"), RunFolder(tmp_path).locked():
        raise BlockingIOError("a pipe is full")


def test_a_restarted_job_waits_for_its_earlier_processes(tmp_path: Path) -> None:
    held = contextlib.ExitStack()
    held.enter_context(RunFolder(tmp_path).locked())
    threading.Timer(0.5, held.close).start()
    with RunFolder(tmp_path).locked(patience=20.0):
        start = time.monotonic()
        with (
            pytest.raises(CheckpointError, match="another process trains in it"),
            RunFolder(tmp_path).locked(),
        ):
            pass
        assert time.monotonic() - start < 10


@pytest.mark.parametrize("restarts", ["0", "1"])
def test_only_a_restart_makes_patient(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: str
) -> None:
    waited: list[float] = []
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
    locked = RunFolder.locked

    def note(self: RunFolder, patience: float = 0.0) -> contextlib.AbstractContextManager[None]:
        waited.append(patience)
        return locked(self, patience)

    monkeypatch.setattr(RunFolder, "locked", note)
    train(override(tiny, {"length.steps": 1}), tmp_path / "run")
    assert [seconds > 0 for seconds in waited] == [restarts == "1"]


def test_only_the_newest_checkpoints_are_kept(tiny: RunConfig, tmp_path: Path) -> None:
    config = override(tiny, {"output.checkpoint_every": 1, "output.keep_checkpoints": 2})
    train(config, tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert kept == ["step-00000005.pt", "step-00000006.pt"]


@pytest.mark.parametrize("keep", [1, 5, 10])
def test_as_many_checkpoints_are_kept_as_promised(tmp_path: Path, keep: int) -> None:
    for step in range(1, 9):
        checkpoint.save(tmp_path, step, {}, keep)
        kept = [checkpoint.load(path)["step"] for path in checkpoint.available(tmp_path)]
        assert kept == list(range(1, step + 1))[-keep:]


def test_a_finished_run_says_so(tiny: RunConfig, tmp_path: Path) -> None:
    train(tiny, tmp_path / "run")
    with pytest.raises(ConfigError, match="already at step 6 of 6"):
        resume(tmp_path / "run")


def test_other_pictures_are_refused(tiny: RunConfig, tmp_path: Path) -> None:
    def pack(count: int) -> None:
        options = PrepareOptions(size=16, keep_duplicates=True)
        prepare(DemoSource(count=count), options, tmp_path / "set", workers=1)

    pack(9)
    train(override(tiny, {"data.source": str(tmp_path / "set")}), tmp_path / "run")
    pack(8)
    with pytest.raises(CheckpointError, match="trained on other pictures"):
        resume(tmp_path / "run", {"length.steps": 12})


def test_no_checkpoint_no_resume(tmp_path: Path, tiny: RunConfig) -> None:
    with pytest.raises(CheckpointError, match="no such run folder"):
        resume(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="not a run folder"):
        resume(tmp_path / "empty")
    (tmp_path / "empty/config.json").write_text(tiny.to_json())
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        resume(tmp_path / "empty")


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "pwned",))

    torch.save({"format": 1, "step": 1, "networks": Evil()}, tmp_path / "step-00000001.pt")
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "step-00000001.pt")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(("final", "words"), [(0.25, "stay at 0.25"), (0.0, "are 0 and nothing")])
def test_a_cosine_keeps_to_the_length_that_the_run_began_with(
    tiny: RunConfig, tmp_path: Path, final: float, words: str
) -> None:
    changes = {"schedule.rates": "cosine", "schedule.final": final, "output.log_every": 1}
    config = override(tiny, {**changes, "length.steps": 4, "output.checkpoint_every": 2})
    train(config, tmp_path / "run")
    whole = rates(tmp_path / "run")
    (tmp_path / "run/checkpoints/step-00000004.pt").unlink()  # as if killed before
    said: list[str] = []
    resume(tmp_path / "run", {"length.steps": 7}, said.append)
    base = tiny.generator_optimizer.lr
    assert rates(tmp_path / "run") == pytest.approx([*whole, *[final * base] * 3])
    assert any(line.startswith("note") and "over 4 steps" in line for line in said)
    assert any(words in line for line in said)
    said.clear()
    resume(tmp_path / "run", {"length.steps": 8}, said.append)
    assert any("over 4 steps" in line for line in said)


def rates(run: Path) -> list[float]:
    return [record["lr/generator"] for record in read_stats(run / "stats.jsonl")]


def test_the_config_on_disk_says_the_new_length(tiny: RunConfig, tmp_path: Path) -> None:
    train(tiny, tmp_path / "run")
    resume(tmp_path / "run", {"length.steps": 7})
    assert json.loads((tmp_path / "run/config.json").read_text())["length"]["steps"] == 7
