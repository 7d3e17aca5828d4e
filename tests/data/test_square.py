"""One picture to one square: geometry, resampling, fingerprints, refusals."""

import ctypes
import hashlib
import mmap
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from picture_files import saved
from PIL import Image

from pokegan.data import square as square_module
from pokegan.data.entries import DrawnEntry, FileEntry
from pokegan.data.options import PrepareOptions
from pokegan.data.square import (
    Refusal,
    Square,
    crop_box,
    fit,
    pad_geometry,
    prepare_entry,
    read_ahead,
)
from pokegan.errors import ConfigError

WHITE = (255, 255, 255)
SIDES = st.integers(1, 20_000)


@given(SIDES, SIDES, st.integers(8, 1024))
def test_padding_is_centred_and_keeps_the_aspect(width: int, height: int, size: int) -> None:
    w, h, left, top = pad_geometry(width, height, size)
    assert max(w, h) == size
    assert min(w, h) >= 1
    assert 0 <= left <= size - w - left <= left + 1
    assert 0 <= top <= size - h - top <= top + 1
    scale = size / max(width, height)
    assert abs(w - width * scale) <= 1
    assert abs(h - height * scale) <= 1


@given(SIDES, SIDES)
def test_cropping_takes_the_largest_centred_square(width: int, height: int) -> None:
    left, top, right, bottom = crop_box(width, height)
    assert right - left == bottom - top == min(width, height)
    assert 0 <= left <= width - right <= left + 1
    assert 0 <= top <= height - bottom <= top + 1


def test_a_square_of_the_right_size_is_untouched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for mode in ("pad", "crop"):
        assert (np.asarray(fit(Image.fromarray(pixels), 32, mode, WHITE)) == pixels).all()


def test_padding_fills_with_the_background() -> None:
    wide = np.asarray(fit(Image.new("RGB", (64, 16), (9, 9, 9)), 32, "pad", (1, 2, 3)))
    assert (wide[:12] == (1, 2, 3)).all()
    assert (wide[12:20] == 9).all()
    assert (wide[20:] == (1, 2, 3)).all()


def test_cropping_leaves_no_background() -> None:
    tall = Image.new("RGB", (16, 64), (9, 9, 9))
    assert (np.asarray(fit(tall, 32, "crop", WHITE)) == 9).all()


def test_reduction_is_antialiased() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    grey = np.asarray(fit(Image.fromarray(stripes), 32, "pad", WHITE)).astype(int)
    assert np.abs(grey - 127.5).max() <= 8


def test_no_dark_fringe_around_transparent_pictures(tmp_path: Path) -> None:
    """A white disc on transparent black stays white everywhere when it is made smaller."""
    y, x = np.mgrid[-128:128, -128:128]
    disc = np.zeros((256, 256, 4), np.uint8)
    disc[np.hypot(x, y) < 90] = 255
    (tmp_path / "disc.png").write_bytes(saved(Image.fromarray(disc), "PNG"))
    square = prepare_entry(FileEntry("disc.png", tmp_path / "disc.png"), PrepareOptions(32))
    assert isinstance(square, Square)
    assert set(square.pixels) == {255}


def test_square_carries_the_hashes_of_file_and_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(saved(Image.new("RGB", (16, 16), (1, 2, 3)), "PNG"))
    square = prepare_entry(FileEntry("a.png", path), PrepareOptions(16))
    assert isinstance(square, Square)
    assert square.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert square.pixels == bytes([1, 2, 3]) * 256
    assert len(square.thumbnail) == 16 * 16 * 3
    assert not square.lossy


def test_large_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a sparse terabyte
    result = prepare_entry(FileEntry("large.png", path), PrepareOptions(16))
    assert isinstance(result, Refusal)
    assert result.reason.startswith("file too large: 1,099,511,627,776 bytes")
    assert result.sha256 is None


def test_refusal_of_a_readable_file_carries_its_hash(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"text")
    result = prepare_entry(FileEntry("a.png", tmp_path / "a.png"), PrepareOptions(16))
    assert result == Refusal(hashlib.sha256(b"text").hexdigest(), "not a picture: text")


def test_any_exception_of_a_decoder_costs_one_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object) -> None:
        raise UnicodeError("label too\nlong")

    (tmp_path / "a.png").write_bytes(b"text")
    monkeypatch.setattr(square_module, "upright_original", decode)
    result = prepare_entry(FileEntry("a.png", tmp_path / "a.png"), PrepareOptions(16))
    assert isinstance(result, Refusal)
    assert result.reason == "failed: UnicodeError: label too long"


def test_drawn_entries_are_composited_at_size() -> None:
    options = PrepareOptions(24, background=(10, 20, 30))
    square = prepare_entry(DrawnEntry("creature-0001", 1, 0), options)
    assert isinstance(square, Square)
    assert len(square.pixels) == 24 * 24 * 3
    assert square.pixels[:3] == bytes((10, 20, 30))
    other = prepare_entry(DrawnEntry("creature-0002", 2, 0), options)
    assert isinstance(other, Square)
    assert square.sha256 != other.sha256


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 7),
        ("size", 1025),
        ("background", (0, 0, 256)),
        ("background", (0, 0)),
        ("fit", "stretch"),
        ("near_duplicate_distance", -1),
        ("max_pixels", 0),
        ("max_pixels", 10**9),
        ("max_bytes", 0),
        ("seconds_per_picture", 0),
    ],
)
def test_options_out_of_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        PrepareOptions(**{"size": 64, field: value})


def in_memory(path: Path) -> int:
    """Return how many pages of a file the system has in memory, by `mincore`."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        pages = ctypes.create_string_buffer(-(-len(mapped) // mmap.PAGESIZE))
        start = (ctypes.c_char * len(mapped)).from_buffer(mapped)
        place, length = ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(mapped))
        assert ctypes.CDLL(None).mincore(place, length, pages) == 0
        del start
    return sum(page & 1 for page in pages.raw)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system cannot be asked")
def test_a_file_is_asked_for_ahead(tmp_path: Path) -> None:
    path, pages = tmp_path / "picture", 16
    path.write_bytes(bytes(pages * mmap.PAGESIZE))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if in_memory(path):
        pytest.skip("this file system has its files in memory")
    read_ahead(FileEntry("picture", path))
    end = time.monotonic() + 20
    while in_memory(path) < pages and time.monotonic() < end:
        time.sleep(0.01)
    assert in_memory(path) == pages


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_what_cannot_be_asked_for_is_left_to_its_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "none", tmp_path, Path("a\0b")):
        read_ahead(FileEntry("it", path))  # does not wait, and does not fail
    read_ahead(DrawnEntry("it", 0, 0))
