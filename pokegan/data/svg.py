"""Scalable vector graphics to RGBA pictures, by resvg (the extra `svg`)."""

import io
import os

from PIL import Image

from pokegan.data import svg_guard
from pokegan.data.refusals import OUT_OF_MEMORY, DecodeError
from pokegan.data.sniff import as_text, unzipped

_MAX_TEXT = 64 << 20


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
    has_text = svg_guard.check(text)
    try:
        drawn = resvg_py.svg_to_bytes(
            svg_string=text,
            width=side,
            height=side,
            skip_system_fonts=not has_text,
            resources_dir=os.devnull,  # no folder: nothing is found in it, should a link get so far
        )
        return Image.open(io.BytesIO(drawn), formats=("PNG",)).convert("RGBA")
    except BaseException as error:  # a panic of the Rust code is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise
        if isinstance(error, MemoryError):
            raise DecodeError(f"{OUT_OF_MEMORY}: while drawing an SVG file") from error
        raise DecodeError(f"damaged: SVG: {' '.join(str(error).split())[:100]}") from error


def _text(content: bytes) -> str:
    if content.startswith(b"\x1f\x8b"):
        content = unzipped(content, _MAX_TEXT + 1) or b""
    if len(content) > _MAX_TEXT:
        raise DecodeError(f"file too large: an SVG of more than {_MAX_TEXT >> 20} MiB")
    return as_text(content)
