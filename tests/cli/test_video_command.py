"""`pokegan video` and the ways through the latents of `pokegan generate`, as a user meets them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from pokegan.cli.main import main
from pokegan.config import RunConfig
from pokegan.training.generator import load
from pokegan.training.session import train


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, packed_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("video") / "run"
    small = ["--size", "16", "--batch", "8", "--samples", "4", "--precision", "fp32"]
    channels = ["--generator-option", "channels=[16, 8]", "--discriminator-option", "channels=[8]"]
    options = [*small, *channels, "--steps", "40", "--sample-every", "4"]
    assert main(["train", "--data", str(packed_folder), "--out", str(folder), *options]) == 0
    return folder


def frames_of(path: Path) -> list[np.ndarray]:
    with Image.open(path) as image:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]


def played(path: Path) -> tuple[int, float]:
    """How many frames another program or library finds in a clip, and for how many seconds."""
    if path.suffix == ".mp4":
        import imageio_ffmpeg

        return imageio_ffmpeg.count_frames_and_secs(str(path))
    with Image.open(path) as image:
        lasting = []
        for frame in ImageSequence.Iterator(image):
            frame.load()  # a WebP tells how long a frame is shown when it has been read
            lasting.append(frame.info["duration"])
    return len(lasting), sum(lasting) / 1000


@pytest.mark.parametrize("suffix", ["mp4", "webp", "gif"])
@pytest.mark.parametrize("kind", ["progress", "walk", "truncation"])
def test_every_kind_in_every_format(
    run_folder: Path, tmp_path: Path, kind: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if suffix == "mp4":
        pytest.importorskip("imageio_ffmpeg", reason="needs pokegan[video]")
    out = tmp_path / f"clip.{suffix}"
    short = ["--seconds", "1", "--fps", "12", "-n", "4", "--out", str(out)]
    assert main(["video", str(run_folder), "--kind", kind, *short]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    frames, seconds = played(out)
    assert seconds == pytest.approx(1.0, abs=0.05)
    if suffix == "mp4" or kind == "walk":
        assert frames == 12
    else:  # pictures that come twice in a row are one there, and shown for longer
        assert 2 < frames <= 12


def test_a_walk_begins_with_the_creatures_of_generate(run_folder: Path, tmp_path: Path) -> None:
    choice = ["-n", "4", "--seed", "7", "--first", "3", "--truncation", "1.2", "--psi", "0.8"]
    still = ["generate", str(run_folder), "--grid", "--out", str(tmp_path), *choice]
    assert main(still) == 0
    moving = ["video", str(run_folder), "--kind", "walk", "--seconds", "1", "--fps", "8", *choice]
    assert main([*moving, "--out", str(tmp_path / "walk.gif")]) == 0
    with Image.open(tmp_path / "grid.png") as image:
        grid = np.asarray(image.convert("RGB")).astype(int)
    first = frames_of(tmp_path / "walk.gif")[0]
    assert np.abs(first - grid).mean() < 6  # a GIF has 255 colours


@pytest.mark.parametrize("latent", ["normal", "uniform"])
def test_a_walk_of_a_trained_generator_loops_without_a_jump(
    packed_folder: Path, tmp_path: Path, latent: str
) -> None:
    folder = tmp_path / "run"
    small = ["--size", "16", "--batch", "8", "--samples", "4", "--precision", "fp32"]
    channels = ["--generator-option", "channels=[16, 8]", "--discriminator-option", "channels=[8]"]
    length = ["--steps", "80", "--lr", "0.004", "--no-plots"]  # enough to have pictures that move
    options = [*small, *channels, *length, "--latent", latent]
    assert main(["train", "--data", str(packed_folder), "--out", str(folder), *options]) == 0
    out = tmp_path / "walk.webp"
    choice = ["--kind", "walk", "--seconds", "2", "--fps", "20", "-n", "9", "--out", str(out)]
    assert main(["video", str(folder), *choice]) == 0
    frames = np.stack(frames_of(out)).astype(np.float64)
    assert len(frames) == 40
    steps = np.sqrt(((np.roll(frames, -1, axis=0) - frames) ** 2).mean(axis=(1, 2, 3)))
    assert np.median(steps) > 1  # it moves
    assert steps[-1] <= 1.5 * np.median(steps)


def test_interpolation_rows_hold_the_creatures_of_generate(
    run_folder: Path, tmp_path: Path
) -> None:
    arguments = ["generate", str(run_folder), "-n", "2", "--interpolate", "5", "--seed", "3"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    with Image.open(tmp_path / "grid.png") as image:
        grid = np.asarray(image.convert("RGB"))
    assert grid.shape == (2 * 18 + 2, 5 * 18 + 2, 3)
    expected = load(run_folder).sample(3, seed=3)
    for row in range(2):
        top = 2 + 18 * row
        assert (grid[top : top + 16, 2:18] == expected[row]).all()
        assert (grid[top : top + 16, 74:90] == expected[row + 1]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["video", "RUN", "--out", "clip.avi"], "--out clip.avi"),
        (["video", "RUN", "--kind", "walk", "--keys", "1", "--out", "a.gif"], "--keys 1"),
        (["video", "RUN", "--kind", "walk", "--psi", "2", "--out", "a.gif"], "--psi 2"),
        (["video", "RUN", "--fps", "0", "--out", "a.gif"], "--fps 0"),
        (["video", "nowhere", "--out", "a.gif"], "nowhere"),
        (["generate", "RUN", "--interpolate", "1"], "--interpolate 1"),
        (["generate", "RUN", "--interpolate", "4", "--columns", "2"], "--columns"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    run_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(run_folder) if one == "RUN" else one for one in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_the_default_name_is_the_whole_folders(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="needs pokegan[video]")
    monkeypatch.chdir(tmp_path)
    copied = shutil.copytree(run_folder, tmp_path / "lr-0.004")
    short = ["--seconds", "1", "--fps", "4", "--max-side", "32"]
    assert main(["video", str(copied), *short]) == 0
    weights = copied / "generator.safetensors"
    assert main(["video", str(weights), "--kind", "walk", "-n", "2", *short]) == 0
    found = {path.name for path in tmp_path.glob("*.mp4")}
    assert found == {"lr-0.004-progress.mp4", "generator-walk.mp4"}


def test_progress_needs_a_grid(tmp_path: Path, tiny: RunConfig) -> None:
    run = train(tiny, tmp_path / "run")
    for grid in run.folder.joinpath("samples").glob("*.png"):
        grid.unlink()
    out = tmp_path / "a.gif"
    assert main(["video", str(run.folder), "--out", str(out)]) == 2
    assert not out.exists()
