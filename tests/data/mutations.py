"""Picture files that are wrong in every way, from a counted generator: `mutated(seed, i)`."""

import random
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from awkward import contents
from picture_files import drawing, png, saved
from PIL import Image

from pokegan.data.sniff import sniff

_SIDES = (0, 1, 2, 255, 7_999, 8_000, 16_383, 32_767, 65_535, 2**24, 2**31 - 1, 2**32 - 1)
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RUN = 64  # px of a side of the larger base pictures


def mutated(seed: int, i: int) -> tuple[str, bytes]:
    """File `i` of `seed`: its name, which says what was done to what, and its content."""
    draw = random.Random(f"{seed} {i}")
    names = list(bases())
    name = draw.choice(names)
    content = bases()[name]
    done = []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        change = draw.choice(_CHANGES)
        content = change(draw, content)
        done.append(change.__name__.strip("_"))
    if draw.random() < 0.5:  # else most mutations of a PNG end at the checksum of a chunk
        content = mend_checksums(content)
    return f"{i:05d} {' '.join(done)} {name.replace('/', '-')[-60:]}", content


@cache
def bases() -> dict[str, bytes]:
    """Sound pictures in every format and mode, with the unsound ones of the awkward folder."""
    found = {name: content for name, content in contents().items() if len(content) < 1 << 20}
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (_RUN, 2 * _RUN, 4), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(drawing()).resize((4 * _RUN, 3 * _RUN)))
    for kind, pixels in (("noise", noise), ("smooth", smooth)):
        rgba = Image.fromarray(pixels)
        rgb = rgba.convert("RGB")
        found[f"{kind}.png"] = saved(rgba, "PNG")
        found[f"{kind}.jpg"] = saved(rgb, "JPEG", quality=80)
        found[f"{kind} progressive.jpg"] = saved(rgb, "JPEG", quality=80, progressive=True)
        found[f"{kind}.webp"] = saved(rgba, "WEBP", quality=80)
        found[f"{kind} lossless.webp"] = saved(rgba, "WEBP", lossless=True)
        found[f"{kind}.gif"] = saved(
            rgb, "GIF", save_all=True, append_images=[rgb.rotate(180), rgb.rotate(90)]
        )
        for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
            found[f"{kind} {compression}.tif"] = saved(rgb, "TIFF", compression=compression)
        found[f"{kind}.bmp"] = saved(rgb.convert("P"), "BMP")
    return found


def mend_checksums(content: bytes) -> bytes:
    """A PNG with the right checksum in every chunk; any other file as it is."""
    if not content.startswith(_SIGNATURE):
        return content
    out, place = bytearray(content), 8
    while place + 12 <= len(out):
        (length,) = struct.unpack_from(">I", out, place)
        end = place + 8 + length
        if end + 4 > len(out):
            break
        struct.pack_into(">I", out, end, zlib.crc32(out[place + 4 : end]))
        place = end + 4
    return bytes(out)


def _flip(draw: random.Random, content: bytes) -> bytes:
    """Change up to 20 bytes, half of the time in the first 256."""
    out = bytearray(content)
    reach = min(len(out), draw.choice((256, len(out))))
    for _ in range(draw.randint(1, 20) if reach else 0):
        out[draw.randrange(reach)] = draw.choice((0, 1, 127, 128, 255, draw.randrange(256)))
    return bytes(out)


def _cut(draw: random.Random, content: bytes) -> bytes:
    return content[: draw.randint(0, len(content))]


def _insert(draw: random.Random, content: bytes) -> bytes:
    place = draw.randint(0, len(content))
    return content[:place] + draw.randbytes(draw.randint(1, 64)) + content[place:]


def _drop(draw: random.Random, content: bytes) -> bytes:
    start = draw.randint(0, len(content))
    return content[:start] + content[start + draw.randint(1, 64) :]


def _repeat(draw: random.Random, content: bytes) -> bytes:
    start = draw.randint(0, len(content))
    end = draw.randint(start, len(content))
    return content[:end] + content[start:end] * draw.randint(1, 3) + content[end:]


def _swap_header(draw: random.Random, content: bytes) -> bytes:
    """The first bytes of one file before the rest of another, of another format mostly."""
    other = draw.choice(list(bases().values()))
    length = draw.choice((4, 8, 12, 16, 26, 33, 64, 128))
    return other[:length] + content[length:]


def _splice(draw: random.Random, content: bytes) -> bytes:
    other = draw.choice(list(bases().values()))
    return content[: draw.randint(0, len(content))] + other[draw.randint(0, len(other)) :]


def _resize(draw: random.Random, content: bytes) -> bytes:
    """Other values in the fields of the header that hold width and height."""
    kind = sniff(content)
    out = bytearray(content)
    for place, layout in _size_fields(kind, content):
        if draw.random() < 0.8 and place + struct.calcsize(layout) <= len(out):
            most = 256 ** struct.calcsize(layout) - 1
            struct.pack_into(layout.upper(), out, place, min(draw.choice(_SIDES), most))
    if kind == "SVG":
        side = b'"%d"' % draw.choice(_SIDES)
        return re.sub(rb'(?<=width=)"\d+"|(?<=height=)"\d+"', side, content)
    return mend_checksums(bytes(out))


def _size_fields(kind: str | None, content: bytes) -> Iterator[tuple[int, str]]:
    """`(offset, struct layout)` of width and height in the header."""
    if kind == "PNG":
        yield from ((16, ">I"), (20, ">I"))
    elif kind == "GIF":
        yield from ((6, "<H"), (8, "<H"))
        frame = content.find(b"\x2c\0\0\0\0", 13)
        if frame >= 0:
            yield from ((frame + 5, "<H"), (frame + 7, "<H"))
    elif kind == "BMP":
        yield from ((18, "<I"), (22, "<I"))
    elif kind == "WebP":
        yield from ((24, "<H"), (26, "<H"), (28, "<H"), (21, "<H"))
    elif kind == "JPEG":
        for found in re.finditer(rb"\xff[\xc0-\xc2]", content):
            yield from ((found.end() + 3, ">H"), (found.end() + 5, ">H"))
    elif kind == "TIFF":
        order = "<" if content.startswith(b"II") else ">"
        for tag in (256, 257, 258, 277, 278, 279):
            for form in (3, 4):
                at = content.find(struct.pack(order + "HHI", tag, form, 1))
                if at >= 0:
                    yield at + 8, order + ("H" if form == 3 else "I")


_CHANGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    *(_flip, _flip, _cut, _insert, _drop, _repeat, _swap_header, _splice, _resize, _resize),
)


def bombs(heavy: bool = False) -> Iterator[tuple[str, bytes]]:
    """Small files that unfold: `(name, content)`; `heavy` ones take seconds or a gigabyte each."""
    yield "wide.png", _flat_png(64_000_000, 1, 1, 0)
    yield "bits.png", _flat_png(8_000, 8_000, 1, 0)
    many = b"".join(_chunk(b"tEXt", b"k\0v") for _ in range(50_000))
    yield "chunks.png", png([bytes(3)], 1, 8, 2, extra=many)
    for kind in (b"iCCP", b"zTXt"):
        body = b"k\0\0" + zlib.compress(bytes(100 << 20), 1)
        yield f"{kind.decode()} bomb.png", png([bytes(3)], 1, 8, 2, extra=_chunk(kind, body))
    yield "frames.png", png([bytes(3)], 1, 8, 2, extra=_chunk(b"acTL", b"\x7f" + b"\xff" * 7))
    yield "canvas.gif", _gif(7_999, 7_999)
    yield "frame.gif", _gif(8, 8, 65_535)
    yield "loop.tif", b"II*\0\x08\0\0\0\0\0" + struct.pack("<I", 8)
    yield "tags.tif", b"II*\0\x08\0\0\0\xff\xff" + b"\0\1\4\0\xff\xff\xff\xff\x08\0\0\0" * 65_535
    yield "rle.bmp", _rle_bmp(7_999, 7_999)
    yield "scans.jpg", _scans(64, 64, 5_000)
    yield "deep.svg", _svg("<g>" * 100_000 + "</g>" * 100_000)
    yield "laughs.svg", _laughs()
    yield "nested uses.svg", _svg(_uses(4))
    yield (
        "blur.svg",
        _svg(
            '<filter id="f"><feGaussianBlur stdDeviation="1e9"/></filter>'
            '<rect width="1e9" height="1e9" filter="url(#f)"/>'
        ),
    )
    yield (
        "dashes.svg",
        _svg('<path d="M0 0H1e6" stroke="red" stroke-width="1" stroke-dasharray="1e-3"/>'),
    )
    yield "path.svg", _svg(f'<path d="M0 0{"L9 9 0 9" * 50_000}" fill="red"/>')
    yield "unzipped.svg", _gzip(_svg("").ljust(100 << 20))
    if heavy:
        yield from _heavy_bombs()


def _heavy_bombs() -> Iterator[tuple[str, bytes]]:
    yield "high.png", _flat_png(1, 64_000_000, 1, 0)
    yield "rgba.png", _flat_png(7_999, 7_999, 8, 6)
    yield "rgba 16.png", _flat_png(7_999, 7_999, 16, 6)
    yield "grey 16.png", _flat_png(7_999, 7_999, 16, 0)
    yield "large scans.jpg", _scans(7_999, 7_999, 5_000)
    yield "many uses.svg", _svg(_uses(9))
    base = Image.new("F", (7_999, 7_999))
    yield "float.tif", saved(base, "TIFF", compression="tiff_adobe_deflate")
    wide = Image.new("RGBA", (7_999, 7_999), (1, 2, 3, 4))
    yield "rgba.webp", saved(wide, "WEBP", lossless=True, method=0, quality=0)
    yield "lzw.tif", saved(wide, "TIFF", compression="tiff_lzw")
    yield "cmyk.jpg", saved(Image.new("CMYK", (7_999, 7_999)), "JPEG", progressive=True)
    inner = _flat_png(20_000, 20_000, 1, 0)
    import base64

    link = base64.b64encode(inner).decode()
    yield (
        "inner.svg",
        _svg(f'<image href="data:image/png;base64,{link}" width="9" height="9"/>'),
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _flat_png(width: int, height: int, depth: int, colour: int) -> bytes:
    """A true PNG of zeros, of whatever size."""
    samples = {0: 1, 2: 3, 6: 4}[colour]
    left = height * (1 + (width * depth * samples + 7) // 8)
    squeeze, parts = zlib.compressobj(1), []
    while left > 0:
        parts.append(squeeze.compress(bytes(min(left, 1 << 20))))
        left -= 1 << 20
    header = struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0)
    body = b"".join(parts) + squeeze.flush()
    pieces = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, part) for kind, part in pieces)


def _gif(width: int, height: int, frame: int = 1) -> bytes:
    """A GIF of a canvas and one frame of `frame` px on a side, with one pixel in it."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return head + b"," + struct.pack("<4HB", 0, 0, frame, frame, 0) + b"\x02\x02\x44\x01\0;"


def _rle_bmp(width: int, height: int) -> bytes:
    runs = b"\xff\x01" * (width * height // 255 // 64) + b"\0\1"
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 2, 0)
    return b"BM" + struct.pack("<IHHI", 62 + len(runs), 0, 0, 62) + info + bytes(8) + runs


def _scans(width: int, height: int, count: int) -> bytes:
    """A progressive JPEG of `count` scans that end early, each a pass over all of its blocks."""
    content = saved(Image.fromarray(drawing()[:16, :16, 0]), "JPEG", progressive=True)
    frame = content.index(b"\xff\xc2")
    tables = content.index(b"\xff\xc4")  # the first scan and what it needs begin here
    head = bytearray(content[:tables])
    struct.pack_into(">HH", head, frame + 5, height, width)
    scans = content[tables:-2]
    return bytes(head) + scans * (count // scans.count(b"\xff\xda")) + b"\xff\xd9"


def _svg(body: str) -> bytes:
    head = '<svg xmlns="http://www.w3.org/2000/svg" width="48" height="32">'
    return f"{head}{body}</svg>".encode()


def _laughs() -> bytes:
    entities = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    head = f'<!DOCTYPE svg [<!ENTITY l0 "ha">{entities}]>'
    return head.encode() + _svg("<text>&l9;</text>")


def _uses(levels: int) -> str:
    """Ten of ten of ten ... rectangles."""
    parts = ['<g id="u0"><rect width="9" height="9"/></g>']
    for i in range(1, levels + 1):
        parts.append(f'<g id="u{i}">{f"""<use href="#u{i - 1}"/>""" * 10}</g>')
    return f"<defs>{''.join(parts)}</defs><use href='#u{levels}'/>"


def _gzip(content: bytes) -> bytes:
    squeeze = zlib.compressobj(1, wbits=31)
    return squeeze.compress(content) + squeeze.flush()
