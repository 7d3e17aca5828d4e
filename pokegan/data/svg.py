"""Scalable vector graphics to RGBA pictures, by resvg (the extra `svg`)."""

import io
import re

from PIL import Image

from pokegan.data.refusals import DecodeError
from pokegan.data.sniff import as_text, unzipped

_MAX_TEXT = 64 << 20
_LINKED = re.compile(
    r"<(?:[\w.-]+:)?(?:image|feImage)\b[^>]*?\bhref\s*=\s*[\"'](?!\s*(?:data:|#))", re.IGNORECASE
)
_TEXT = re.compile(r"<(?:[\w.-]+:)?text\b")


def draw(content: bytes, side: int) -> Image.Image:
    """Draw an SVG or SVGZ file on nothing: mode RGBA, straight alpha, longest side `side` px.

    The aspect of the file's own size is kept. Raises DecodeError, also where resvg is missing and
    where the file refers to other files, which are not loaded.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise DecodeError("SVG needs resvg: pip install 'pokegan[svg]'") from error
    text = _text(content)
    try:
        drawn = resvg_py.svg_to_bytes(
            svg_string=text, width=side, height=side, skip_system_fonts=not _TEXT.search(text)
        )
        return Image.open(io.BytesIO(drawn), formats=("PNG",)).convert("RGBA")
    except BaseException as error:  # a panic of the Rust code is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise
        raise DecodeError(f"damaged: SVG: {' '.join(str(error).split())[:100]}") from error


def _text(content: bytes) -> str:
    if content.startswith(b"\x1f\x8b"):
        content = unzipped(content, _MAX_TEXT + 1) or b""
    if len(content) > _MAX_TEXT:
        raise DecodeError(f"file too large: an SVG of more than {_MAX_TEXT >> 20} MiB")
    text = as_text(content)
    if _LINKED.search(text):
        raise DecodeError("unsupported format: an SVG that links to other picture files")
    return text
