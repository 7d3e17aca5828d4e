"""`pokegan evaluate` and `--metrics-every` as a user meets them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pokegan.cli.main import main
from pokegan.data import prepare
from pokegan.data.options import PrepareOptions
from pokegan.data.packed import PackedImages
from pokegan.data.sources import DemoSource
from pokegan.monitor.stats import read_stats
from pokegan.render.neighbours import read_pairs_sheet
from pokegan.training import checkpoint
from pokegan.training.generator import load

TINY = [
    *("--size", "16", "--batch", "8", "--precision", "fp32", "--samples", "4", "--ema-kimg", "0.1"),
    "--no-plots",
    *("--generator-option", "channels=[16, 8]", "--discriminator-option", "channels=[8, 16]"),
]
MEASURED = [
    *("--metrics-every", "0.02", "--metrics-samples", "12", "--metrics-features", "pyramid"),
    *("--checkpoint-every", "4", "--keep-checkpoints", "1"),
]
QUICK = ["-n", "20", "--features", "pyramid"]


@pytest.fixture(scope="module")
def measured(packed_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8 steps of 8: measured after steps 3, 5 and 8."""
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    data = ["--data", str(packed_folder), "--steps", "8", "--out", str(folder)]
    assert main(["train", *data, *TINY, *MEASURED]) == 0
    return folder


def test_a_table_a_file_and_a_sheet(
    measured: Path, packed_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found"
    assert main(["evaluate", str(measured), *QUICK, "--truncation", "0.9", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "of 20 fakes (truncation 0.9, moving average, seed 0, 0.064 kimg)" in told
    assert "against 20 reals" in told
    assert "features pyramid" in told
    assert "  fid " in told
    tree = json.loads((out / "evaluation.json").read_text())
    assert tree["conditions"]["truncation"] == 0.9
    assert tree["measures"]["kid"]["low"] < tree["measures"]["kid"]["high"]
    sheet = np.asarray(Image.open(out / "nearest.png"))
    assert sheet.shape[1] == 8 * (96 + 6) + 6
    near = tree["nearest"]
    assert len(near) == 20
    assert {one["space"] for one in near} == {"pixels", "features"}
    assert len({one["sample"] for one in near}) == 20
    pairs = read_pairs_sheet(sheet, len(near))
    made = load(measured).sample(20, truncation=0.9)
    reals = PackedImages.open(packed_folder).images
    for one, (sample, real) in zip(near, pairs, strict=True):
        assert (sample[::6, ::6] == made[one["sample"]]).all()
        assert (real[::6, ::6] == reals[one["picture"]]).all()


def test_json_of_several_runs_in_their_own_folders(
    measured: Path, packed_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = measured / "generator.safetensors"
    assert main(["evaluate", str(measured), str(measured), *QUICK, "--json"]) == 0
    trees = json.loads(capsys.readouterr().out)
    assert trees[0]["measures"] == trees[1]["measures"]
    assert (measured / "evaluation" / "evaluation.json").exists()
    data = ["--data", str(packed_folder)]
    assert main(["evaluate", str(weights), *QUICK, *data, "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["measures"] == trees[0]["measures"]
    assert alone["conditions"]["ema"] is None
    assert main(["evaluate", str(weights), *QUICK]) == 2
    assert "--data is wanted" in capsys.readouterr().err


def test_several_runs_are_put_in_order(
    measured: Path, packed_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what is found of each stays: a run's in it, a file's beside it under its own name."""
    run = shutil.copytree(measured, tmp_path / "run")
    shutil.rmtree(run / "evaluation", ignore_errors=True)
    (last,) = checkpoint.available(run / "checkpoints")
    weights = run / "generator-best.safetensors"
    sources = [run, last, run / "checkpoints" / "best.pt", weights]
    data = ["--data", str(packed_folder)]
    assert main(["evaluate", *map(str, sources), *QUICK, *data]) == 0
    told = capsys.readouterr().out
    assert [f"  {place}. " in told for place in range(1, 6)] == [True] * 4 + [False]
    places = ["evaluation", f"checkpoints/evaluation-{last.stem}", "checkpoints/evaluation-best"]
    for source, place in zip(sources, [*places, "evaluation-generator-best"], strict=True):
        found = json.loads((run / place / "evaluation.json").read_text())
        assert found["conditions"]["name"] == str(source)
        assert (run / place / "nearest.png").exists()


def test_raw_weights_and_other_checkpoints(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {}
    for name, extra in (
        ("average", []),
        ("raw", ["--no-ema"]),
        ("step", ["--checkpoint", "8"]),
        ("best", ["--checkpoint", "best"]),
    ):
        assert main(["evaluate", str(measured), *QUICK, "--json", *extra]) == 0
        tree = json.loads(capsys.readouterr().out)
        assert tree["conditions"]["ema"] == (name != "raw")
        values[name] = tree["measures"]["fid"]["value"]
    assert values["average"] == values["step"] != values["raw"]
    best = json.loads(load(measured / "generator-best.safetensors").spec.to_json())
    assert best["kimg"] in (0.024, 0.04, 0.064)


def test_the_loop_records_and_keeps_the_best(measured: Path) -> None:
    records = [one for one in read_stats(measured / "stats.jsonl") if "metrics/fid" in one]
    assert [one["step"] for one in records] == [3, 5, 8]
    assert {"kimg", "metrics/recall", "metrics/swd", "metrics/score"} <= records[0].keys()
    state = checkpoint.load(measured / "checkpoints" / "best.pt")
    order = [(one["metrics/collapsed"], one["metrics/score"]) for one in records]
    assert state["step"] == records[order.index(min(order))]["step"]
    assert len(checkpoint.available(measured / "checkpoints")) == 1
    best = load(measured, checkpoint="best").sample(2)
    assert (best == load(measured / "checkpoints" / "best.pt").sample(2)).all()


def test_measuring_changes_no_bit_of_the_training(
    measured: Path, packed_folder: Path, tmp_path: Path
) -> None:
    data = ["--data", str(packed_folder), "--steps", "8"]
    assert main(["train", *data, *TINY, "--out", str(tmp_path / "plain")]) == 0
    name = "generator.safetensors"
    assert (measured / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_a_resumed_run_remembers_its_best(packed_folder: Path, tmp_path: Path) -> None:
    common = ["train", "--data", str(packed_folder), *TINY, *MEASURED, "--best-by", "fid"]
    out = tmp_path / "run"
    assert main([*common, "--steps", "4", "--out", str(out)]) == 0
    before = checkpoint.load(out / "checkpoints" / "best.pt")["best"]
    assert main(["train", "--resume", str(out), "--steps", "8"]) == 0
    (newest,) = checkpoint.available(out / "checkpoints")
    after = checkpoint.load(newest)["best"]
    assert (after["collapsed"], after["value"]) <= (before["collapsed"], before["value"])
    assert checkpoint.load(out / "checkpoints" / "best.pt")["step"] == after["step"]


def test_generate_from_the_best(measured: Path, tmp_path: Path) -> None:
    arguments = ["generate", str(measured), "-n", "1", "--checkpoint", "best", "--out"]
    assert main([*arguments, str(tmp_path)]) == 0
    picture = np.asarray(Image.open(tmp_path / "seed-0-00000.png"))
    assert (picture == load(measured, checkpoint="best").sample(1)[0]).all()


def test_data_of_another_size(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A set of twice the size is shrunk; one that is no multiple is refused."""
    for size in (24, 32):
        options = PrepareOptions(size=size, keep_duplicates=True)
        prepare(DemoSource(count=12), options, tmp_path / str(size), workers=1)
    assert main(["evaluate", str(measured), *QUICK, "--data", str(tmp_path / "24")]) == 2
    assert "is a set of 24 px, but the generator makes 16 px" in capsys.readouterr().err
    assert main(["evaluate", str(measured), *QUICK, "--data", str(tmp_path / "32"), "--json"]) == 0
    known = json.loads(capsys.readouterr().out)["conditions"]
    assert (known["reals"], known["size"]) == (12, 16)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "nowhere"], "nowhere: there is no such run"),
        (["evaluate", "RUN", "-n", "5"], "-n 5: at least 10 pictures"),
        (["evaluate", "RUN", "--truncation", "-1", *QUICK], "--truncation -1.0: a positive"),
        (["evaluate", "RUN", "--checkpoint", "7", *QUICK], "--checkpoint 7: of "),
        (["evaluate", "RUN", "--inception-weights", "x", *QUICK], "without --features inception"),
        (
            ["evaluate", "RUN", "--features", "inception", "--inception-weights", "no.pth"],
            "--inception-weights no.pth: there is no such file",
        ),
        (["evaluate", "RUN", "RUN", "--out", "x", *QUICK], "--out x: leave it out"),
        (["evaluate", "RUN", "--data", "/no/such", *QUICK], "there is no data '/no/such'"),
        (["evaluate", "RUN/checkpoints/best.pt", "--checkpoint", "best"], "give its run folder"),
        (["evaluate", "RUN/generator.safetensors", "--no-ema"], "give a checkpoint"),
        (["train", "--metrics-samples", "50"], "--metrics-samples 50 has no effect without"),
        (["train", "--metrics-every", "-1"], "--metrics-every -1.0: at least 0 kimg"),
    ],
)
def test_a_mistake_is_one_line(
    measured: Path,
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [one.replace("RUN", str(measured)) for one in arguments]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
