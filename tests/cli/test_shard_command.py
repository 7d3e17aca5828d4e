"""`pokegan data shard` and large demo sets, as a user types them."""

import io
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

import pokegan
from pokegan.cli.main import main
from pokegan.data.creatures import draw_creature
from pokegan.data.packed import PackedImages
from pokegan.data.shards import ShardPictures

Output = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def pictures(here: Path) -> Path:
    """A folder of twelve creatures, one of them twice, and a note."""
    assert main(["data", "demo", "-n", "12", "--size", "24", "--out", "pics"]) == 0
    twin = (here / "pics" / "creature-0003.png").read_bytes()
    (here / "pics" / "twin.png").write_bytes(twin)
    (here / "pics" / "broken.png").write_bytes(twin[:90])
    return here / "pics"


def _error(output: Output) -> str:
    lines = output.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_shards_prepare_and_back_again(pictures: Path, capsys: Output) -> None:
    flags = ["--shard-size", "5", "--workers", "1"]
    assert main(["data", "shard", "pics", "--out", "shards", *flags]) == 0
    text = capsys.readouterr().out
    assert "12 pictures in 3 shards" in text
    assert "1 same file, 1 truncated" in text
    for data in ("pics", "shards"):
        assert main(["data", "prepare", data, "--size", "16", "--workers", "0"]) == 0
    of_files, of_shards = PackedImages.open(Path("pics-16")), PackedImages.open(Path("shards-16"))
    assert np.array_equal(of_files.images, of_shards.images)
    assert of_files.names == of_shards.names
    assert main(["data", "shard", "pics-16", "--out", "of-set", "--workers", "0"]) == 0
    assert len(ShardPictures(Path("of-set"))) == 12


def test_shards_of_squares(pictures: Path) -> None:
    flags = ["--size", "16", "--shard-size", "0.01MB", "--workers", "0"]
    assert main(["data", "shard", "pics", "--out", "shards", *flags]) == 0
    shards = ShardPictures(Path("shards"))
    assert len(shards.manifest.shards) > 1
    with Image.open(io.BytesIO(shards.read(11))) as image:
        assert (image.size, image.mode) == ((16, 16), "RGB")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shard-size", "0"], "'0' is neither pictures, as 1000, nor MB, as 64MB"),
        (["--shard-size", "9GB"], "'9GB' is neither pictures"),
        (["--size", "4"], "size must be 8 to 1024 px, not 4"),
        (["--workers", "-1"], "'-1' is not a whole number"),
    ],
)
def test_wrong_flags_are_one_line(
    pictures: Path, here: Path, capsys: Output, flags: list[str], message: str
) -> None:
    capsys.readouterr()
    assert main(["data", "shard", "pics", "--out", "shards", *flags]) == 2
    assert message in _error(capsys)
    assert [path.name for path in here.iterdir()] == ["pics"]


def test_a_folder_of_another_job_is_refused(pictures: Path, capsys: Output) -> None:
    command = ["data", "shard", "pics", "--out", "shards", "--workers", "0"]
    assert main(command) == 0
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command, "--size", "16"]) == 2
    assert "shards holds shards of squares False, not True: name another" in _error(capsys)


def test_terminated_and_started_again(pictures: Path, here: Path) -> None:
    """SIGTERM leaves whole shards; the same command ends with the bytes of an undisturbed run."""
    flags = ["--shard-size", "1", "--workers", "1"]
    assert main(["data", "shard", "pics", "--out", "whole", *flags]) == 0
    with ending(
        subprocess.Popen(
            [sys.executable, "-m", "pokegan", "data", "shard", "pics", "--out", "again", *flags],
            env={**os.environ, "PYTHONPATH": str(Path(pokegan.__file__).parents[1])},
            stderr=subprocess.PIPE,
        )
    ) as process:
        deadline = time.monotonic() + 60
        while not list(here.glob("again/shard-*.tar")) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode in (0, 143), said
    assert main(["data", "shard", "pics", "--out", "again", *flags]) == 0
    whole, again = (
        {path.name: path.read_bytes() for path in (here / name).iterdir()}
        for name in ("whole", "again")
    )
    assert again == whole


def test_demo_creatures_beyond_the_embedded_set_and_as_shards(here: Path, capsys: Output) -> None:
    from pokegan.data.demo_files import Drawing, draw
    from pokegan.data.entries import DrawnEntry

    (here / "07").mkdir()
    assert draw(Drawing(here, 16, (DrawnEntry("07/creature-070001", 70_001, 5),), "0")) == 1
    with Image.open(here / "07" / "creature-070001.png") as image:
        assert np.array_equal(np.asarray(image), draw_creature(70_001, 16, 5))
    assert [path.name for path in (here / "07").iterdir()] == ["creature-070001.png"]
    flags = ["-n", "70", "--size", "16", "--seed", "5"]
    assert main(["data", "demo", *flags, "--out", "files", "--workers", "2"]) == 0
    assert main(["data", "demo", *flags, "--out", "shards", "--shards", "--workers", "1"]) == 0
    assert "70 creatures of 16 px in files" in capsys.readouterr().out
    assert len(list((here / "files").iterdir())) == 70
    assert len(ShardPictures(here / "shards")) <= 70
    assert main(["data", "demo", "-n", "1000001", "--out", "files"]) == 2
    assert "1 to 1,000,000 creatures, not 1,000,001" in _error(capsys)
    job = json.loads((here / "shards" / "shards.json").read_text())["job"]
    assert (job["source"], job["squares"]) == ("demo", True)
