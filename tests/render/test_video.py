"""Videos read back by decoders: frames, sizes, times, and that a failure leaves nothing."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from pokegan.errors import ConfigError, PokeganError
from pokegan.render.animation import progress_frames
from pokegan.render.video import _save_mp4, check_video, save_video

COUNT, FPS = 12, 10.0


def frames(height: int = 48, width: int = 64) -> list[NDArray[np.uint8]]:
    """White pictures in which a square gets lighter from frame to frame."""
    made = np.full((COUNT, height, width, 3), 255, np.uint8)
    for index, frame in enumerate(made):
        frame[8:40, 8:40] = shade(index)
    return list(made)


def shade(index: int) -> tuple[int, int, int]:
    return (20 + 18 * index, 60, 160)


def read(path: Path) -> tuple[NDArray[np.uint8], float]:
    """Return [n, H, W, 3] and the length in seconds."""
    if path.suffix == ".mp4":
        ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="needs pokegan[video]")
        reader = ffmpeg.read_frames(str(path))
        facts = next(reader)
        width, height = facts["size"]
        found = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
        return np.stack(found), facts["duration"]
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        every = [
            (np.asarray(frame.convert("RGB")), frame.info["duration"])
            for frame in ImageSequence.Iterator(image)
        ]
    return np.stack([pixels for pixels, _ in every]), sum(time for _, time in every) / 1000


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif"])
def test_what_is_written_is_what_plays(tmp_path: Path, suffix: str) -> None:
    if suffix == ".mp4":
        pytest.importorskip("imageio_ffmpeg", reason="needs pokegan[video]")
    path = tmp_path / f"clip{suffix}"
    save_video(iter(frames()), path, FPS)
    found, seconds = read(path)
    assert found.shape == (COUNT, 48, 64, 3)
    assert seconds == pytest.approx(COUNT / FPS, abs=0.02)
    for index, frame in enumerate(found):
        assert np.abs(frame[16:32, 16:32].astype(int) - shade(index)).max() <= 12
        assert frame[44:, 50:].min() >= 250
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_an_odd_side_gets_a_white_line(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="needs pokegan[video]")
    save_video(frames(47, 63), tmp_path / "odd.mp4", FPS)
    found, _ = read(tmp_path / "odd.mp4")
    assert found.shape[1:3] == (48, 64)
    assert found[:, -1].min() >= 245


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif"])
def test_large_frames_are_scaled_down(tmp_path: Path, suffix: str) -> None:
    if suffix == ".mp4":
        pytest.importorskip("imageio_ffmpeg", reason="needs pokegan[video]")
    save_video(frames(96, 128), tmp_path / f"a{suffix}", FPS, max_side=64)
    assert read(tmp_path / f"a{suffix}")[0].shape[1:3] == (48, 64)


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif"])
def test_a_failure_in_between_leaves_what_was_there(tmp_path: Path, suffix: str) -> None:
    if suffix == ".mp4":
        pytest.importorskip("imageio_ffmpeg", reason="needs pokegan[video]")
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"older")

    def broken():
        yield from frames()[:3]
        raise PokeganError("no more")

    with pytest.raises(PokeganError, match="no more"):
        save_video(broken(), path, FPS)
    assert path.read_bytes() == b"older"
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No process writes a file of more than `size` bytes, as on a disk that is nearly full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_encoder_that_fails_at_the_end_leaves_the_older_video(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="needs pokegan[video]")
    path = tmp_path / "a.mp4"
    path.write_bytes(b"older")
    with files_up_to(1000), pytest.raises(PokeganError, match="encoder failed: it ended by signal"):
        save_video(frames(), path, FPS)
    assert path.read_bytes() == b"older"
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_the_encoders_own_words_are_told() -> None:
    pytest.importorskip("imageio_ffmpeg", reason="needs pokegan[video]")
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    with pytest.raises(PokeganError, match=r"encoder failed: .*No space left") as caught:
        _save_mp4(iter(frames()), Path("/dev/full"), FPS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["12:30.mp4", "http:x.mp4"])
def test_a_name_may_hold_a_colon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="needs pokegan[video]")
    monkeypatch.chdir(tmp_path)
    save_video(frames(), Path(name), FPS)
    assert len(read(tmp_path / name)[0]) == COUNT


def test_an_encoder_that_cannot_be_started_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="needs pokegan[video]")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "no-ffmpeg"))
    with pytest.raises(PokeganError, match=r"encoder cannot be started: .*no-ffmpeg"):
        save_video(frames(), tmp_path / "a.mp4", FPS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "seconds", "fps", "side", "message"),
    [
        ("a.avi", 1, 10, 100, "--out a.avi"),
        ("a", 1, 10, 100, "--out a"),
        ("a.gif", 1, 0, 100, "--fps 0"),
        ("a.gif", 1, 61, 100, "--fps 61"),
        ("a.gif", 0, 10, 100, "--seconds 0"),
        ("a.gif", 1000, 10, 100, "--seconds 1000.*48 s are possible in a gif"),
        ("a.gif", float("nan"), 10, 100, "--seconds nan"),
        ("a.gif", 1, 10, 8, "--max-side 8"),
    ],
)
def test_what_cannot_be_is_refused(
    name: str, seconds: float, fps: float, side: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_video(Path(name), seconds, fps, side)


def test_without_the_encoder_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ConfigError, match=r"pip install 'pokegan\[video\]'"):
        check_video(Path("a.mp4"), 1, 10, 100)
    assert check_video(Path("a.webp"), 1, 10, 100) == 10


def test_progress_shows_every_grid_for_as_long_and_holds_the_last(tmp_path: Path) -> None:
    paths = []
    for index, side in enumerate([8, 16, 32]):  # the grids of a growing run
        paths.append(tmp_path / f"{index}.png")
        Image.new("RGB", (side, side), shade(index)).save(paths[-1])
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG nothing")
    found = list(progress_frames([paths[0], broken, *paths[1:]], count=10, hold=4, max_side=32))
    assert all(frame.shape == (32, 32, 3) for frame in found)
    assert [tuple(frame[4, 4]) for frame in found] == [
        shade(index) for index in (0, 0, 1, 1, 2, 2, 2, 2, 2, 2)
    ]


def test_progress_without_a_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PokeganError, match="none of the 1 frames"):
        next(progress_frames([tmp_path / "none.png"], 10, 2, 32))
