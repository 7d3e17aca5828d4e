"""Which files every decoder reads alike, by their headers alone; and how to make any file so.

Fast decoders (DALI, torchvision) drop alpha, lose the transparency of palettes, ignore colour
profiles, fill in what is missing of a truncated file, or fail and take a whole batch with them.
What is *plain* is out of the reach of all that. This file decodes nothing but to re-encode it.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from PIL import Image, ImageCms

from pokegan.data.decode import upright
from pokegan.data.options import MAX_PIXELS
from pokegan.data.quiet import quiet

_ORIENTATION = 0x0112
_XMP_TURNED = re.compile(rb'tiff:Orientation(?:="|>)[^1]')

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 6: 4}  # colour type: channels; no palette, no grey with alpha
_PNG_HARMLESS = frozenset(
    {b"IHDR", b"IDAT", b"IEND", b"sRGB", b"gAMA", b"cHRM", b"pHYs", b"tIME", b"bKGD", b"sBIT"}
)
_PNG_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_PNG_TURNING = re.compile(rb"exif|raw profile|xml:com\.adobe\.xmp", re.IGNORECASE)

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")  # in a scan: neither a stuffed FF nor a restart
_SOF, _SOS, _EOI, _ADOBE, _EXIF_OR_XMP, _ICC = (0xC0, 0xC2), 0xDA, 0xD9, 0xEE, 0xE1, 0xE2
_TABLES = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})  # DHT, DQT, DRI, COM, APPn
_LUMA = frozenset({0x11, 0x21, 0x12, 0x22, 0x41})  # 4:4:4, 4:2:2, 4:4:0, 4:2:0, 4:1:1
_YCBCR = 1  # Adobe's transform


class Plain(NamedTuple):
    """What the header of a plainly encoded picture says.

    Attributes:
        kind: `PNG` or `JPEG`.
        width: in px.
        height: in px.
        channels: 1 (grey), 3 (RGB) or 4 (RGB with straight alpha), of 8 bits.
    """

    kind: str
    width: int
    height: int
    channels: int


def plainly_encoded(data: bytes) -> bool:
    """Whether DALI and torchvision decode this file to what `decode.upright` makes of it.

    So are: baseline and progressive JPEG, 8 bits, grey or YCbCr; PNG of 8 bits, grey, RGB or RGBA,
    not interlaced, without a transparent colour and not animated. Each complete to its end mark,
    checksums right, upright by EXIF and XMP, with no colour profile but sRGB. Whether the
    compressed pixels themselves are sound, and not too many, is for the decoder to find out.
    """
    return plain_header(data) is not None


def plain_header(data: bytes) -> Plain | None:
    """The header of a plainly encoded picture; None for any other file."""
    try:
        if data.startswith(_PNG_SIGNATURE):
            return _png(data)
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
    except (struct.error, IndexError):  # the file ends inside of a field
        pass
    return None


def normalised(data: bytes, max_pixels: int = MAX_PIXELS, target: int | None = None) -> bytes:
    """Re-encode any picture that `decode` accepts as a plain PNG, RGB or RGBA, without loss.

    The arguments and the errors are those of `decode.upright`.
    """
    file = io.BytesIO()
    picture = upright(data, max_pixels, target)
    picture.info.clear()  # a profile is applied already, an orientation followed
    picture.save(file, "PNG")
    return file.getvalue()


def _png(data: bytes) -> Plain | None:
    header = None
    compressed = 0
    for kind, content in _png_chunks(data):
        if kind == b"IHDR" and header is None:
            header = struct.unpack(">2I5B", content)
        if header is None or not _is_harmless(kind, content):
            return None
        compressed += len(content) if kind == b"IDAT" else 0
        if kind == b"IEND":
            width, height, depth, colour, compression, filtering, interlace = header
            ordinary = (depth, compression, filtering, interlace) == (8, 0, 0, 0)
            if not (ordinary and width and height and compressed and colour in _PNG_CHANNELS):
                return None
            return Plain("PNG", width, height, _PNG_CHANNELS[colour])
    return None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks with a right checksum, up to the first that is cut short or has another one."""
    offset = len(_PNG_SIGNATURE)
    while offset + 12 <= len(data):
        length = int.from_bytes(data[offset : offset + 4], "big")
        body = memoryview(data)[offset + 4 : offset + 8 + length]
        stored = data[offset + 8 + length : offset + 12 + length]
        if zlib.crc32(body).to_bytes(4, "big") != stored:
            return
        yield bytes(body[:4]), bytes(body[4:])
        offset += 12 + length


def _is_harmless(kind: bytes, content: bytes) -> bool:
    """Whether a chunk changes nothing about the pixels, for any decoder."""
    if kind in _PNG_TEXT:
        return not _PNG_TURNING.match(content)
    if kind == b"eXIf":
        return _is_upright(b"Exif\0\0" + content)
    if kind == b"iCCP":
        name, _, rest = content.partition(b"\0")
        return len(name) < 80 and rest[:1] == b"\0" and _is_srgb(_inflated(rest[1:]))
    return kind in _PNG_HARMLESS


def _inflated(content: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(content, 1 << 20)
    except zlib.error:
        return b""


def _jpeg(data: bytes) -> Plain | None:
    frame = None
    exif, profile = b"", []
    for marker, content in _jpeg_segments(data):
        if marker == _EOI:
            if frame is None or (exif and not _is_upright(exif)):
                return None
            return frame if not profile or _is_srgb(_joined(profile)) else None
        if marker in _SOF:
            if frame is not None:
                return None
            frame = _jpeg_frame(content)
        if marker in (*_SOF, _SOS):
            if frame is None:
                return None
        elif marker not in _TABLES or _is_telling(marker, content):
            return None
        elif marker == _EXIF_OR_XMP and content.startswith(b"Exif\0\0"):
            exif += content[6:] if exif else content
        elif marker == _ICC and content.startswith(b"ICC_PROFILE\0"):
            profile.append(content)
    return None


def _is_telling(marker: int, content: bytes) -> bool:
    """Whether an Adobe segment tells of RGB, CMYK or YCCK, or XMP data of a turned picture."""
    if marker == _ADOBE and content.startswith(b"Adobe"):
        return content[11] != _YCBCR
    return marker == _EXIF_OR_XMP and bool(_XMP_TURNED.search(content))


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment; of a scan the header. Ends at the first oddity."""
    offset = 2
    while data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker == _EOI:
            yield marker, b""
            return
        length = int.from_bytes(data[offset + 2 : offset + 4], "big")
        end = offset + 2 + length
        if length < 2 or end > len(data):
            return
        yield marker, data[offset + 4 : end]
        if marker == _SOS:
            found = _JPEG_MARKER.search(data, end)
            if found is None:
                return
            end = found.start()
        offset = end


def _jpeg_frame(content: bytes) -> Plain | None:
    """What a frame header says (ITU-T T.81, B.2.2), where every decoder reads it alike."""
    precision, height, width, components = struct.unpack_from(">BHHB", content)
    if precision != 8 or not width or not height or len(content) != 6 + 3 * components:
        return None
    names, sampling = content[6::3], content[7::3]
    grey = components == 1 and sampling == b"\x11"
    colour = names == b"\1\2\3" and sampling[0] in _LUMA and sampling[1:] == b"\x11\x11"
    return Plain("JPEG", width, height, components) if grey or colour else None


def _joined(segments: list[bytes]) -> bytes:
    """A colour profile out of its segments, each after a name, a number and a count."""
    return b"".join(segment[14:] for segment in sorted(segments))


def _is_upright(exif: bytes) -> bool:
    try:
        with quiet():
            read = Image.Exif()
            read.load(exif)
            return bool(read.get(_ORIENTATION, 1) == 1)
    except Exception:  # Pillow raises what it likes at damaged EXIF data
        return False


@lru_cache(maxsize=64)
def _is_srgb(profile: bytes) -> bool:
    """Whether `modes` leaves the colours of a picture with this profile as they are."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return "sRGB" in ImageCms.getProfileDescription(opened)
    except Exception:  # lcms refuses broken profiles
        return False
