"""The filters: which readable pictures are left out, with what reason, on record in the set."""

from pathlib import Path

import numpy as np
import pytest
from awkward import Files
from picture_files import exif, saved, svg_text
from PIL import Image

from pokegan.cli.main import main
from pokegan.config import FILTERS, DataConfig
from pokegan.data import Manifest, PackedImages, PrepareOptions, prepare
from pokegan.data.background import border_share, foreground, picture_border_share
from pokegan.data.sources import open_data
from pokegan.errors import ConfigError, DataError

WHITE = (255, 255, 255)


def spot(width: int, height: int, radius: int, on: str | tuple[int, ...] = "white") -> Image.Image:
    """A blue square of side 2 `radius` in the middle of a plain picture."""
    picture = Image.new("RGBA", (width, height), on)
    x, y = width // 2, height // 2
    picture.paste((0, 0, 255, 255), (x - radius, y - radius, x + radius, y + radius))
    return picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures, each apt to be left out by another filter."""
    (made := tmp_path / "in").mkdir()
    pictures = {
        "whole.png": spot(64, 64, 20),
        "clear.png": spot(64, 64, 16, (0, 0, 0, 0)),
        "tight.png": spot(64, 64, 31),
        "grey.png": spot(64, 64, 20, "#dddddd"),
        "full.png": spot(80, 64, 64),
        "small.png": spot(64, 31, 10),
        "long.png": spot(161, 40, 12),
        "dot.png": spot(64, 64, 1),
    }
    for name, picture in pictures.items():
        (made / name).write_bytes(saved(picture, "PNG"))
    turned = spot(100, 60, 15).convert("RGB")
    (made / "turned.jpg").write_bytes(saved(turned, "JPEG", quality=95, exif=exif(6)))
    (made / "vector.svg").write_text(svg_text(12, 8))
    return made


def left_out(folder: Path, **options: object) -> dict[str, str]:
    """Name to reason."""
    out = folder.parent / "out"
    chosen = PrepareOptions(32, keep_duplicates=True, **options)
    images = prepare(Files(folder), chosen, out, workers=0)
    assert PrepareOptions.from_json(images.manifest.options) == chosen
    assert images.manifest.found == len(list(folder.iterdir()))
    return {row.name: row.reason for row in images.manifest.skipped}


def test_without_filters_all_are_kept_with_their_own_sizes(folder: Path) -> None:
    pytest.importorskip("resvg_py")
    assert left_out(folder) == {}
    manifest = PackedImages.open(folder.parent / "out").manifest
    sizes = {row.name: (row.format, row.width, row.height) for row in manifest.pictures}
    assert sizes["small.png"] == ("PNG", 64, 31)
    assert sizes["turned.jpg"] == ("JPEG", 60, 100)  # upright
    assert sizes["vector.svg"] == ("SVG", 64, 43)  # as it was drawn, 2 x 32 px long
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_size_of_a_large_jpeg_is_not_that_of_its_draft(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (1200, 800)).save(tmp_path / "in" / "a.jpg")
    images = prepare(Files(tmp_path / "in"), PrepareOptions(8), tmp_path / "out", workers=0)
    assert images.manifest.pictures[0][2:] == ("JPEG", 1200, 800)


def test_minimum_size_is_of_the_shorter_side(folder: Path) -> None:
    assert left_out(folder, min_size=32) == {"small.png": "too small: a side under 32 px"}
    assert set(left_out(folder, min_size=41)) == {"small.png", "long.png"}


def test_aspect(folder: Path) -> None:
    assert left_out(folder, max_aspect=4) == {"long.png": "too long: an aspect over 4"}
    assert left_out(folder, max_aspect=161 / 40) == {}


def test_plain_background(folder: Path) -> None:
    reason = "no plain background: the border is neither transparent nor #ffffff"
    assert left_out(folder, plain_background=True) == dict.fromkeys(
        ["full.png", "grey.png", "vector.svg"], reason
    )
    found = left_out(folder, plain_background=True, background=(0xDD, 0xDD, 0xDD))
    assert {"whole.png", "full.png"} <= set(found)
    assert not {"grey.png", "clear.png"} & set(found)


def test_minimum_foreground(folder: Path) -> None:
    assert left_out(folder, min_foreground=0.01) == {
        "dot.png": "nearly empty: under 0.01 of it is foreground"
    }


def test_foreground_and_border_by_their_definition() -> None:
    rng = np.random.default_rng(0)
    background = (250, 128, 3)
    near = np.array(background) + rng.integers(-30, 31, (4, 9, 7, 3))
    pixels = np.clip(near, 0, 255).astype(np.uint8)
    expected = (np.abs(pixels.astype(int) - background) > 16).any(axis=-1)
    assert 0.2 < expected.mean() < 0.95
    assert (foreground(pixels, background) == expected).all()
    inner = expected.copy()
    inner[:, 1:-1, 1:-1] = False
    shares = 1 - inner.sum(axis=(1, 2)) / (2 * 9 + 2 * 7 - 4)
    assert np.allclose(border_share(expected), shares)
    white = np.full((5, 8, 3), 255, np.uint8)
    white[0] = 0
    assert picture_border_share(Image.fromarray(white), WHITE) == pytest.approx(1 - 10 / 26)
    assert border_share(np.ones((1, 2, 9), bool)) == pytest.approx(0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("min_size", -1), ("max_aspect", 0.5), ("max_aspect", float("nan"))),
        *(("min_foreground", -0.1), ("min_foreground", 1.1)),
    ],
)
def test_values_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=field):
        PrepareOptions(16, **{field: value})


def test_unknown_options_are_one_line() -> None:
    with pytest.raises(ConfigError, match="the option sharpen is not known to this pokegan"):
        PrepareOptions.from_json({"size": 16, "sharpen": True})
    with pytest.raises(ConfigError, match="the options are damaged"):
        PrepareOptions.from_json({"size": "16"})
    assert PrepareOptions.from_json({"size": 16}) == PrepareOptions(16)


def test_a_run_and_a_preparation_have_the_same_defaults() -> None:
    for name in FILTERS:
        assert getattr(DataConfig(), name) == getattr(PrepareOptions(64), name), name


def test_a_filter_on_a_prepared_set_is_refused_unless_it_was_made_with_it(folder: Path) -> None:
    out = folder.parent / "out"
    prepare(Files(folder), PrepareOptions(32, min_size=40), out, workers=0)
    assert len(open_data(str(out), PrepareOptions(32))) > 0
    assert len(open_data(str(out), PrepareOptions(32, min_size=40))) > 0
    with pytest.raises(DataError, match="--min-size has no effect: make it again"):
        open_data(str(out), PrepareOptions(32, min_size=50))
    with pytest.raises(DataError, match="--plain-background has no effect"):
        open_data(str(out), PrepareOptions(32, plain_background=True))


def test_a_run_takes_the_filters_from_its_flags(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seen without training: a set that was made otherwise is refused, by the flag's name."""
    out = folder.parent / "out"
    prepare(Files(folder), PrepareOptions(32), out, workers=0)
    command = ["train", "--data", str(out), "--size", "32", "--out", str(folder.parent / "run")]
    for flags in (
        *(["--min-size", "9"], ["--max-aspect", "3"], ["--min-foreground", "0.1"]),
        *(["--plain-background"], ["--near-duplicate-distance", "2"]),
    ):
        assert main([*command, *flags]) == 2
        assert f"so {flags[0]} has no effect" in capsys.readouterr().err
    assert main([*command, "--max-aspect", "0.5"]) == 2
    assert "--max-aspect 0.5: at least 1 is wanted" in capsys.readouterr().err
