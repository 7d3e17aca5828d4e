"""Every format and colour mode against pixels known beforehand, and against another decoder."""

import io
import random
import re
import struct
import sys
import tracemalloc
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from awkward import Awkward, make_awkward
from picture_files import drawing, flat_drawing, on, png, saved, svg_text
from PIL import Image
from torchvision.io import decode_image

from pokegan.data import deep_modes
from pokegan.data.decode import decode
from pokegan.data.refusals import DecodeError, category
from pokegan.data.sniff import is_lossy, sniff

_TRANSPARENT = re.compile(r"alpha|rgba|palette-key|palette-2-bit")
_OVERLOOKED = re.compile(  # by torchvision: colour keys, profiles, orientation, CMYK, moving WebP
    r"(grey|rgb|bit|16)-key|key\.gif|small|profile|turned|cmyk|(animated|cropped).*\.webp"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("awkward")


@pytest.fixture(scope="module")
def awkward(folder: Path) -> Awkward:
    return make_awkward(folder)


def test_every_readable_file_has_the_pixels_that_were_drawn(folder: Path, awkward: Awkward) -> None:
    assert len(awkward.good) >= 40
    wrong = {}
    for name, (expected, tolerance) in awkward.good.items():
        target = 24 if "svg" in name else None  # drawn twice as large: at the size of the drawing
        picture = decode((folder / name).read_bytes(), target=target)
        got = np.asarray(picture)
        assert picture.mode == "RGB", name
        assert got.shape == expected.shape, name
        difference = np.abs(got.astype(int) - expected)
        exact = tolerance <= 0.5
        if difference.mean() > tolerance or (exact and difference.max() > 1):
            wrong[name] = difference.mean()
    assert not wrong


def test_every_unreadable_file_has_its_reason(folder: Path, awkward: Awkward) -> None:
    for name, expected in awkward.bad.items():
        if expected in ("cannot be read", "not a regular file"):
            continue  # a matter of reading, not of decoding
        with pytest.raises(DecodeError) as caught:
            decode((folder / name).read_bytes())
        assert category(str(caught.value)) == expected, name
        assert "\n" not in str(caught.value)


def test_files_agree_with_torchvision(folder: Path, awkward: Awkward) -> None:
    """Another decoder, our own compositing; where torchvision honours what is in the file."""
    compared: Counter[str | None] = Counter()
    for name in awkward.good:
        content = (folder / name).read_bytes()
        kind = sniff(content)
        if kind not in ("PNG", "JPEG", "WebP", "GIF") or _OVERLOOKED.search(name):
            continue
        transparent = kind == "WebP" or bool(_TRANSPARENT.search(name))
        theirs = by_torchvision(content, "RGB_ALPHA" if transparent else "RGB")
        if transparent:
            assert theirs[..., 3].min() < 255 or "lossy" in name, name
            alpha = theirs[..., 3:] / 255
            theirs = theirs[..., :3] * alpha + 255 * (1 - alpha)
        difference = np.asarray(decode(content)).astype(float) - theirs
        assert np.abs(difference).max() <= 2.0, name
        compared[f"{kind} with alpha" if transparent else kind] += 1
    assert compared["PNG with alpha"] == 7
    assert compared["WebP with alpha"] == 2
    assert compared["GIF"] == 2
    assert compared["PNG"] + compared["JPEG"] >= 15


def by_torchvision(content: bytes, mode: str) -> npt.NDArray[np.float64]:
    """The first frame by torchvision, 0 to 255: [H, W, C]."""
    whole = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pixels = decode_image(whole, mode=mode)
    pixels = pixels[0] if pixels.ndim == 4 else pixels
    scale = 257 if pixels.dtype == torch.uint16 else 1
    return pixels.permute(1, 2, 0).numpy().astype(np.float64) / scale


def test_transparent_pixels_take_the_background_and_not_black() -> None:
    nothing = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    white = np.asarray(decode(saved(nothing, "PNG")))
    assert (white == 255).all()
    assert (np.asarray(decode(saved(nothing, "PNG"), (10, 20, 30))) == (10, 20, 30)).all()


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (13, 200, 77)])
def test_alpha_is_composited_on_any_background(background: tuple[int, int, int]) -> None:
    got = np.asarray(decode(saved(Image.fromarray(drawing()), "PNG"), background)).astype(int)
    assert np.abs(got - on(drawing(), background)).max() <= 1


def test_pixel_limit_is_that_of_the_caller() -> None:
    content = saved(Image.new("RGB", (30, 20)), "PNG")
    decode(content, max_pixels=600)
    with pytest.raises(DecodeError, match="too many pixels: 30 x 20, the limit is 599"):
        decode(content, max_pixels=599)


def test_bomb_is_refused_without_decoding_it(awkward: Awkward, folder: Path) -> None:
    content = (folder / "bomb.png").read_bytes()
    assert len(content) < 200_000
    tracemalloc.start()
    with pytest.raises(DecodeError, match="too many pixels: 400,000,000, the limit is 64,000,000"):
        decode(content)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_text_chunk_bomb_in_a_png_is_refused() -> None:
    squeezed = zlib.compress(bytes(100_000_000))
    kind = b"zTXt"
    text = b"Comment\0\0" + squeezed
    part = struct.pack(">I", len(text)) + kind + text + struct.pack(">I", zlib.crc32(kind + text))
    with pytest.raises(DecodeError, match="damaged"):
        decode(png([bytes(3)], 1, 8, 2, part))


def test_svg_is_drawn_for_the_target_and_keeps_its_aspect() -> None:
    content = svg_text().encode()
    assert decode(content, target=36).size == (72, 48)
    assert max(decode(content).size) == 1024


def test_svg_without_resvg_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(DecodeError, match=r"pip install 'pokegan\[svg\]'"):
        decode(svg_text().encode())


def test_a_large_jpeg_is_reduced_while_decoding_and_stays_the_same_picture() -> None:
    large = Image.fromarray(flat_drawing()).resize((1536, 1024), Image.Resampling.NEAREST)
    content = saved(large, "JPEG", quality=95)
    reduced, whole = decode(content, target=48), decode(content)
    assert whole.size == (1536, 1024)
    assert reduced.size == (768, 512)
    small = [np.asarray(p.resize((48, 32), Image.Resampling.BOX), int) for p in (reduced, whole)]
    assert np.abs(small[0] - small[1]).mean() < 1


def test_lossy_formats_are_told_apart() -> None:
    image = Image.fromarray(flat_drawing())
    assert is_lossy(saved(image, "JPEG"))
    assert is_lossy(saved(image, "WEBP", quality=80))
    assert not is_lossy(saved(image, "WEBP", lossless=True))
    assert not is_lossy(saved(image, "PNG"))
    assert not is_lossy(b"")


def test_an_xml_that_is_no_svg_is_no_picture() -> None:
    for text in (b"<a><svg/></a>", b"<svgx/>", b"<?xml version='1.0'?>", b"<!-- <svg/>", b"<"):
        assert sniff(text) is None, text


def test_mutated_files_never_do_worse_than_a_refusal(folder: Path, awkward: Awkward) -> None:
    dice = random.Random(0)
    names = [name for name in awkward.good if "/" not in name]
    refused = 0
    for turn in range(300):
        content = bytearray((folder / names[turn % len(names)]).read_bytes())
        for _ in range(dice.choice([1, 3, 20])):
            content[dice.randrange(min(len(content), 2000))] = dice.randrange(256)
        if turn % 3 == 0:
            del content[dice.randrange(len(content)) :]
        try:
            decode(bytes(content), target=32, max_pixels=1_000_000)
        except DecodeError:
            refused += 1
    assert 30 < refused < 290


def test_pillow_sees_what_we_write() -> None:
    """The hand-made containers are sound: Pillow agrees about their shape."""
    with Image.open(io.BytesIO(png([bytes(6)], 2, 8, 2))) as image:
        assert (image.size, image.mode) == ((2, 1), "RGB")


def test_no_side_may_be_over_a_hundred_thousand() -> None:
    wide = png([bytes(12_501)], 100_001, 1, 0)
    with pytest.raises(
        DecodeError, match="too many pixels: 100001 x 1, no side may be over 100,000"
    ):
        decode(wide)
    assert decode(png([bytes(12_500)], 100_000, 1, 0)).size == (100_000, 1)


def test_wide_grey_is_the_same_in_pieces(
    folder: Path, awkward: Awkward, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [name for name in awkward.good if re.search("16|32|float", name)]
    assert len(names) > 8
    whole = {name: decode((folder / name).read_bytes()) for name in names}
    monkeypatch.setattr(deep_modes, "_PIECE", 100)  # two rows
    for name in names:
        again = decode((folder / name).read_bytes())
        assert again.tobytes() == whole[name].tobytes(), name
