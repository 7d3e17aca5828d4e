"""The contact sheet and the report."""

from pathlib import Path

import numpy as np
import pytest
from awkward import Files
from picture_files import saved
from PIL import Image

from pokegan.data import PackedImages, PrepareOptions, prepare, report_text, save_contact_sheet


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> PackedImages:
    """Thirty squares of 16 px; square i is grey of level 8 i."""
    folder = tmp_path_factory.mktemp("shades")
    (folder / "in").mkdir()
    for i in range(30):
        picture = Image.new("RGB", (16, 16), (8 * i,) * 3)
        (folder / "in" / f"{i}.png").write_bytes(saved(picture, "PNG"))
    for name in ("bad\x1b[31m.png", "worse\n.png"):
        (folder / "in" / name).write_bytes(b"")
    options = PrepareOptions(16, keep_duplicates=True)
    return prepare(Files(folder / "in"), options, folder / "out", workers=0)


def test_sheet_shows_evenly_spaced_pictures(shades: PackedImages, tmp_path: Path) -> None:
    path = save_contact_sheet(shades, tmp_path / "deep" / "sheet.png", count=4)
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        pixels = np.asarray(sheet)
    assert pixels.shape == (2 * 18 + 2, 2 * 18 + 2, 3)
    seen = [int(pixels[y, x, 0]) // 8 for y in (10, 28) for x in (10, 28)]
    assert seen == [0, 10, 19, 29]


def test_sheet_is_bounded(shades: PackedImages, tmp_path: Path) -> None:
    with Image.open(save_contact_sheet(shades, tmp_path / "a.png", count=10**9)) as sheet:
        assert sheet.size == (6 * 18 + 2, 5 * 18 + 2)
    with Image.open(save_contact_sheet(shades, tmp_path / "b.png", cell=4)) as sheet:
        assert sheet.size == (6 * 6 + 2, 5 * 6 + 2)
    with Image.open(save_contact_sheet(shades, tmp_path / "c.png", count=0)) as sheet:
        assert sheet.size == (20, 20)


def test_report_counts_and_escapes_names(shades: PackedImages) -> None:
    assert report_text(shades.manifest).splitlines() == [
        "32 files found in in, 30 kept at 16 x 16 px",
        "2 skipped:",
        r"  empty file (2): bad\x1b[31m.png, worse\n.png",
    ]
    assert report_text(shades.manifest, listed=1).endswith(r"bad\x1b[31m.png, and 1 more")
