"""The command line as a user meets it: outputs, exit codes, one line for every mistake."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from children import ending
from PIL import Image

from pokegan import recipes
from pokegan.cli.main import build_parser, main
from pokegan.cli.networks import with_networks
from pokegan.config import RunConfig
from pokegan.training import checkpoint
from pokegan.training.session import train

TINY = [
    *("--size", "16", "--batch", "8", "--precision", "fp32", "--samples", "4"),
    "--no-plots",  # drawing takes longer than such a run
    *("--generator-option", "channels=[16, 8]", "--discriminator-option", "channels=[8, 16]"),
]


@pytest.fixture(scope="module")
def run_folder(packed_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    arguments = ["train", "--data", str(packed_folder), "--steps", "2", "--out", str(folder), *TINY]
    assert main(arguments) == 0
    return folder


def test_train_tells_where_things_are(
    packed_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    rate = ["--generator-lr", "0.001"]
    arguments = ["train", "hpml", "--data", str(packed_folder), "--steps", "3", "--out", str(out)]
    assert main([*arguments, *TINY, "--plots", "--no-flip", "--seed", "5", *rate]) == 0
    told = capsys.readouterr()
    for name in ("samples/epoch-0002.png", "samples/animation.gif", "generator.safetensors"):
        assert str(out / name) in told.out
        assert (out / name).exists()
    assert "images/s" in told.err
    config = RunConfig.from_json((out / "config.json").read_text())
    assert (config.recipe, config.training.seed, config.data.flip) == ("hpml", 5, False)
    assert config.generator_optimizer.lr == 0.001
    assert config.discriminator_optimizer.lr == 2.8e-4


def test_resume_goes_on(packed_folder: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    common = ["train", "--data", str(packed_folder), *TINY]
    assert main([*common, "--steps", "6", "--out", str(whole)]) == 0
    assert main([*common, "--steps", "3", "--out", str(parts)]) == 0
    assert main(["train", "--resume", str(parts), "--steps", "6"]) == 0
    name = "generator.safetensors"
    assert (whole / name).read_bytes() == (parts / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "nothing"], "there is no recipe 'nothing'; choose one of house-dcgan"),
        (["train", "--data", "/no/such/folder"], "/no/such/folder"),
        (["train", "--data", "~nosuch/pictures"], "~nosuch/pictures: no folder is known for"),
        (["train", "--size", "50"], "--size 50"),
        (["train", "--batch", "1"], "--batch 1: at least 2"),
        (["train", "--batch", "many"], "--batch"),
        (["train", "--kimg", "1", "--steps", "1"], "exactly one of --epochs, --kimg, --steps"),
        (["train", "--resume", "nowhere"], "nowhere: there is no such run folder"),
        (["train", "--generator-option", "width=3"], "has no option 'width'"),
        (["train", "--generator-option", "width"], "KEY=VALUE is wanted"),
        (["train", "--option", "dropout=nan"], "dropout nan: a probability in [0, 1)"),
        (["train", "--option", "dropout=.x"], 'dropout is ".x"; a float is wanted'),
        (["train", "--option", "slope=-.3"], "slope -0.3: "),
        (["train", "--generator-option", "bias=False"], 'bias is "False"; a bool is wanted'),
        (["train", "--generator-option", "channels=5"], "channels is 5; a list of whole"),
        (["train", "--generator-option", "channels=[]"], "channels is []; a list of whole"),
        (["train", "--generator-option", "channels=[0, 8]"], "a list of whole numbers"),
        (["train", "--generator-option", "norm=spectre"], "norm"),
        (["train", "--discriminator-steps", "5"], "needs --no-share-fakes"),
        (["train", "--loss", "hinge", "--label-noise", "0.1"], "give --label-noise 0"),
        (["train", "--generator-lr", "-1"], "--generator-lr"),
        (["train", "--background", "transparent"], "--background"),
        (["generate", "nowhere"], "nowhere: there is no such run"),
        (["paint"], "paint"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_traceback_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "nowhere", "--traceback"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "extra", [["--batch", "16"], ["hpml"], ["--out", "x"], ["--generator-lr", "0.1"]]
)
def test_resume_refuses_what_cannot_change(
    run_folder: Path, extra: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--resume", str(run_folder), "--steps", "9", *extra]) == 2
    assert "--resume goes on with the run's own settings; leave out" in capsys.readouterr().err


def test_stages_bring_their_length(packed_folder: Path, tmp_path: Path) -> None:
    arguments = ["train", "progan", "--data", str(packed_folder), "--size", "16", "--samples", "2"]
    arguments += ["--batch", "10", "--stages", "8:1e-3x1;16:1e-3x2", "--out", str(tmp_path / "run")]
    assert main(arguments) == 0
    config = RunConfig.from_json((tmp_path / "run/config.json").read_text())
    assert config.length.epochs == 3
    records = (tmp_path / "run/stats.jsonl").read_text().splitlines()
    assert json.loads(records[-1])["step"] == 6  # 3 epochs of 20 pictures


def test_stages_have_the_learning_rates(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "progan", "--lr", "0.1"]) == 2
    assert "--lr has no effect with --stages" in capsys.readouterr().err


def test_generate_singles_and_grid_are_the_same_creatures(run_folder: Path, tmp_path: Path) -> None:
    common = ["generate", str(run_folder), "--seed", "7"]
    assert main([*common, "-n", "3", "--out", str(tmp_path / "few")]) == 0
    assert main([*common, "-n", "20", "--out", str(tmp_path / "many")]) == 0
    assert main([*common, "-n", "2", "--first", "1", "--out", str(tmp_path / "late")]) == 0
    assert main([*common, "-n", "4", "--grid", "--out", str(tmp_path / "grid")]) == 0
    few = sorted((tmp_path / "few").iterdir())
    assert [path.name for path in few] == [f"seed-7-{i:05d}.png" for i in range(3)]
    for path in few:
        assert (tmp_path / "many" / path.name).read_bytes() == path.read_bytes()
    late = tmp_path / "late/seed-7-00001.png"
    assert late.read_bytes() == few[1].read_bytes()
    picture, grid = (
        np.asarray(Image.open(few[0])),
        np.asarray(Image.open(tmp_path / "grid/grid.png")),
    )
    assert picture.shape == (16, 16, 3)
    assert (grid[2:18, 2:18] == picture).all()


def test_generate_from_each_kind_of_file(run_folder: Path, tmp_path: Path) -> None:
    sources = [run_folder, run_folder / "generator.safetensors"]
    sources += checkpoint.available(run_folder / "checkpoints")
    pictures = []
    for number, source in enumerate(sources):
        out = tmp_path / str(number)
        assert main(["generate", str(source), "-n", "1", "--out", str(out)]) == 0
        pictures.append((out / "seed-0-00000.png").read_bytes())
    assert len(pictures) == 3
    assert len(set(pictures)) == 1


def test_truncation_changes_the_pictures(run_folder: Path, tmp_path: Path) -> None:
    for name, extra in (("free", []), ("held", ["--truncation", "0.2"])):
        out = ["--out", str(tmp_path / name)]
        assert main(["generate", str(run_folder), "-n", "1", *out, *extra]) == 0
    one, two = (next((tmp_path / name).iterdir()).read_bytes() for name in ("free", "held"))
    assert one != two


def test_recipes_lists_sizes_and_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    table = capsys.readouterr().out
    assert "692,096" in table
    assert "661,376" in table


def test_doctor_says_what_is_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "operators  CPU:" in told
    assert "compile    auto: steps" in told
    assert "cache" in told


def test_help_shows_each_default_with_its_unit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "hpml", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "global batch (default: 128 images)" in text
    assert "passes over the pictures (default: 500 epochs)" in text
    assert main(["train", "--help"]) == 0
    assert "global batch (default: 32 images)" in " ".join(capsys.readouterr().out.split())


def start(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pokegan", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_in_a_checkpoint(
    packed_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    common = ["train", "--data", str(packed_folder), *TINY, "--log-every", "1"]
    with ending(start([*common, "--steps", "1000000", "--out", str(out)])) as process:
        stats = out / "stats.jsonl"
        deadline = time.monotonic() + 120
        while not (stats.exists() and stats.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        told, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert f"continue with: pokegan train --resume {out}" in told
    (path,) = checkpoint.available(out / "checkpoints")
    done = checkpoint.load(path)["step"]
    assert json.loads(stats.read_text().splitlines()[-1])["step"] == done
    assert main(["train", "--resume", str(out), "--steps", str(done + 2)]) == 0
    assert main([*common, "--steps", str(done + 2), "--out", str(tmp_path / "whole")]) == 0
    name = "generator.safetensors"
    assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_reference_operators_train_the_same(packed_folder: Path, tmp_path: Path) -> None:
    """But for rounding: batch norms sum in another order, and Adam amplifies it."""
    length = ["--steps", "4", "--log-every", "1"]
    losses = []
    for choice in ("auto", "reference"):
        out = tmp_path / choice
        with ending(
            start(
                ["train", "--data", str(packed_folder), *TINY, *length, "--out", str(out)],
                POKEGAN_OPS=choice,
            )
        ) as process:
            told, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert (choice == "reference") == ("reference (POKEGAN_OPS=reference)" in told)
        lines = (out / "stats.jsonl").read_text().splitlines()
        losses.append([value for line in lines for value in _losses(json.loads(line))])
    assert len(losses[0]) == 8
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def _losses(record: dict[str, float]) -> list[float]:
    return [record["loss/discriminator"], record["loss/generator"]]


def test_help_and_recipe_names_need_no_torch() -> None:
    code = "import sys, pokegan.cli.main as m; m.build_parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_display_no_gpu_and_no_compiler_is_needed(packed_folder: Path, tmp_path: Path) -> None:
    """PyTorch's compiler alone takes 2 s to import; a step that is recorded needs none of it."""
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    arguments = ["train", "--data", str(packed_folder), *TINY, "--plots", "--steps", "5"]
    arguments += ["--device", "auto", "--out", str(tmp_path / "run")]
    code = "import sys; from pokegan.cli.main import main; code = main(sys.argv[1:])\n"
    code += "sys.exit(code or 9 * ('torch._dynamo' in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment | {"MPLBACKEND": "TkAgg", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    out = tmp_path / "run"
    assert (out / "plots/losses.png").exists()
    assert RunConfig.from_json((out / "config.json").read_text()).training.device == "cpu"
    assert json.loads((out / "stats.jsonl").read_text().splitlines()[-1])["step"] == 5


def test_python_gives_the_same_as_the_command(tiny: RunConfig, tmp_path: Path) -> None:
    import pokegan

    run = train(tiny, tmp_path / "run")
    pictures = pokegan.load(run.folder).sample(2, seed=3)
    assert (
        main(["generate", str(run.folder), "-n", "2", "--seed", "3", "--out", str(tmp_path)]) == 0
    )
    for index in range(2):
        stored = np.asarray(Image.open(tmp_path / f"seed-3-{index:05d}.png"))
        assert (stored == pictures[index]).all()


def test_init_is_that_of_all_networks() -> None:
    args = build_parser().parse_args(["train", "aegan", "--init", "xavier"])
    config = with_networks(recipes.get("aegan"), args)
    assert config.encoder is not None
    assert config.latent_discriminator is not None
    networks = (config.generator, config.discriminator, config.encoder)
    assert {one.init for one in (*networks, config.latent_discriminator)} == {"xavier"}
