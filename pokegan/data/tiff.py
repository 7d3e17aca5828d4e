"""What a TIFF file says about its pixels, where Pillow does not know how to read them."""

import contextlib
import io

from PIL import TiffImagePlugin

from pokegan.data.quiet import quiet

_WIDTH, _LENGTH = 256, 257
_BITS_PER_SAMPLE = 258
_SAMPLES_PER_PIXEL = 277
_STRIPS, _TILES = 273, 324
_SAMPLE_FORMAT = 339
_NUMBERS = {1: "integers", 2: "signed integers", 3: "floating point numbers"}


def layout(content: bytes) -> str | None:
    """The pixels of a sound TIFF file in words, as `2 x 16-bit integers`; None for a broken one."""
    with contextlib.suppress(Exception), quiet():  # it may hold anything
        tags = TiffImagePlugin.ImageFileDirectory_v2(content[:8])
        file = io.BytesIO(content)
        file.seek(tags.next)
        tags.load(file)
        if tags[_WIDTH] > 0 and tags[_LENGTH] > 0 and (_STRIPS in tags or _TILES in tags):
            bits = tags.get(_BITS_PER_SAMPLE, (1,))
            number = _NUMBERS.get(tags.get(_SAMPLE_FORMAT, (1,))[0], "numbers of another kind")
            samples = int(tags.get(_SAMPLES_PER_PIXEL, len(bits)))
            return f"{samples} x {int(bits[0])}-bit {number} a pixel"
    return None
