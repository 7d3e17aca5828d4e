"""Plain files are told by their headers: which are, which are not, and how any file becomes one."""

import struct
from pathlib import Path

import numpy as np
import pytest
from awkward import make_awkward
from picture_files import chunk, drawing, exif, flat_drawing, on, png, saved, swapped_profile
from PIL import Image, ImageCms

from pokegan.data.decode import decode, upright
from pokegan.data.plain import Plain, normalised, plain_header, plainly_encoded
from pokegan.data.quiet import quiet
from pokegan.data.refusals import DecodeError

RGBA = Image.fromarray(drawing())
RGB = RGBA.convert("RGB")
GREY = RGB.convert("L")
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

PLAIN_FILES = {  # of the awkward folder: all that are RGB, RGBA, grey or baseline and progressive
    "rgb.png",
    "rgba.png",
    "grey.png",
    "thin.png",
    "photo.jpg",
    "PHOTO 2.JPG",
    "grey.jpeg",
    "really-a-jpeg.png",
    "really-a-png.jpg",
}


def after_header(content: bytes, *chunks: bytes) -> bytes:
    """A PNG with more chunks behind its first, which is 25 bytes long after 8 of signature."""
    return content[:33] + b"".join(chunks) + content[33:]


def after_start(content: bytes, *segments: bytes) -> bytes:
    """A JPEG with more segments at its start."""
    return content[:2] + b"".join(segments) + content[2:]


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


PNG, JPEG = saved(RGB, "PNG"), saved(RGB, "JPEG")
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="%d"/></x:xmpmeta>'
XMP_NAME = b"http://ns.adobe.com/xap/1.0/\0"

PLAIN = {
    "srgb profile png": saved(RGB, "PNG", icc_profile=SRGB),
    "srgb profile jpeg": saved(RGB, "JPEG", icc_profile=SRGB),
    "upright exif": saved(RGB, "JPEG", exif=exif(1)),
    "upright exif png": saved(RGB, "PNG", exif=exif(1)),
    "upright xmp": after_start(JPEG, segment(0xE1, XMP_NAME + XMP % 1)),
    "gamma": after_header(PNG, chunk(b"gAMA", struct.pack(">I", 100_000))),
    "background": after_header(PNG, chunk(b"bKGD", bytes(6))),
    "text": after_header(PNG, chunk(b"tEXt", b"Title\0Picture")),
    "comment": after_start(JPEG, segment(0xFE, b"made by hand")),
    "adobe ycbcr": after_start(JPEG, segment(0xEE, b"Adobe\0\x64\0\0\0\0\1")),
    "restarts": saved(RGB, "JPEG", restart_marker_rows=1),
    "4:4:4": saved(RGB, "JPEG", subsampling=0),
    "4:2:2": saved(RGB, "JPEG", subsampling=1),
    "more behind the end png": PNG + b"more",
    "more behind the end jpeg": JPEG + JPEG[: len(JPEG) // 2],
}

OTHERS = {
    "palette": saved(RGB.convert("P"), "PNG"),
    "palette with transparency": saved(RGB.convert("P"), "PNG", transparency=3),
    "colour key": saved(RGB, "PNG", transparency=(1, 2, 3)),
    "grey and alpha": saved(GREY.convert("LA"), "PNG"),
    "interlaced": png([bytes(3)], 1, 8, 2).replace(
        chunk(b"IHDR", struct.pack(">2I5B", 1, 1, 8, 2, 0, 0, 0)),
        chunk(b"IHDR", struct.pack(">2I5B", 1, 1, 8, 2, 0, 0, 1)),
    ),
    "16 bits": png([bytes(6)], 1, 16, 2),
    "1 bit": saved(GREY.convert("1"), "PNG"),
    "animated": saved(RGB, "PNG", save_all=True, append_images=[RGB.rotate(180)]),
    "profile png": saved(RGB, "PNG", icc_profile=swapped_profile()),
    "profile jpeg": saved(RGB, "JPEG", icc_profile=swapped_profile()),
    "damaged profile": saved(RGB, "PNG", icc_profile=b"no profile at all"),
    "turned png": saved(RGB, "PNG", exif=exif(6)),
    "turned by compressed text": after_header(PNG, chunk(b"zTXt", b"Raw profile type exif\0\0x")),
    "turned by xmp png": after_header(
        PNG, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP % 6)
    ),
    "turned by xmp": after_start(JPEG, segment(0xE1, XMP_NAME + XMP % 6)),
    "unknown critical chunk": after_header(PNG, chunk(b"ABCD", b"")),
    "no end": PNG[:-12],
    "no pixels": png([], 0, 8, 2, height=0),
    "wrong checksum": PNG[:50] + bytes([PNG[50] ^ 1]) + PNG[51:],
    "cmyk": saved(RGB.convert("CMYK"), "JPEG"),
    "adobe rgb": saved(RGB, "JPEG", keep_rgb=True),
    "adobe rgb by marker": after_start(JPEG, segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")),
    "no end jpeg": JPEG[:-2],
    "half a jpeg": JPEG[: len(JPEG) // 2],
    "12 bits": JPEG.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
    "arithmetic": JPEG.replace(b"\xff\xc0\0\x11", b"\xff\xc9\0\x11"),
    "gif": saved(RGB, "GIF"),
    "bmp": saved(RGB, "BMP"),
    "webp": saved(RGB, "WEBP", lossless=True),
    "tiff": saved(RGB, "TIFF"),
    "nothing": b"",
    "a signature": PNG[:8],
    "a start": JPEG[:3],
} | {f"turned {i}": saved(RGB, "JPEG", exif=exif(i)) for i in range(2, 9)}


@pytest.mark.parametrize("name", PLAIN)
def test_harmless_additions_leave_a_file_plain(name: str) -> None:
    assert plainly_encoded(PLAIN[name])


@pytest.mark.parametrize("name", OTHERS)
def test_what_decoders_disagree_about_is_not_plain(name: str) -> None:
    assert not plainly_encoded(OTHERS[name])


def test_of_the_awkward_folder_the_ordinary_files_are_plain(tmp_path: Path) -> None:
    made = make_awkward(tmp_path)
    plain = {name for name in made.good if plainly_encoded((tmp_path / name).read_bytes())}
    assert plain >= PLAIN_FILES
    with quiet():
        pictures = {name: Image.open(tmp_path / name) for name in plain}
    assert {picture.mode for picture in pictures.values()} == {"RGB", "RGBA", "L"}
    assert {picture.format for picture in pictures.values()} == {"PNG", "JPEG"}
    assert not any("transparency" in picture.info for picture in pictures.values())
    assert all(picture.getexif().get(0x0112, 1) == 1 for picture in pictures.values())
    bad = [tmp_path / name for name in made.bad if (tmp_path / name).is_file()]
    plain_bad = [file.name for file in bad if plainly_encoded(file.read_bytes())]
    assert plain_bad == ["liar.png"]  # too large, which is for its reader to see


@pytest.mark.parametrize(
    ("picture", "form", "expected"),
    [
        (RGB, "PNG", Plain("PNG", 48, 32, 3)),
        (RGBA, "PNG", Plain("PNG", 48, 32, 4)),
        (GREY, "PNG", Plain("PNG", 48, 32, 1)),
        (RGB, "JPEG", Plain("JPEG", 48, 32, 3)),
        (GREY, "JPEG", Plain("JPEG", 48, 32, 1)),
    ],
)
def test_header_tells_shape(picture: Image.Image, form: str, expected: Plain) -> None:
    assert plain_header(saved(picture, form)) == expected


@pytest.mark.parametrize("content", [PNG, JPEG, PLAIN["srgb profile png"], saved(RGBA, "PNG")])
def test_every_truncation_is_seen(content: bytes) -> None:
    assert not any(plainly_encoded(content[:length]) for length in range(len(content)))


@pytest.mark.parametrize("name", ["palette with transparency", "grey and alpha", "gif", "turned 6"])
def test_normalised_is_plain_and_the_same_picture(name: str) -> None:
    again = normalised(OTHERS[name])
    header = plain_header(again)
    assert header is not None
    assert header.channels in (3, 4)
    before, after = (np.asarray(upright(content)) for content in (OTHERS[name], again))
    np.testing.assert_array_equal(after, before)


def test_normalised_keeps_alpha_and_drops_the_profile() -> None:
    again = normalised(saved(Image.fromarray(flat_drawing()), "PNG", icc_profile=swapped_profile()))
    swapped = np.asarray(decode(again)).astype(int)
    assert np.abs(swapped - flat_drawing()[..., [1, 0, 2]]).mean() < 2
    np.testing.assert_array_equal(np.asarray(upright(normalised(saved(RGBA, "PNG")))), drawing())
    assert (
        np.abs(np.asarray(decode(normalised(saved(RGBA, "PNG")))).astype(int) - on(drawing())).max()
        <= 1
    )


def test_normalised_refuses_as_decode_does() -> None:
    with pytest.raises(DecodeError, match="truncated"):
        normalised(PNG[: len(PNG) // 2])
    with pytest.raises(DecodeError, match="too many pixels"):
        normalised(PNG, max_pixels=100)
