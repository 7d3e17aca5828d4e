"""`pokegan data ...`, as a user types it."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from awkward import make_awkward
from children import ending
from PIL import Image

import pokegan
from pokegan.cli.main import main
from pokegan.data import demo_files
from pokegan.data.duplicates import NEAR, SAME_FILE
from pokegan.data.options import NEAR_DUPLICATE_DISTANCE
from pokegan.data.packed import PackedImages
from pokegan.data.refusals import category

Output = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def pictures(here: Path) -> Path:
    """A folder with two pictures, a duplicate, a note and three files that cannot be read."""
    folder = here / "my pics"
    (folder / "nested").mkdir(parents=True)
    red = Image.new("RGBA", (20, 10), (255, 0, 0, 255))
    red.save(folder / "red.PNG")
    red.save(folder / "red again.png")
    half = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    half.paste((0, 0, 255, 255), (0, 0, 8, 16))
    half.save(folder / "nested" / "transparent.png")
    content = io.BytesIO()
    half.save(content, "PNG")
    (folder / "cut.png").write_bytes(content.getvalue()[:50])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    (folder / "labels.csv").write_text("a,b")
    return folder


def _error(output: Output) -> str:
    """The one line on stderr."""
    lines = output.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.match("pokegan( data prepare)?: error: ", lines[0])
    return lines[0]


def _program(*arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
    """The command line in a process of its own."""
    root = str(Path(pokegan.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "pokegan", *arguments],
        env={**os.environ, "PYTHONPATH": root, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_prepare_a_folder(pictures: Path, capsys: Output) -> None:
    assert main(["data", "prepare", "my pics", "--size", "16", "--workers", "0"]) == 0
    images = PackedImages.open(Path("my pics-16"), verify=True)
    assert images.names == ["nested/transparent.png", "red again.png"]
    assert images.images[0, 8, 4].tolist() == [0, 0, 255]
    assert images.images[0, 8, 12].tolist() == [255, 255, 255]
    assert images.images[1, 0, 8].tolist() == [255, 255, 255]
    with Image.open("my pics-16/contact-sheet.png") as sheet:
        assert sheet.format == "PNG"
    text = capsys.readouterr().out
    for expected in (
        *("7 files found", "2 kept at 16 x 16 px", "1 duplicates dropped", "4 skipped"),
        *("cut.png", "empty.png", "text.png", "labels.csv"),
        *("my pics-16/contact-sheet.png", "pokegan train --data 'my pics-16' --size 16"),
    ):
        assert expected in text


def test_prepare_with_every_flag(pictures: Path, capsys: Output) -> None:
    flags = "--size 8 --out set --background #102030 --fit crop --keep-duplicates --workers 1"
    flags += " --near-duplicate-distance 0"
    for _ in range(2):  # the second time replaces the set
        assert main(["data", "prepare", "my pics", *flags.split()]) == 0
    images = PackedImages.open(Path("set"))
    assert images.names == ["nested/transparent.png", "red again.png", "red.PNG"]
    assert np.allclose(images.images[0, 4, 6], [0x10, 0x20, 0x30], atol=2)
    assert (images.images[1] == [255, 0, 0]).all()
    assert images.manifest.options["near_duplicate_distance"] == 0


def test_prepare_where_nothing_can_be_read(here: Path, capsys: Output) -> None:
    (here / "bad").mkdir()
    (here / "bad" / "a.png").write_text("text")
    (here / "bad" / "b.png").write_bytes(b"")
    assert main(["data", "prepare", "bad", "--workers", "0"]) == 2
    message = _error(capsys)
    assert "no picture" in message
    assert "empty file" in message
    assert [path.name for path in here.iterdir()] == ["bad"]


def test_prepare_a_folder_of_awkward_files(here: Path, capsys: Output) -> None:
    """Every file on disk is in the set, or a duplicate, or listed with its reason."""
    pytest.importorskip("resvg_py")
    folder = here / "awkward"
    awkward = make_awkward(folder)
    (folder / "round").symlink_to(folder, target_is_directory=True)
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1" + bytes(90))
    expected = {**awkward.bad, "round": "link", ".DS_Store": "not a picture"}
    expected |= dict.fromkeys(["loop-a.png", "loop-b.png", "dangling.png"], "link")
    flags = ["--size", "48", "--workers", "2"]
    assert main(["data", "prepare", "awkward", *flags]) == 0
    manifest = PackedImages.open(Path("awkward-48"), verify=True).manifest
    usable = {row.name for row in (*manifest.pictures, *manifest.duplicates)}
    skipped = {row.name: category(row.reason) for row in manifest.skipped}
    assert usable == set(awkward.good)
    assert skipped == expected
    assert usable | set(skipped) == _on_disk(folder)
    assert manifest.found == len(usable) + len(skipped) >= 40
    assert {"line\nbreak.png", "with space.png", "ünï-日本-🐉.png"} <= usable
    text = capsys.readouterr().out
    assert all(name in text.replace("\\n", "\n") for name in expected)
    for name in awkward.good:
        (folder / name).unlink()
    assert main(["data", "prepare", "awkward", "--out", "other", *flags]) == 2
    assert "no picture of awkward can be used" in _error(capsys)
    assert sorted(path.name for path in here.iterdir()) == ["awkward", "awkward-48"]


def _on_disk(folder: Path) -> set[str]:
    """Every file and every link below a folder, by its path in it."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def test_749_real_pictures_and_their_twins(here: Path, capsys: Output) -> None:
    archive = os.environ.get("POKEGAN_TEST_PICTURES")
    if not archive:
        pytest.skip("POKEGAN_TEST_PICTURES does not name the archive of the 749 pictures")
    assert main(["data", "prepare", archive, "--out", "real"]) == 0
    images = PackedImages.open(Path("real"), verify=True)
    assert images.manifest.counts() == {"kept": 730, NEAR: 749, SAME_FILE: 19}
    assert all(name.endswith(".png") for name in images.names)
    for row in images.manifest.duplicates:
        if row.kind == NEAR:  # a twin has the number of its picture, up to the 19 equal files
            assert row.name.endswith(".jpg")
            assert Path(row.name).stem.split("-")[0] == Path(row.kept).stem.split("-")[0]
    corners = images.images[:, [0, 0, -1, -1], [0, -1, 0, -1]]  # [N, 4, 3]
    assert (corners.reshape(-1, 3).min(axis=1) < 30).mean() < 0.01  # no black background
    with Image.open("real/contact-sheet.png") as sheet:
        assert np.asarray(sheet.convert("L")).mean() > 128
    assert "1,498 files found" in capsys.readouterr().out


def test_prepare_refuses_what_is_prepared_and_what_is_in_the_way(
    here: Path, pictures: Path, packed_folder: Path, capsys: Output
) -> None:
    assert main(["data", "prepare", str(packed_folder)]) == 2
    assert "prepared already" in _error(capsys)
    (here / "out").mkdir()
    (here / "out" / "thesis.txt").write_text("precious")
    assert main(["data", "prepare", "my pics", "--out", "out", "--workers", "0"]) == 2
    assert "not a packed set" in _error(capsys)
    assert (here / "out" / "thesis.txt").read_text() == "precious"


def test_the_default_place_is_not_taken_from_another_source(here: Path, capsys: Output) -> None:
    for folder, colour in (("a/pics", "red"), ("b/pics", "blue")):
        (here / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8), colour).save(here / folder / "1.png")
    flags = ["--size", "8", "--workers", "0"]
    for _ in range(2):
        assert main(["data", "prepare", "a/pics", *flags]) == 0
    capsys.readouterr()
    assert main(["data", "prepare", "b/pics", *flags]) == 2
    assert "pics-8 holds a set of other pictures" in (message := _error(capsys))
    assert "--out pics-8" in message
    assert PackedImages.open(Path("pics-8")).images[0, 0, 0].tolist() == [255, 0, 0]
    assert main(["data", "prepare", "b/pics", "--out", "pics-8", *flags]) == 0
    assert PackedImages.open(Path("pics-8")).images[0, 0, 0].tolist() == [0, 0, 255]
    (here / "pics-8" / "mine.txt").write_text("precious")
    capsys.readouterr()
    assert main(["data", "prepare", "b/pics", *flags]) == 2
    assert "pics-8 holds mine.txt" in _error(capsys)
    assert main(["data", "prepare", "b/pics", "--out", ".", *flags]) == 2
    assert "current folder" in _error(capsys)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--size", "4"], "8 to 1024"),
        (["--background", "clear"], "--background clear"),
        (["--workers", "abc"], "--workers: 'abc' is not a whole number, 0 or more"),
        (["--workers", "-1"], "--workers: '-1' is not a whole number, 0 or more"),
        (["--near-duplicate-distance", "-1"], "--near-duplicate-distance -1.0: at least 0"),
    ],
)
def test_wrong_values_are_one_line(
    pictures: Path, capsys: Output, flags: list[str], expected: str
) -> None:
    assert main(["data", "prepare", "my pics", *flags]) == 2
    assert expected in _error(capsys)


def test_names_that_the_terminal_cannot_show_are_escaped(here: Path) -> None:
    (here / "pics").mkdir()
    Image.new("RGB", (8, 8), "red").save(here / "pics" / "日本.png")
    (here / "pics" / "ünï-🐉.png").write_text("no picture")
    flags = ["--size", "8", "--workers", "0"]
    with ending(_program("data", "prepare", "pics", *flags, PYTHONIOENCODING="latin-1")) as process:
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "ünï-\\U0001f409.png" in out.decode("latin-1")
    assert errors == b""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_sigterm_leaves_nothing_half_written(here: Path, workers: str) -> None:
    (here / "pics").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), np.uint8)
    Image.fromarray(noise).save(here / "pics" / "0.png")
    for i in range(1, 100):
        os.link(here / "pics" / "0.png", here / "pics" / f"{i}.png")
    with ending(
        _program("data", "prepare", "pics", "--size", "8", "--workers", workers)
    ) as process:
        deadline = time.monotonic() + 60
        while not list(here.glob(".pics-8-*.part/images.u8")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 143, errors
    assert errors.decode().strip() == "pokegan: terminated"
    assert [path.name for path in here.iterdir()] == ["pics"]


def test_unknown_data(capsys: Output) -> None:
    assert main(["data", "prepare", "pokeapy"]) == 2
    assert "did you mean pokeapi" in _error(capsys)


def test_inspect_a_folder_and_a_set(pictures: Path, packed_folder: Path, capsys: Output) -> None:
    flags = ["--size", "16", "--workers", "0"]
    assert main(["data", "inspect", "my pics", *flags, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["found"], found["count"], found["size"]) == (7, 2, 16)
    assert found["background"] == [255, 255, 255]
    assert {row["name"] for row in found["skipped"]} == {
        *("cut.png", "empty.png", "text.png", "labels.csv"),
    }
    assert found["duplicates"] == [
        {"kept": "red again.png", "dropped": [{"name": "red.PNG", "kind": "same file"}]}
    ]
    assert sum(found["counts"].values()) == found["found"]
    pixels = PackedImages.open(Path(found["path"])).images
    assert np.allclose(found["colour"]["mean"], pixels.mean(axis=(0, 1, 2)))
    assert main(["data", "inspect", str(packed_folder)]) == 0
    text = capsys.readouterr().out
    assert "20 kept at 16 x 16 px" in text
    assert re.search(r"colour +mean #[0-9a-f]{6}", text)


def test_prepare_again_by_a_manifest(here: Path, pictures: Path, capsys: Output) -> None:
    flags = ["--size", "16", "--workers", "0", "--min-size", "8", "--max-aspect", "3"]
    assert main(["data", "prepare", "my pics", "--out", "first", *flags]) == 0
    Image.new("RGB", (30, 30), "green").save(pictures / "later.png")
    again = ["data", "prepare", "--workers", "0", "--from"]
    capsys.readouterr()
    assert main([*again, "first", "my pics", "--out", "second"]) == 0
    assert "the same pictures and the same pixels as in the first set" in capsys.readouterr().out
    first, second = (Path(name, "images.u8").read_bytes() for name in ("first", "second"))
    assert first == second
    options = [PackedImages.open(Path(name)).manifest.options for name in ("first", "second")]
    assert options[0] == options[1]
    assert (options[0]["min_size"], options[0]["max_aspect"]) == (8, 3)
    for wrong, expected in (
        (["first/manifest.json"], "the set of first/manifest.json was made of a folder or archive"),
        (["first", "my pics", "--min-size", "9"], "leave out --min-size"),
        (["first", "my pics", "--size", "16"], "leave out --size"),
        (["nothing", "my pics"], "nothing cannot be read: No such file or directory"),
    ):
        assert main([*again, *wrong]) == 2
        assert expected in _error(capsys)
    (pictures / "nested" / "transparent.png").unlink()
    assert main([*again, "first", "my pics", "--out", "third"]) == 2
    assert "missing: nested/transparent.png" in _error(capsys)
    assert not Path("third").exists()


def test_prepare_again_without_naming_the_collection(here: Path, packed_folder: Path) -> None:
    assert main(["data", "prepare", "--from", str(packed_folder), "--workers", "0"]) == 0
    checksums = {PackedImages.open(path).manifest.checksum for path in (packed_folder, "demo-16")}
    assert len(checksums) == 1


def test_filters_by_flags(pictures: Path, capsys: Output) -> None:
    spot = Image.new("RGB", (12, 12), "white")
    spot.paste("green", (4, 4, 8, 8))
    spot.save(pictures / "spot.png")
    flags = ["--size", "16", "--workers", "0", "--json"]
    assert main(["data", "inspect", "my pics", *flags, "--plain-background"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["count"], found["counts"]["no plain background"]) == (1, 3)
    assert main(["data", "inspect", "my pics", *flags, "--min-size", "11"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["count"], found["counts"]["too small"]) == (2, 2)
    assert main(["data", "prepare"]) == 2
    assert "DATA is missing: a folder of pictures" in _error(capsys)


def test_inspect_refuses_options_that_would_do_nothing(packed_folder: Path, capsys: Output) -> None:
    assert main(["data", "inspect", str(packed_folder), "--min-size", "9"]) == 2
    assert "is prepared already: leave out --min-size" in _error(capsys)


def test_every_key_of_the_json_is_in_the_documentation(
    pictures: Path, packed_folder: Path, capsys: Output
) -> None:
    assert main(["data", "inspect", "my pics", "--workers", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    text = (Path(pokegan.__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    text = re.sub("(?s)```.*?```", "", text)
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", text))))
    parts = [found, *(found[key] for key in ("originals", "colour", "border", "foreground"))]
    parts += [found["nearly_empty"], found["outliers"], found["duplicates"][0], found["skipped"][0]]
    keys = {key for part in parts for key in part}
    assert len(keys) > 40
    assert keys <= words


def test_demo_files(here: Path, capsys: Output) -> None:
    assert main(["data", "demo", "--size", "32", "-n", "3", "--seed", "5", "--out", "demo"]) == 0
    paths = sorted((here / "demo").iterdir())
    assert [path.name for path in paths] == [f"creature-000{i}.png" for i in range(3)]
    with Image.open(paths[0]) as picture:
        assert (picture.mode, picture.size) == ("RGBA", (32, 32))
        assert picture.getpixel((0, 0))[3] == 0
        assert picture.getchannel("A").getextrema() == (0, 255)
    assert "3 creatures" in capsys.readouterr().out
    assert main(["data", "prepare", "./demo", "--size", "32", "--workers", "0"]) == 0
    for wrong in ("-n 0", "-n 1000001", "--size 4", "--seed -1"):
        assert main(["data", "demo", *wrong.split(), "--out", "no"]) == 2
        capsys.readouterr()
    assert not (here / "no").exists() or not any((here / "no").iterdir())


def test_stopped_drawing_leaves_whole_files_only(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_files, "_BUNCH", 1)
    (here / ".creature-of-mine.part").touch()

    def stop(done: int, total: int) -> None:
        deadline = time.monotonic() + 20
        while len(list(here.glob(".*.part"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo_files.write_demo(here, 512, 50, 0, workers=1, progress=stop)
    assert [path.name for path in here.glob(".*")] == [".creature-of-mine.part"]
    for path in here.glob("*.png"):
        with Image.open(path) as picture:
            picture.load()


def test_fetch_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("PATH", "")
    for name, expected in (("pokeapi", "Node.js"), ("demo", "--data demo"), ("x", "OWNER/NAME")):
        assert main(["data", "fetch", name]) == 2
        assert expected in _error(capsys)


def test_fetch_and_prepare_pokeapi(capsys: Output) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not on PATH")
    if main(["data", "fetch", "pokeapi"]) != 0:
        message = capsys.readouterr().err
        assert "npm could not fetch" in message
        pytest.skip(message)
    folder = Path(capsys.readouterr().out.strip())
    assert len(list(folder.iterdir())) == 749
    pytest.importorskip("resvg_py")
    assert main(["data", "prepare", "pokeapi", "--size", "32"]) == 0
    images = PackedImages.open(Path("pokeapi-32"))
    counts = images.manifest.counts()
    assert images.manifest.found == 749
    assert counts["same file"] == 19
    assert 700 <= len(images) <= 730
    assert not images.manifest.skipped
    corners = images.images[:, [0, 0, -1, -1], [0, -1, 0, -1]].reshape(-1, 3)
    assert (corners == 255).all(axis=1).mean() > 0.95


def test_help_tells_the_defaults(capsys: Output) -> None:
    assert main(["data", "prepare", "--help"]) == 0
    assert f"(default: {NEAR_DUPLICATE_DISTANCE})" in " ".join(capsys.readouterr().out.split())
    assert main(["data", "fetch", "--help"]) == 0
    assert "kaggle:kvpratama/pokemon-images-dataset" in capsys.readouterr().out
    assert main(["data"]) == 2
