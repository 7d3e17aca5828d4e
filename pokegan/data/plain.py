"""Which picture files any decoder reads alike, told by their headers alone."""

import struct
from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_TELLING = {b"tRNS", b"iCCP", b"eXIf", b"acTL"}  # transparency, colour profile, turn, animation
_COLOUR_TYPES = (2, 6)  # RGB, RGBA

_JPEG = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_SCAN = 0xDA


def plainly_encoded(data: bytes) -> bool:
    """Whether every decoder gives the same upright pixels for this file.

    So it is with 8-bit RGB and RGBA PNG and three-component JPEG files that are whole and carry no
    transparent colour, colour profile, EXIF turn or animation. Nothing is decoded.
    """
    try:
        return _plain_png(data) if data.startswith(_PNG) else _plain_jpeg(data)
    except (struct.error, IndexError):
        return False


def _plain_png(data: bytes) -> bool:
    _, _, name, _, _, depth, colour = struct.unpack_from(">8sI4sIIBB", data)
    if name != b"IHDR" or depth != 8 or colour not in _COLOUR_TYPES:
        return False
    return data[-8:-4] == b"IEND" and _TELLING.isdisjoint(_png_chunks(data))


def _png_chunks(data: bytes) -> Iterator[bytes]:
    """The names of the chunks before the pixels."""
    offset = len(_PNG)
    while (name := data[offset + 4 : offset + 8]) not in (b"IDAT", b""):
        yield name
        offset += 12 + int(struct.unpack_from(">I", data, offset)[0])


def _plain_jpeg(data: bytes) -> bool:
    if not data.startswith(_JPEG) or not data.rstrip(b"\0").endswith(_JPEG_END):
        return False
    components = 0
    for marker, body in _jpeg_segments(data):
        if marker in _FRAMES:
            components = body[5] if body[0] == 8 else 0
        elif _telling(marker, body):
            return False
    return components == 3


def _telling(marker: int, body: bytes) -> bool:
    """Whether a segment turns or recolours the picture, or is of a rarer coding."""
    if marker == 0xEE and body.startswith(b"Adobe"):
        return body[11] != 1  # 1 is YCbCr
    rare = 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
    return rare or body.startswith((b"Exif\0", b"ICC_PROFILE\0"))


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """`(marker, content)` of the segments before the first scan."""
    offset = len(_JPEG)
    while True:
        while data[offset] == 0xFF and data[offset + 1] == 0xFF:  # padding
            offset += 1
        lead, marker, length = struct.unpack_from(">BBH", data, offset)
        if lead != 0xFF:
            raise IndexError("no marker where one must be")
        if marker == _SCAN:
            return
        yield marker, data[offset + 4 : offset + 2 + length]
        offset += 2 + length
