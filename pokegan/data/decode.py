"""Any picture file, as bytes, to an upright RGB picture without transparency.

Files are told apart by their content; their names are not known here. What cannot be read is a
`DecodeError` with a reason that starts with its category, as `truncated: the PNG file ends early`.
"""

import contextlib
import io
import re
import struct
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from pokegan.data import frames, jpeg, modes
from pokegan.data.filters import SVG, Original
from pokegan.data.options import MAX_PIXELS, RGB, WHITE
from pokegan.data.quiet import quiet
from pokegan.data.refusals import OUT_OF_MEMORY, DecodeError
from pokegan.data.sniff import foreign, sniff

_CUT_SHORT = "truncated|[Nn]ot enough"  # how Pillow's decoders put it
_MAX_SIDE = 100_000  # Pillow spends more on a row than on a pixel
_DRAFT = 8  # at 8 times the target a reduced JPEG differs by 0.2 levels, at 2 times by 1
_ORIENTATION = 0x0112
_TURNS = {  # EXIF orientation: what brings the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = (
    *(Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE),
    *(Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270),
)


class Decoded(NamedTuple):
    """A picture of mode RGB, or RGBA with straight alpha, and what it was in its file."""

    picture: Image.Image
    original: Original


def decode(
    content: bytes,
    background: RGB = WHITE,
    max_pixels: int = MAX_PIXELS,
    target: int | None = None,
) -> Image.Image:
    """The picture alone of `decode_original`."""
    return decode_original(content, background, max_pixels, target).picture


def decode_original(
    content: bytes,
    background: RGB = WHITE,
    max_pixels: int = MAX_PIXELS,
    target: int | None = None,
) -> Decoded:
    """Decode one picture file to an upright picture of mode RGB, composited on `background`.

    Of an animation or a multi-page file the first frame is taken. A picture whose header promises
    more than `max_pixels`, or a side of more than 100,000, is refused before anything of it is
    decoded. `target` is the longest side in pixels that the caller is going to need: an SVG is
    drawn for it (twice as large), and a JPEG more than 16 times that size is decoded at a half, a
    quarter or an eighth of its own;
    without it an SVG is drawn 1024 px large. An embedded ICC profile is applied (to sRGB), and
    ignored where it is broken or does not fit the picture.

    Raises DecodeError for every file that cannot be read, whatever the decoder threw.
    """
    picture, original = upright_original(content, max_pixels, target)
    return Decoded(composite(picture, background), original)


def upright(content: bytes, max_pixels: int = MAX_PIXELS, target: int | None = None) -> Image.Image:
    """The picture alone of `upright_original`."""
    return upright_original(content, max_pixels, target).picture


def upright_original(
    content: bytes, max_pixels: int = MAX_PIXELS, target: int | None = None
) -> Decoded:
    """Decode one picture file to an upright picture of mode RGB, or RGBA with straight alpha.

    The arguments and the errors are those of `decode_original`.
    """
    kind = sniff(content)
    if kind is None:
        raise DecodeError(foreign(content))
    if kind == SVG:
        from pokegan.data import svg

        picture = svg.draw(content, 2 * target if target else 1024)
        return Decoded(picture, Original(SVG, *picture.size))
    return _raster(content, kind, max_pixels, target)


def composite(picture: Image.Image, background: RGB) -> Image.Image:
    """Lay an RGBA picture (straight alpha) on `background`; an RGB picture stays as it is."""
    if picture.mode == "RGB":
        return picture
    canvas = Image.new("RGB", picture.size, background)
    canvas.paste(picture, mask=picture.getchannel("A"))
    return canvas


def _raster(content: bytes, kind: str, max_pixels: int, target: int | None) -> Decoded:
    """An upright picture of mode RGB or RGBA from one of the formats that Pillow reads."""
    try:
        with quiet():
            return _raster_unguarded(content, kind, max_pixels, target)
    except DecodeError:
        raise
    except Image.DecompressionBombError as error:  # by Image.open, before our own check
        pixels = int("".join(re.findall(r"\d+", str(error))[:1]) or 0)
        raise DecodeError(f"too many pixels: {pixels:,}, the limit is {max_pixels:,}") from error
    except Exception as error:
        raise DecodeError(_reason(kind, content, error)) from error


def _raster_unguarded(content: bytes, kind: str, max_pixels: int, target: int | None) -> Decoded:
    only = (kind.upper(),)  # no other decoder is tried: no Ghostscript, no exotic formats
    with Image.open(io.BytesIO(content), formats=only) as image:
        _check_size(image.width, image.height, max_pixels)
        whole = image.size
        if kind == "JPEG" and jpeg.has_too_many_scans(content):
            raise DecodeError(f"unsupported format: a JPEG of more than {jpeg.MAX_SCANS} scans")
        if kind == "JPEG" and target:
            image.draft(None, (_DRAFT * target, _DRAFT * target))
        box = frames.first_frame(image, kind, content)
        image.load()
        turn = _TURNS.get(_orientation(image))
        plain = modes.to_8_bit(image, kind, content)
        if box is not None:
            plain = frames.clear_outside(plain, box)
        if kind != "JPEG":
            whole = plain.size  # a TIFF is turned by its decoder
        if turn is not None:
            plain = plain.transpose(turn)
            whole = whole[::-1] if turn in _ON_ITS_SIDE else whole
        return Decoded(plain, Original(kind, *whole))


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if max(width, height) > _MAX_SIDE:
        raise DecodeError(f"too many pixels: {width} x {height}, no side may be over {_MAX_SIDE:,}")
    if width * height > max_pixels:
        raise DecodeError(f"too many pixels: {width} x {height}, the limit is {max_pixels:,}")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8 (1: upright); 1 where EXIF data is damaged or missing."""
    with contextlib.suppress(Exception):
        return int(image.getexif().get(_ORIENTATION, 1))
    return 1


def _reason(kind: str, content: bytes, error: Exception) -> str:
    """What to tell about whatever a decoder threw at a file."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"{OUT_OF_MEMORY}: while reading a {kind} file"
    short = kind == "WebP" and len(content) < 8 + int.from_bytes(content[4:8], "little")
    if short or isinstance(error, EOFError | struct.error) or re.search(_CUT_SHORT, text):
        return f"truncated: the {kind} file ends early"
    if kind == "TIFF" and isinstance(error, UnidentifiedImageError):
        from pokegan.data import tiff

        layout = tiff.layout(content)
        if layout:
            return f"unsupported format: TIFF of {layout}"
    if text.startswith("Unsupported "):
        return f"unsupported format: {kind}: {text[:100]}"
    if not text or "<_io" in text:  # Pillow names the object it was given, not what is wrong
        return f"damaged: not a valid {kind} file"
    return f"damaged: {kind}: {text[:100]}"
