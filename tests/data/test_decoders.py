"""Preparation by another decoder than Pillow: the same set, whatever happens to the decoder."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from awkward import Files, make_awkward
from picture_files import chunk, drawing, saved
from PIL import Image

from pokegan.cli.main import main
from pokegan.data import PackedImages, PrepareOptions, cached, dali_pipeline, decoders, prepare
from pokegan.errors import ConfigError

RGB = np.ascontiguousarray(drawing()[..., :3])


def rotten(filter_type: int) -> bytes:
    """A PNG with right checksums whose rows name a filter that does not exist."""
    header = struct.pack(">2I5B", 8, 8, 8, 2, 0, 0, 0)
    rows = zlib.compress((bytes([filter_type]) + bytes(24)) * 8)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def some_files(folder: Path) -> Files:
    folder.mkdir()
    for i in range(4):
        picture = Image.fromarray(np.roll(RGB, 9 * i, axis=1) // (i + 1))
        (folder / f"{i}.png").write_bytes(saved(picture, "PNG"))
        (folder / f"{i}.jpg").write_bytes(saved(picture, "JPEG", quality=40))
    (folder / "palette.png").write_bytes(saved(Image.fromarray(RGB).convert("P"), "PNG"))
    return Files(folder)


def test_a_set_by_torchvision_is_the_set_by_pillow(tmp_path: Path) -> None:
    make_awkward(tmp_path / "in")
    sets = {
        name: prepare(
            Files(tmp_path / "in"), PrepareOptions(48, decoder=name), tmp_path / name, workers=0
        )
        for name in ("pillow", "torchvision")
    }
    pillow, torchvision = (images.manifest for images in sets.values())
    assert (torchvision.options["decoder"], pillow.options["decoder"]) == ("torchvision", "pillow")
    assert torchvision.tools.keys() - pillow.tools.keys() == {"torchvision"}
    assert torchvision.pictures == pillow.pictures
    assert torchvision.duplicates == pillow.duplicates
    assert torchvision.skipped == pillow.skipped
    difference = np.abs(sets["torchvision"].images.astype(int) - sets["pillow"].images)
    assert difference.mean(axis=(1, 2, 3)).max() < 1.0


def test_a_decoder_that_dies_costs_no_picture(tmp_path: Path) -> None:
    """Torchvision's reader ends the process at such a file, in some releases; Pillow refuses it."""
    source = some_files(tmp_path / "in")
    (tmp_path / "in" / "rotten.png").write_bytes(rotten(9))
    sets = {
        name: prepare(source, PrepareOptions(16, decoder=name), tmp_path / name, workers=1).manifest
        for name in ("pillow", "torchvision")
    }
    assert [row.name for row in sets["torchvision"].skipped] == ["rotten.png"]
    assert sets["torchvision"].skipped == sets["pillow"].skipped
    assert sets["torchvision"].pictures == sets["pillow"].pictures


def test_a_decoder_that_fails_is_replaced_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = some_files(tmp_path / "in")

    def fail(files: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(decoders, "_by_torchvision", fail)
    options = PrepareOptions(16, decoder="torchvision")
    with pytest.warns(RuntimeWarning, match=r"'torchvision' failed at 8 pictures, which Pillow"):
        images = prepare(source, options, tmp_path / "out", workers=0)
    by_pillow = prepare(source, PrepareOptions(16), tmp_path / "pillow", workers=0)
    assert images.manifest.checksum == by_pillow.manifest.checksum


def test_sets_of_different_decoders_are_kept_apart(tmp_path: Path) -> None:
    source = some_files(tmp_path / "in")
    paths = {
        name: cached(source, PrepareOptions(16, decoder=name), workers=0).path
        for name in ("pillow", "torchvision", "pillow")
    }
    assert len(set(paths.values())) == 2
    for name, path in paths.items():
        assert PackedImages.open(path).manifest.options["decoder"] == name


def test_an_unknown_decoder_is_refused() -> None:
    with pytest.raises(ConfigError, match="decoder must be one of pillow, torchvision, dali, not"):
        PrepareOptions(16, decoder="opencv")


def test_a_missing_decoder_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    some_files(tmp_path / "in")
    monkeypatch.setattr(dali_pipeline, "available", lambda: False)
    monkeypatch.chdir(tmp_path)
    assert main(["data", "prepare", "in", "--size", "16", "--decoder", "dali"]) == 2
    said = capsys.readouterr().err.strip()
    assert "decoder 'dali' needs NVIDIA DALI: pip install 'pokegan[dali-cu13]'" in said
    assert len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_the_command_line_takes_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some_files(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    flags = ["--size", "16", "--decoder", "torchvision", "--workers", "0"]
    assert main(["data", "prepare", "in", *flags]) == 0
    manifest = PackedImages.open(tmp_path / "in-16").manifest
    assert manifest.options["decoder"] == "torchvision"
