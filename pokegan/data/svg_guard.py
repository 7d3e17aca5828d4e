"""What an SVG file may not do to us: read other files, or unfold without bound.

resvg loads the pictures that a file links to, from anywhere; it replaces entities, and its stack
grows with the depth of the elements. The file is read here first, once, by an XML parser.
"""

import re
from xml.parsers import expat

from pokegan.data.refusals import DecodeError

_MAX_DEPTH = 128  # resvg overflows an 8 MiB stack at several hundred
_MAX_UNFOLDED = 64 << 20  # characters of all entities in all their places
_LINKING = ("image", "feimage")
_INSIDE = re.compile(r"\s*(data:[^,]*,|#)", re.IGNORECASE)  # the file's own data, or an element


def check(text: str) -> bool:
    """Whether the SVG `text` holds any writing, for which fonts are needed.

    Raises DecodeError when it links to other picture files, declares entities that are more than
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
        self._references = text.count("&")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise DecodeError(f"unsupported format: an SVG nested more than {_MAX_DEPTH} deep")
        element = _local(name)
        self.has_writing |= element == "text"
        if element in _LINKING:
            for key, value in attributes.items():
                if _local(key) == "href" and not _INSIDE.match(value):
                    raise DecodeError(
                        "unsupported format: an SVG that links to other picture files"
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
