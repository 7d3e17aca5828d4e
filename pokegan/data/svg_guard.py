"""What an SVG file may not do to us: read other files, or unfold without bound.

resvg loads the pictures that a file links to, from anywhere; it replaces entities, and its stack
grows with the depth of the elements. The file is read here first, once, by an XML parser.
"""

import base64
import binascii
import io
import re
from urllib.parse import unquote_to_bytes
from xml.parsers import expat

from PIL import Image

from pokegan.data.quiet import quiet
from pokegan.data.refusals import DecodeError
from pokegan.data.sniff import as_text, is_svg

_MAX_DEPTH = 128  # resvg overflows an 8 MiB stack at several hundred
_MAX_UNFOLDED = 64 << 20  # characters of all entities in all their places
_MAX_INNER_PIXELS = 16_000_000  # of all pictures inside, which resvg holds several times
_INNER_FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
_LINKING = ("image", "feimage")
_INSIDE = re.compile(r"\s*(data:[^,]*,|#)", re.IGNORECASE)  # the file's own data, or an element


def check(text: str) -> bool:
    """Whether the SVG `text` holds any writing, for which fonts are needed.

    Raises DecodeError when it links to other picture files, holds more than 16 million pixels of
    pictures inside, or one that cannot be read, declares entities that are more than
    short texts, nests its elements too deeply, or is no sound XML. Takes time linear in the text.
    """
    guard = _Guard(text)
    parser = expat.ParserCreate()
    parser.StartElementHandler = guard.start
    parser.EndElementHandler = guard.end
    parser.EntityDeclHandler = guard.entity
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, ValueError) as error:
        raise DecodeError(f"damaged: SVG: {error}") from error
    return guard.has_writing


class _Guard:
    def __init__(self, text: str) -> None:
        self.has_writing = False
        self._depth = 0
        self._pixels = 0
        self._references = text.count("&")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise DecodeError(f"unsupported format: an SVG nested more than {_MAX_DEPTH} deep")
        element = _local(name)
        self.has_writing |= element == "text"
        if element in _LINKING:
            for key, value in attributes.items():
                if _local(key) == "href":
                    self._link(value.strip())

    def _link(self, target: str) -> None:
        if not _INSIDE.match(target):
            raise DecodeError("unsupported format: an SVG that links to other picture files")
        if target.startswith("#"):
            return
        picture = _data(target)
        if is_svg(picture):
            self.has_writing |= check(as_text(picture))
            return
        self._pixels += _pixels(picture)
        if self._pixels > _MAX_INNER_PIXELS:
            raise DecodeError(
                f"too many pixels: in pictures inside an SVG, the limit is {_MAX_INNER_PIXELS:,}"
            )

    def end(self, _name: str) -> None:
        self._depth -= 1

    def entity(
        self,
        _name: str,
        is_parameter: int,
        value: str | None,
        _base: str | None,
        _system: str | None,
        _public: str | None,
        _notation: str | None,
    ) -> None:
        """Texts such as the name spaces of Illustrator are harmless; everything else is refused."""
        simple = value is not None and not is_parameter and not re.search("[&%<]", value)
        if not simple or len(value or "") * self._references > _MAX_UNFOLDED:
            raise DecodeError("unsupported format: an SVG with entities that are no short texts")


def _local(name: str) -> str:
    """The part of a name behind its prefix, in small letters."""
    return name.rpartition(":")[2].lower()


def _data(url: str) -> bytes:
    """What a data: URL holds (RFC 2397); base64 may be broken over lines."""
    head, _, body = url.partition(",")
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode(unquote_to_bytes(body))
    except binascii.Error as error:
        raise DecodeError("damaged: SVG: a picture inside it is no base64") from error


def _pixels(picture: bytes) -> int:
    """Width times height by the header of a picture file; nothing of it is decoded."""
    try:
        with quiet(), Image.open(io.BytesIO(picture), formats=_INNER_FORMATS) as image:
            return int(image.width * image.height)
    except Image.DecompressionBombError:
        return _MAX_INNER_PIXELS + 1
    except Exception as error:  # what Pillow's header readers throw at damage is not bounded
        raise DecodeError("damaged: SVG: a picture inside it cannot be read") from error
