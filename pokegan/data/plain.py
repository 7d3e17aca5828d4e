"""Which picture files any plain decoder shows as we do, and the rest as files that it does."""

import io
import struct

from PIL import Image

from pokegan.data import decode, svg
from pokegan.data.refusals import DecodeError
from pokegan.data.sniff import foreign, sniff

_SVG_SIDE = 1024


def plainly_encoded(data: bytes) -> bool:
    """Whether a decoder that ignores everything but pixels and alpha shows this file rightly.

    True for 8-bit RGB and RGBA PNG files and for RGB and grey JPEG files that need no turning, no
    colour profile and no palette.
    """
    kind = sniff(data)
    if kind == "PNG":
        depth, colour, _, _, interlaced = struct.unpack_from("5B", data, 24)
        odd = any(chunk in data for chunk in (b"tRNS", b"iCCP", b"eXIf", b"acTL"))
        return depth == 8 and colour in (2, 6) and not interlaced and not odd
    if kind == "JPEG":
        with Image.open(io.BytesIO(data)) as image:
            turned = "exif" in image.info
            return image.mode in ("RGB", "L") and not turned and "icc_profile" not in image.info
    return False


def normalised(data: bytes, max_pixels: int) -> bytes:
    """The picture of any file that `decode` reads as an upright 8-bit RGB or RGBA PNG file.

    Raises DecodeError as `decode` does.
    """
    kind = sniff(data)
    if kind is None:
        raise DecodeError(foreign(data))
    if kind == "SVG":
        picture = svg.draw(data, _SVG_SIDE)
    else:
        picture = decode._raster(data, kind, max_pixels, None).picture
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()
