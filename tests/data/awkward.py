"""A folder of awkward picture files, each with the pixels it must give or the reason it must not.

What was drawn, and the files that Pillow cannot write, are in `picture_files`.
"""

import base64
import gzip
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from picture_files import (
    HEIGHT,
    WIDTH,
    Array,
    bmp32,
    bomb,
    chunk,
    drawing,
    exif,
    flat_drawing,
    grey_of,
    on,
    png,
    saved,
    svg_pixels,
    svg_text,
    swapped_profile,
    tiff,
    turned,
)
from PIL import Image, ImageCms

from pokegan.data.entries import Entry, FileEntry, natural_key


@dataclass
class Awkward:
    """What `make_awkward` wrote.

    Attributes:
        good: name to (expected [H, W, 3] on white, tolerance of the mean absolute difference).
        bad: name to the category of the reason.
    """

    good: dict[str, tuple[Array, float]] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)


class Files:
    """All files below a folder as a source, links and all, without looking into them."""

    def __init__(self, folder: Path, rejected: Iterable[tuple[str, str]] = ()) -> None:
        self.name = folder.name
        self.origin = str(folder)
        self.folder = folder
        self.rejected = list(rejected)

    def entries(self) -> list[Entry]:
        found = [
            FileEntry(os.path.relpath(Path(folder) / name, self.folder), Path(folder) / name)
            for folder, _, names in os.walk(self.folder)
            for name in names
        ]
        return sorted(found, key=lambda entry: natural_key(entry.name))


def make_awkward(folder: Path) -> Awkward:
    """Fill `folder` with every file of this module; some 90 of them."""
    made = Awkward()
    for group in _READABLE:
        for name, content, expected, tolerance in group():
            _write(folder / name, content)
            made.good[name] = (expected, tolerance)
    for name, content, category in _unreadable():
        _write(folder / name, content)
        made.bad[name] = category
    (folder / "loop-a.png").symlink_to("loop-b.png")
    (folder / "loop-b.png").symlink_to("loop-a.png")
    (folder / "dangling.png").symlink_to("nowhere.png")
    made.bad |= dict.fromkeys(["loop-a.png", "loop-b.png", "dangling.png"], "cannot be read")
    os.mkfifo(folder / "pipe.png")
    made.bad["pipe.png"] = "not a regular file"
    return made


def contents() -> dict[str, bytes]:
    """The content of every file of `make_awkward` by name, the links and the pipe left out."""
    found = {name: content for group in _READABLE for name, content, *_ in group()}
    return found | {name: content for name, content, _ in _unreadable()}


Rows = Iterable[tuple[str, bytes, Array, float]]


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _png() -> Rows:
    rgba, rgb = drawing(), np.ascontiguousarray(drawing()[..., :3])
    grey, alpha = rgb[..., 1], rgba[..., 3]
    white, image = on(rgba), Image.fromarray(rgb)
    yield "rgb.png", saved(image, "PNG"), rgb, 0
    yield "rgba.png", saved(Image.fromarray(rgba), "PNG"), white, 0.5
    grey_alpha = np.dstack([grey, alpha])
    yield "grey.png", saved(Image.fromarray(grey), "PNG"), grey_of(grey), 0
    grey_white = on(np.dstack([grey, grey, grey, alpha]))
    yield "grey-alpha.png", saved(Image.fromarray(grey_alpha, "LA"), "PNG"), grey_white, 0.5
    yield from _png_palettes()
    yield from _png_colour_keys(rgb, grey)
    yield from _png_deep(rgba, grey)
    bits = (grey // 64 % 2).astype(np.uint8)
    yield (
        "bilevel.png",
        saved(Image.fromarray(bits * 255).convert("1", dither=0), "PNG"),
        grey_of(bits * 255),
        0,
    )
    frames = [image.rotate(180), image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)]
    yield "animated.png", saved(image, "PNG", save_all=True, append_images=frames), rgb, 0
    yield (
        "profile.png",
        saved(image, "PNG", icc_profile=swapped_profile()),
        rgb[..., [1, 0, 2]],
        1.5,
    )
    yield "bad-profile.png", saved(image, "PNG", icc_profile=b"no profile at all"), rgb, 0
    yield "no-end.png", saved(image, "PNG")[:-12], rgb, 0
    thin = rgb[:1]
    yield "thin.png", saved(Image.fromarray(thin), "PNG"), thin, 0


def _png_palettes() -> Rows:
    index = (drawing()[..., 0] // 5 % 4).astype(np.uint8)
    colours = np.array([(255, 0, 0), (0, 200, 0), (10, 20, 230), (0, 0, 0)], np.uint8)
    image = Image.fromarray(index, "P")
    image.putpalette(colours.tobytes())
    yield "palette.png", saved(image, "PNG"), colours[index], 0
    alpha = np.array([255, 128, 0, 30], np.uint8)
    expected = on(np.dstack([colours[index], alpha[index]]))
    yield "palette-alpha.png", saved(image, "PNG", transparency=alpha.tobytes()), expected, 0.5
    key = np.where(index[..., None] == 3, 255, colours[index]).astype(np.uint8)
    yield "palette-key.png", saved(image, "PNG", transparency=3), key, 0
    packed = [bytes(row[0::4] << 6 | row[1::4] << 4 | row[2::4] << 2 | row[3::4]) for row in index]
    palette = chunk(b"PLTE", colours.tobytes()) + chunk(b"tRNS", alpha.tobytes())
    yield "palette-2-bit.png", png(packed, WIDTH, 2, 3, palette), expected, 0.5


def _png_colour_keys(rgb: Array, grey: Array) -> Rows:
    def key(picture: Array, value: int) -> Array:
        return np.where(picture == value, 255, picture).astype(np.uint8)

    level = int(grey[5, 5])
    transparent = chunk(b"tRNS", struct.pack(">H", level))
    rows = [row.tobytes() for row in grey]
    yield "grey-key.png", png(rows, WIDTH, 8, 0, transparent), grey_of(key(grey, level)), 0
    one = tuple(int(c) for c in rgb[20, 30])
    transparent = chunk(b"tRNS", struct.pack(">3H", *one))
    expected = np.where((rgb == one).all(-1, keepdims=True), 255, rgb).astype(np.uint8)
    yield "rgb-key.png", png([r.tobytes() for r in rgb], WIDTH, 8, 2, transparent), expected, 0
    four = grey // 16
    nibbles = [bytes(row[0::2] << 4 | row[1::2]) for row in four]
    transparent = chunk(b"tRNS", struct.pack(">H", 9))
    expected = grey_of(np.where(four == 9, 255, four * 17))
    yield "grey-4-bit-key.png", png(nibbles, WIDTH, 4, 0, transparent), expected, 0


def _png_deep(rgba: Array, grey: Array) -> Rows:
    def deep(levels: Array) -> npt.NDArray[np.uint16]:
        return levels.astype(np.uint16) * 257

    def rows(array: npt.NDArray[np.uint16]) -> list[bytes]:
        return [row.astype(">u2").tobytes() for row in array]

    grey16 = deep(grey) - (grey > 0) * 100  # rounds to the same level, its high byte is another
    yield "grey-16.png", png(rows(grey16.astype(np.uint16)), WIDTH, 16, 0), grey_of(grey), 0
    key = chunk(b"tRNS", struct.pack(">H", int(grey16[10, 0])))
    expected = grey_of(np.where(grey == grey[10, 0], 255, grey))
    yield "grey-16-key.png", png(rows(grey16.astype(np.uint16)), WIDTH, 16, 0, key), expected, 0
    rgb16 = deep(rgba[..., :3])
    yield "rgb-16.png", png(rows(rgb16), WIDTH, 16, 2), rgba[..., :3], 0
    one = rgb16[20, 30]
    key = chunk(b"tRNS", struct.pack(">3H", *(int(c) for c in one)))
    near = rgb16.copy()
    near[2:6, 2:6] = one  # the transparent colour
    near[10:20, 2:6] = one - np.array([0, 1, 0], np.uint16)  # and one that differs by its low byte
    picture = np.rint(near / 257).astype(np.uint8)
    expected = np.where((near == one).all(-1, keepdims=True), 255, picture).astype(np.uint8)
    yield "rgb-16-key.png", png(rows(near), WIDTH, 16, 2, key), expected, 0.5
    yield "rgba-16.png", png(rows(deep(rgba)), WIDTH, 16, 6), on(rgba), 0.5
    grey_alpha = np.dstack([grey, rgba[..., 3]])
    expected = on(np.dstack([grey, grey, grey, rgba[..., 3]]))
    yield "grey-alpha-16.png", png(rows(deep(grey_alpha)), WIDTH, 16, 4), expected, 0.5


def _jpeg() -> Rows:
    rgb = flat_drawing()
    image = Image.fromarray(rgb)
    yield "photo.jpg", saved(image, "JPEG", quality=95, subsampling=0), rgb, 2
    yield "PHOTO 2.JPG", saved(image, "JPEG", quality=95, progressive=True), rgb, 3
    yield (
        "grey.jpeg",
        saved(image.convert("L"), "JPEG", quality=95),
        grey_of(np.asarray(image.convert("L"))),
        2,
    )
    ink = Image.fromarray(np.dstack([255 - rgb, np.zeros((HEIGHT, WIDTH), np.uint8)]), "CMYK")
    yield "cmyk.jpg", saved(ink, "JPEG", quality=95), rgb, 2.5  # Adobe marker, stored inverted


def _webp() -> Rows:
    rgba, flat = drawing(), Image.fromarray(flat_drawing())
    lossless = saved(Image.fromarray(rgba), "WEBP", lossless=True, exact=True)
    yield "lossless.webp", lossless, on(rgba), 0.5
    yield "lossy.webp", saved(flat, "WEBP", quality=95), flat_drawing(), 3
    frames = [flat.rotate(180)]
    animated = saved(flat, "WEBP", save_all=True, append_images=frames, lossless=True)
    yield "animated.webp", animated, flat_drawing(), 0.5
    yield from _webp_cropped()


def _webp_cropped() -> Rows:
    """Animations whose first frame is an opaque part of the canvas, nothing else of it drawn."""
    inner = flat_drawing()[:20, :30]
    frame = saved(Image.fromarray(inner), "WEBP", lossless=True)[12:]
    expected = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    expected[6:26, 10:40] = inner

    def three(value: int) -> bytes:
        return value.to_bytes(3, "little")

    def riff(kind: bytes, content: bytes) -> bytes:
        return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)

    part = three(5) + three(3) + three(29) + three(19) + three(100) + b"\0" + frame
    for name, flags in (("cropped.webp", 0x02), ("cropped alpha.webp", 0x12)):
        canvas = bytes([flags, 0, 0, 0]) + three(WIDTH - 1) + three(HEIGHT - 1)
        chunks = riff(b"VP8X", canvas) + riff(b"ANIM", bytes([9, 9, 9, 255, 0, 0]))
        chunks += riff(b"ANMF", part) * 2
        yield name, b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks, expected, 0.5


def _gif() -> Rows:
    index = (drawing()[..., 1] // 8 % 4).astype(np.uint8)
    colours = np.array([(250, 0, 0), (0, 200, 0), (10, 20, 230), (9, 9, 9)], np.uint8)
    image = Image.fromarray(index, "P")
    image.putpalette(colours.tobytes())
    yield "still.gif", saved(image, "GIF"), colours[index], 0
    expected = np.where(index[..., None] == 3, 255, colours[index]).astype(np.uint8)
    yield "key.gif", saved(image, "GIF", transparency=3), expected, 0
    frames = [image.rotate(180)]
    yield (
        "animated.gif",
        saved(image, "GIF", save_all=True, append_images=frames),
        colours[index],
        0,
    )
    corner = saved(image, "GIF", transparency=3)
    wide = corner[:6] + struct.pack("<HH", WIDTH + 6, HEIGHT + 4) + corner[10:]
    canvas = np.full((HEIGHT + 4, WIDTH + 6, 3), 255, np.uint8)
    canvas[:HEIGHT, :WIDTH] = expected
    yield "small-frame.gif", wide, canvas, 0
    opaque = saved(image, "GIF")
    wide = opaque[:6] + struct.pack("<HH", WIDTH + 6, HEIGHT + 4) + opaque[10:]
    canvas = canvas.copy()
    canvas[:HEIGHT, :WIDTH] = colours[index]
    yield "small-opaque-frame.gif", wide, canvas, 0


def _bmp() -> Rows:
    rgba = drawing()
    rgb = np.ascontiguousarray(rgba[..., :3])
    yield "rgb.bmp", saved(Image.fromarray(rgb), "BMP"), rgb, 0
    grey = Image.fromarray(rgb[..., 0])
    yield "grey.bmp", saved(grey, "BMP"), grey_of(rgb[..., 0]), 0
    yield "alpha-v5.bmp", bmp32(rgba, alpha_mask=True), on(rgba), 0.5
    yield "alpha.bmp", bmp32(rgba, alpha_mask=False), on(rgba), 0.5
    padded = np.dstack([rgb, np.zeros((HEIGHT, WIDTH), np.uint8)])
    yield "padded.bmp", bmp32(padded, alpha_mask=False), rgb, 0
    padded[[0, 9, 31], [0, 40, 47], 3] = 7, 255, 1  # what memory happened to hold
    yield "stray-padding.bmp", bmp32(padded, alpha_mask=False), rgb, 0


def _tiff() -> Rows:
    rgba = drawing()
    rgb = np.ascontiguousarray(rgba[..., :3])
    grey, image = rgb[..., 1], Image.fromarray(rgb)
    yield "rgb.tif", saved(image, "TIFF"), rgb, 0
    yield "packed.tiff", saved(image, "TIFF", compression="tiff_lzw"), rgb, 0
    yield "rgba.tif", saved(Image.fromarray(rgba), "TIFF"), on(rgba), 0.5
    pages = [image.rotate(180)]
    yield "pages.tif", saved(image, "TIFF", save_all=True, append_images=pages), rgb, 0
    ink = Image.fromarray(np.dstack([255 - rgb, np.zeros((HEIGHT, WIDTH), np.uint8)]), "CMYK")
    yield "cmyk.tif", saved(ink, "TIFF"), rgb, 0.5
    yield "lab.tif", _lab(image), rgb, 2.5
    yield from _tiff_wide(grey)


def _lab(image: Image.Image) -> bytes:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    assert lab is not None
    return saved(lab, "TIFF")


def _tiff_wide(grey: Array) -> Rows:
    size = (WIDTH, HEIGHT)
    deep, expected = grey.astype(np.uint16) * 257, grey_of(grey)
    yield "grey-16.tif", tiff(deep.astype("<u2").tobytes(), "<", *size, bits=16), expected, 0
    yield "grey-16-be.tif", tiff(deep.astype(">u2").tobytes(), ">", *size, bits=16), expected, 0
    inverted = tiff((65535 - deep).astype("<u2").tobytes(), "<", *size, bits=16, photometric=0)
    yield "white-is-zero.tif", inverted, expected, 0
    floats = (grey / np.float32(255)).astype("<f4").tobytes()
    yield "float.tif", tiff(floats, "<", *size, bits=32, sample_format=3), expected, 0
    over = np.where(grey > 200, 1.3, np.where(grey < 20, -0.2, grey / 255)).astype("<f4").tobytes()
    clipped = grey_of(np.where(grey > 200, 255, np.where(grey < 20, 0, grey)))
    yield "float-over.tif", tiff(over, "<", *size, bits=32, sample_format=3), clipped, 0
    levels = grey.astype("<f4").tobytes()
    yield "float-255.tif", tiff(levels, "<", *size, bits=32, sample_format=3), expected, 0
    unsigned = (grey.astype(np.int64) * 16_843_009).astype("<u4").tobytes()
    yield "uint-32.tif", tiff(unsigned, "<", *size, bits=32), expected, 0
    whole = (grey.astype(np.int64) * 8_421_504).astype("<i4").tobytes()
    half = grey_of(np.rint(grey * (8_421_504 * 255 / (2**32 - 1))).astype(np.uint8))
    yield "int-32.tif", tiff(whole, "<", *size, bits=32, sample_format=2), half, 0


def _svg() -> Rows:
    text = svg_text()
    prolog = '<?xml version="1.0" encoding="{}"?>\n<!-- <svg> in a comment -->\n<!DOCTYPE svg>\n'
    yield "drawing.svg", text.encode(), svg_pixels(), 1
    yield "prolog.svg", (prolog.format("UTF-8") + text).encode("utf-8-sig"), svg_pixels(), 1
    yield "drawing.svgz", gzip.compress(text.encode()), svg_pixels(), 1
    yield "utf-16.svg", (prolog.format("UTF-16") + text).encode("utf-16"), svg_pixels(), 1
    latin = prolog.format("ISO-8859-1") + text.replace("<rect", "<title>é</title><rect", 1)
    yield "latin-1.svg", latin.encode("latin-1"), svg_pixels(), 1
    for codec in ("idna", "undefined", "no-such-codec"):  # what cannot be used is ignored
        strange = prolog.format(codec) + text.replace("<rect", f"<title>{'ü' * 80}..</title><rect")
        yield f"{codec}.svg", strange.encode(), svg_pixels(), 1
    harmless = '<!-- <image href="other.png"/> --><desc>&lt;image href="other.png"&gt;</desc>'
    yield "comment.svg", text.replace("<rect", harmless + "<rect", 1).encode(), svg_pixels(), 1
    entities = '<!DOCTYPE svg [<!ENTITY ns "http://www.w3.org/2000/svg"><!ENTITY c "#c8783c">]>'
    drawn = text.replace("http://www.w3.org/2000/svg", "&ns;").replace("#c8783c", "&c;")
    yield "entities.svg", (entities + drawn).encode(), svg_pixels(), 1
    inner = base64.b64encode(saved(Image.new("RGB", (4, 4), (0xC8, 0x78, 0x3C)), "PNG")).decode()
    image = f'<image id=">" href="data:image/png;base64,{inner}" width="24" height="24"/>'
    yield "own image.svg", text.replace("</svg>", image + "</svg>").encode(), svg_pixels(), 1
    huge = svg_text(width=2_000_000_000, height=1_333_333_333)
    yield "huge.svg", huge.encode(), svg_pixels(), 1


def _turned() -> Rows:
    rgb = np.ascontiguousarray(drawing()[..., :3])
    for orientation in range(2, 9):
        stored = Image.fromarray(turned(rgb, orientation))
        yield f"turned/{orientation}.png", saved(stored, "PNG", exif=exif(orientation)), rgb, 0
    stored = Image.fromarray(turned(rgb, 6))
    yield "turned/6.tif", saved(stored, "TIFF", exif=exif(6)[6:]), rgb, 0
    yield "turned/6.webp", saved(stored, "WEBP", lossless=True, exif=exif(6)), rgb, 0.5
    flat = flat_drawing()
    stored = Image.fromarray(turned(flat, 8))
    yield "turned/8.jpg", saved(stored, "JPEG", quality=95, exif=exif(8)), flat, 3
    yield (
        "turned/damaged exif.jpg",
        saved(Image.fromarray(flat), "JPEG", quality=95, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        flat,
        3,
    )


def _names() -> Rows:
    """Plain pictures, each of another colour, under names that are not plain."""
    names = [
        "UPPER.PNG",
        "with space.png",
        "ünï-日本-🐉.png",
        "line\nbreak.png",
        "quote'\".png",
        "no ending",
        ".hidden.png",
        "a.tar.gz.png",
        "deep/er/and/deeper/picture.png",
        "-dash.png",
        "x" * 200 + ".png",
    ]
    for i, name in enumerate(names):
        picture = np.ascontiguousarray(drawing()[..., :3])
        picture[8:24, 8:24] = (20 * i, 255 - 20 * i, 7 * i)
        yield name, saved(Image.fromarray(picture), "PNG"), picture, 0
    flat = flat_drawing()
    yield "really-a-jpeg.png", saved(Image.fromarray(flat[::-1]), "JPEG", quality=95), flat[::-1], 3
    yield "really-a-png.jpg", saved(Image.fromarray(flat[:, ::-1]), "PNG"), flat[:, ::-1], 0
    yield "really-a-bmp.txt", saved(Image.fromarray(255 - flat), "BMP"), 255 - flat, 0


def _unreadable() -> Iterable[tuple[str, bytes, str]]:
    image = Image.fromarray(drawing()[..., :3])
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    noisy = Image.fromarray(noise)
    for name, form in (
        ("cut.png", "PNG"),
        ("cut.jpg", "JPEG"),
        ("cut.gif", "GIF"),
        ("cut.bmp", "BMP"),
        ("cut.tif", "TIFF"),
    ):
        content = saved(noisy.convert("P") if form == "GIF" else noisy, form)
        # a TIFF written by Pillow keeps its directory in front, so half of it is half the pixels
        yield name, content[: len(content) // 2], "truncated"
    yield "cut.webp", saved(noisy, "WEBP")[:200], "truncated"
    yield "signature.png", b"\x89PNG\r\n\x1a\n", "damaged"
    broken = bytearray(saved(image, "PNG"))
    broken[60] ^= 0xFF
    yield "broken.png", bytes(broken), "damaged"
    yield "no pixels.png", png([], 0, 8, 2, height=0), "damaged"
    yield "empty.png", b"", "empty file"
    yield "text.png", b"I am not a picture at all.\n" * 5, "not a picture"
    yield "page.jpg", b"<!DOCTYPE html><html><body>404</body></html>", "not a picture"
    yield "lfs.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "not a picture"
    yield "bytes.png", bytes(range(256)) * 4, "not a picture"
    yield "bomb.png", bomb(), "too many pixels"
    rows = [bytes(3)]
    yield "liar.png", png(rows, 90_000, 8, 2, height=90_000), "too many pixels"
    yield "liar.gif", b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b";", "damaged"
    small = bmp32(drawing(), alpha_mask=False)
    yield "liar.bmp", small[:18] + struct.pack("<ii", 5000, 5000) + small[26:], "truncated"
    yield "bomb.bmp", small[:18] + struct.pack("<ii", 9000, 9000) + small[26:], "too many pixels"
    yield "page.png", b"%PDF-1.7\n...", "unsupported format"
    yield "script.png", b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported format"
    yield "archive.png", b"PK\x03\x04" + bytes(30), "unsupported format"
    yield "phone.jpg", b"\0\0\0\x18ftypheic" + bytes(20), "unsupported format"
    yield "broken.svg", svg_text().encode()[:-20], "damaged"
    link = '<image href="/etc/passwd" width="9" height="9"/></svg>'
    yield "linking.svg", svg_text().replace("</svg>", link).encode(), "unsupported format"
    for codec in ("idna", "undefined", "punycode", "hex"):
        head = f'<?xml version="1.0" encoding="{codec}"?>'
        yield f"{codec}.xml", (head + "<a>\u00fc..\u00fc</a>").encode(), "not a picture"
    yield "no size.svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="0"/>', "damaged"
    yield "cut.svgz", gzip.compress(svg_text().encode())[:20], "unsupported format"
    grey_alpha = np.zeros((8, 8, 2), "<u2").tobytes()
    yield "deep.tif", tiff(grey_alpha, "<", 8, 8, bits=16, samples=2), "unsupported format"
    three = np.zeros((8, 8, 3), "<f4").tobytes()
    rgb_float = tiff(three, "<", 8, 8, bits=32, samples=3, photometric=2, sample_format=3)
    yield "float rgb.tif", rgb_float, "unsupported format"
    whole = np.zeros((8, 8), ">u4").tobytes()
    yield "uint-32-be.tif", tiff(whole, ">", 8, 8, bits=32), "unsupported format"
    strange = bytearray(saved(image, "BMP"))
    strange[30] = 9
    yield "strange.bmp", bytes(strange), "unsupported format"
    nan = np.full((8, 8), np.nan, "<f4").tobytes()
    yield "nan.tif", tiff(nan, "<", 8, 8, bits=32, sample_format=3), "damaged"


_READABLE = (_png, _jpeg, _webp, _gif, _bmp, _tiff, _svg, _turned, _names)
