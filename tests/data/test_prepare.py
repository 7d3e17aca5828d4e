"""Whole sets: the awkward folder, duplicates, reports, interruption."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from awkward import Awkward, Files, make_awkward
from children import ending
from picture_files import HEIGHT, WIDTH, drawing, on, saved
from PIL import Image

from pokegan.data import PackedImages, PrepareOptions, prepare, report_text
from pokegan.data.duplicates import NEAR, SAME_FILE, SAME_PIXELS
from pokegan.data.refusals import category
from pokegan.errors import DataError

FOLDER = "awkward"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Awkward, PackedImages]:
    folder = tmp_path_factory.mktemp("made")
    awkward = make_awkward(folder / FOLDER)
    source = Files(folder / FOLDER, rejected=[("secret", "cannot be read: Permission denied")])
    options = PrepareOptions(WIDTH, keep_duplicates=True)
    return awkward, prepare(source, options, folder / "out", workers=2)


def test_every_readable_file_is_in_the_set_as_it_was_drawn(
    made: tuple[Awkward, PackedImages],
) -> None:
    awkward, images = made
    assert set(images.names) == set(awkward.good)
    for name, picture in zip(images.names, images.images, strict=True):
        expected, tolerance = awkward.good[name]
        if expected.shape != (HEIGHT, WIDTH, 3):
            continue
        bars = [picture[:8], picture[8 + HEIGHT :]]
        assert all((bar == 255).all() for bar in bars), name
        difference = np.abs(picture[8 : 8 + HEIGHT].astype(int) - expected)
        assert difference.mean() <= tolerance, name


def test_every_other_file_is_listed_with_its_reason(made: tuple[Awkward, PackedImages]) -> None:
    awkward, images = made
    listed = {row.name: category(row.reason) for row in images.manifest.skipped}
    assert listed.pop("secret") == "cannot be read"
    assert listed == awkward.bad
    counts = images.manifest.counts()
    assert counts["kept"] == len(awkward.good)
    assert sum(counts.values()) == images.manifest.found == len(awkward.good) + len(listed) + 1
    report = report_text(images.manifest)
    for name in ("empty.png", "bomb.png", "loop-a.png", "secret"):
        assert name in report


def test_set_is_sound_and_nothing_else_is_left(made: tuple[Awkward, PackedImages]) -> None:
    path = made[1].path
    assert len(PackedImages.open(path, verify=True)) == len(made[1])
    assert sorted(p.name for p in path.iterdir()) == ["images.u8", "manifest.json"]
    assert sorted(p.name for p in path.parent.iterdir()) == [FOLDER, "out"]


def twins(folder: Path, count: int = 6) -> None:
    """The layout of seed 000: RGBA PNG in one folder, the same as JPG on white in another."""
    from pokegan.data.creatures import draw_creature

    png, jpg = folder / "pokemon" / "pokemon", folder / "pokemon_jpg" / "pokemon_jpg"
    png.mkdir(parents=True)
    jpg.mkdir(parents=True)
    for i in range(1, count + 1):
        rgba = draw_creature(i, 256, 0)
        (png / f"{i}.png").write_bytes(saved(Image.fromarray(rgba), "PNG"))
        (jpg / f"{i}.jpg").write_bytes(saved(Image.fromarray(on(rgba)), "JPEG", quality=90))


def test_twins_keep_the_png_and_all_on_white(tmp_path: Path) -> None:
    twins(tmp_path / "input")
    again = (tmp_path / "input" / "pokemon" / "pokemon" / "2.png").read_bytes()
    (tmp_path / "input" / "pokemon" / "again.png").write_bytes(again)
    with Image.open(tmp_path / "input" / "pokemon" / "pokemon" / "3.png") as third:
        third.save(tmp_path / "input" / "pokemon" / "third.webp", lossless=True, exact=True)
    images = prepare(Files(tmp_path / "input"), PrepareOptions(64), tmp_path / "out", workers=0)
    assert images.names == ["pokemon/again.png"] + [
        f"pokemon/pokemon/{i}.png" for i in (1, 3, 4, 5, 6)
    ]
    dropped = {row.name: (row.kept, row.kind) for row in images.manifest.duplicates}
    assert dropped["pokemon/pokemon/2.png"] == ("pokemon/again.png", SAME_FILE)
    assert dropped["pokemon/third.webp"] == ("pokemon/pokemon/3.png", SAME_PIXELS)
    assert dropped["pokemon_jpg/pokemon_jpg/2.jpg"] == ("pokemon/again.png", NEAR)
    assert len(dropped) == 8
    assert (images.images[:, 0, 0] == 255).all()
    everything = PrepareOptions(64, keep_duplicates=True)
    kept = prepare(Files(tmp_path / "input"), everything, tmp_path / "all", workers=0)
    assert len(kept) == 14


def test_one_and_two_workers_and_none_give_the_same_set(tmp_path: Path) -> None:
    twins(tmp_path / "input")
    sums = set()
    for count in (0, 1, 2):
        out = tmp_path / f"out-{count}"
        images = prepare(Files(tmp_path / "input"), PrepareOptions(32), out, workers=count)
        sums.add(images.manifest.checksum)
    assert len(sums) == 1


def test_options_and_hashes_are_recorded(tmp_path: Path) -> None:
    twins(tmp_path / "input", count=2)
    options = PrepareOptions(16, background=(1, 2, 3), fit="crop")
    calls: list[tuple[int, int]] = []
    images = prepare(
        Files(tmp_path / "input"),
        options,
        tmp_path / "out",
        workers=0,
        progress=lambda *done: calls.append(done),
    )
    assert PrepareOptions(**images.manifest.options) == options
    assert images.background == (1, 2, 3)
    assert calls == [(i, 4) for i in range(1, 5)]
    assert all(len(row.sha256) == 64 for row in images.manifest.pictures)


def test_upper_case_endings_and_nested_folders_are_found(
    made: tuple[Awkward, PackedImages],
) -> None:
    assert {"PHOTO 2.JPG", "deep/er/and/deeper/picture.png"} <= set(made[1].names)


def test_no_usable_picture_is_an_error_with_the_top_reasons(tmp_path: Path) -> None:
    for name, content in (("a.png", b""), ("b.png", b""), ("c.png", b"text")):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"empty file \(2\); not a picture: text \(1\)"):
        prepare(Files(tmp_path), PrepareOptions(16), tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_an_empty_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is none"):
        prepare(Files(tmp_path), PrepareOptions(16), tmp_path / "out", workers=0)


def test_a_full_disk_is_one_line_and_nothing_half_written(tmp_path: Path) -> None:
    """A limit on file size stands for the disk: writing fails in the middle of the pictures."""
    pytest.importorskip("resource")
    twins(tmp_path / "input")
    with ending(
        _run(
            f"""
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        from pokegan.errors import DataError
        try:
            prepare(Files(Path({str(tmp_path / "input")!r})), PrepareOptions(64),
                    Path({str(tmp_path / "out")!r}), workers=0)
        except DataError as error:
            print(error)
        """
        )
    ) as process:
        done = process.communicate(timeout=60)
    assert done[0].startswith(f"cannot write {tmp_path / 'out'}: File too large"), done
    assert [path.name for path in tmp_path.iterdir()] == ["input"]


@pytest.mark.parametrize("count", [0, 2])
def test_ctrl_c_leaves_nothing_half_written(tmp_path: Path, count: int) -> None:
    twins(tmp_path / "input")
    with ending(
        _run(
            f"""
        import time
        def progress(done, found):
            print("working", flush=True)
            time.sleep(0.5)
        prepare(Files(Path({str(tmp_path / "input")!r})), PrepareOptions(64),
                Path({str(tmp_path / "out")!r}), workers={count}, progress=progress)
        """
        )
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
        start = time.monotonic()
        _, errors = process.communicate(timeout=30)
    assert time.monotonic() - start < 10
    assert process.returncode != 0
    assert errors.strip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["input"]


def _run(script: str) -> "subprocess.Popen[str]":
    """A Python process of its own group that has the usual names at hand."""
    root = Path(__file__).resolve().parents[2]
    head = (
        f"import sys; sys.path[:0] = [{str(root)!r}, {str(Path(__file__).parent)!r}]\n"
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path\n"
        "from awkward import Files\n"
        "from pokegan.data import PrepareOptions, prepare\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", head + textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_drawing_has_what_the_tests_rely_on() -> None:
    alpha = drawing()[..., 3]
    assert {0, 255} <= set(alpha.ravel().tolist())
    assert len(np.unique(alpha)) > 100
