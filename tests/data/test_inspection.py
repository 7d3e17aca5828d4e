"""Inspection: figures against arithmetic written anew, outliers, the marked sheet, memory."""

import colorsys
import json
import statistics
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from awkward import Files
from picture_files import saved
from PIL import Image

from pokegan.data import PackedImages, PrepareOptions, measures, prepare
from pokegan.data.creatures import draw_creature
from pokegan.data.inspection import EMPTY_COLOUR, OUTLIER_COLOUR, inspect
from pokegan.data.outliers import modified_z_scores

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> PackedImages:
    """Thirty creatures, two of them twice, with a black, an empty and a nearly empty picture."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "in").mkdir()
    for i in range(30):
        picture = Image.fromarray(draw_creature(i, 40 + i, 0))
        (folder / "in" / f"{i:02d}.png").write_bytes(saved(picture, "PNG"))
    for name in ("again", "and again"):
        (folder / "in" / f"{name}.png").write_bytes((folder / "in" / "07.png").read_bytes())
    (folder / "in" / "wide black.jpg").write_bytes(saved(Image.new("RGB", (90, 30)), "JPEG"))
    (folder / "in" / "blank.png").write_bytes(saved(Image.new("RGB", (32, 32), "white"), "PNG"))
    dot = Image.new("RGB", (32, 32), "white")
    dot.putpixel((9, 9), (200, 0, 0))
    (folder / "in" / "dot.png").write_bytes(saved(dot, "PNG"))
    (folder / "in" / "bad.png").write_bytes(b"")
    return prepare(Files(folder / "in"), PrepareOptions(32), folder / "set", workers=0)


def test_figures_are_those_of_the_pixels(odd: PackedImages) -> None:
    found = inspect(odd).to_json()
    pixels = np.array(odd.images, np.float64)
    colour = found["colour"]
    assert np.allclose(colour["mean"], pixels.mean(axis=(0, 1, 2)))
    assert np.allclose(colour["spread"], pixels.std(axis=(0, 1, 2)))
    for channel, name in enumerate(("red", "green", "blue")):
        levels, counts = np.unique(odd.images[..., channel], return_counts=True)
        histogram = np.array(colour["histogram"][name])
        assert (histogram[levels] == counts).all()
        assert histogram.sum() == counts.sum()
    shown = (np.abs(pixels - 255) > 16).any(axis=-1)
    hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in (pixels[shown] / 255).tolist()]
    assert colour["saturation"] == pytest.approx(statistics.fmean(s for _, s, _ in hsv), abs=1e-5)
    shares = shown.mean(axis=(1, 2))
    foreground = found["foreground"]
    assert foreground["median"] == pytest.approx(statistics.median(shares.tolist()))
    assert (foreground["least"], foreground["least_name"]) == (0, "blank.png")
    assert odd.names[int(shares.argmax())] == foreground["most_name"]


def test_brightness_and_contrast_of_each_picture(odd: PackedImages) -> None:
    found = measures.measure(odd)
    for i, picture in enumerate(odd.images):
        luma = picture.astype(np.float64) @ [0.299, 0.587, 0.114]
        assert found.brightness[i] == pytest.approx(luma.mean(), abs=1e-3)
        assert found.contrast[i] == pytest.approx(luma.std(), abs=1e-2)


def test_counts_originals_groups_and_borders(odd: PackedImages) -> None:
    found = inspect(odd).to_json()
    assert (found["found"], found["count"]) == (36, 33)
    assert sum(found["counts"].values()) == found["found"]
    originals = found["originals"]
    assert originals["formats"] == {"PNG": 32, "JPEG": 1}
    assert originals["known"] == 33
    assert (originals["width"]["least"], originals["width"]["most"]) == (32, 90)
    assert originals["aspect"]["most"] == 3
    assert originals["enlarged"] == 0
    assert {"width": 32, "height": 32, "pictures": 2} in originals["sizes"]
    group = [{"name": name, "kind": "same file"} for name in ("again.png", "and again.png")]
    assert found["duplicates"] == [{"kept": "07.png", "dropped": group}]
    assert found["border"]["other"] == ["wide black.jpg"]  # its white bars do not count
    assert found["border"]["plain"] == 32
    assert [row["name"] for row in found["skipped"]] == ["bad.png"]
    assert json.loads(json.dumps(found)) == found


def test_outliers_and_nearly_empty_pictures_are_named(odd: PackedImages) -> None:
    found = inspect(odd)
    names = [row["name"] for row in found.to_json()["outliers"]["pictures"]]
    assert set(names) == {"wide black.jpg", "blank.png", "dot.png"}
    empty = found.to_json()["nearly_empty"]["pictures"]
    assert [row["name"] for row in empty] == ["blank.png", "dot.png"]
    text = found.to_text()
    assert len(text.splitlines()) < 40
    for expected in ("2 with under 2% foreground", "wide black.jpg", "32 PNG, 1 JPEG", "30 to "):
        assert expected in text


def test_the_rule_for_outliers_is_that_of_iglewicz_and_hoaglin() -> None:
    values = np.array([2.1, 2.6, 2.4, 2.5, 2.3, 2.1, 2.3, 2.6, 8.2, 8.3])  # their example's like
    median = statistics.median(values)
    mad = statistics.median(abs(v - median) for v in values)
    expected = [0.6745 * (v - median) / mad for v in values]
    assert np.allclose(modified_z_scores(values), expected)
    constant = np.array([5.0] * 9 + [6.0])
    mean_deviation = 0.1
    assert modified_z_scores(constant)[-1] == pytest.approx(1 / (1.253314 * mean_deviation))
    assert not modified_z_scores(np.full(12, 3.0)).any()


def test_few_pictures_have_no_outliers(tmp_path: Path) -> None:
    for i in range(5):
        Image.new("RGB", (16, 16), (50 * i, 0, 0)).save(tmp_path / f"{i}.png")
    options = PrepareOptions(16, keep_duplicates=True)
    found = inspect(prepare(Files(tmp_path), options, tmp_path / "out", workers=0))
    assert found.to_json()["outliers"]["pictures"] == []
    assert "not sought among fewer than 10 pictures" in found.to_text()


def test_the_sheet_marks_what_stands_out(odd: PackedImages, tmp_path: Path) -> None:
    found = inspect(odd)
    with Image.open(found.save_sheet(tmp_path / "deep" / "sheet.png")) as sheet:
        pixels = np.asarray(sheet)
    pitch, columns = 32 + 8, 6
    assert pixels.shape == (6 * pitch + 8, columns * pitch + 8, 3)
    frames = {tuple(pixels[y * pitch + 6, x * pitch + 24]) for y in range(6) for x in range(6)}
    assert frames == {(128, 128, 128), OUTLIER_COLOUR, EMPTY_COLOUR}
    row, column = divmod(odd.names.index("blank.png"), columns)
    assert tuple(pixels[row * pitch + 6, column * pitch + 24]) == EMPTY_COLOUR


def test_blocks_do_not_show_in_the_figures(
    odd: PackedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = inspect(odd).to_json()
    monkeypatch.setattr(measures, "_BLOCK", 2 * 32 * 32 * 3)
    assert inspect(odd).to_json() == whole


def test_memory_does_not_grow_with_the_pixels(tmp_path: Path) -> None:
    """80 MB of pixels, and less than half of that more in memory than before."""
    pytest.importorskip("resource")
    script = f"""
        import resource
        from pathlib import Path
        from pokegan.data import manifest, packed
        from pokegan.data.inspection import inspect
        count, size, folder = 400, 256, Path({str(tmp_path)!r})
        with (folder / packed.IMAGES).open("wb") as file:
            for i in range(count):
                file.write(bytes([i % 256]) * (size * size * 3))
        rows = tuple(manifest.Picture(f"{{i}}.png", "0" * 64) for i in range(count))
        made = manifest.Manifest("here", size, (255,) * 3, {{}}, rows, (), (), "", "", {{}})
        (folder / packed.MANIFEST).write_text(made.to_json())
        images = packed.PackedImages.open(folder)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        inspect(images)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40_000  # KiB
