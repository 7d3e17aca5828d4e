"""Pictures that can be read and are not wanted all the same: the filters of `PrepareOptions`.

Each refuses with a reason that names its limit and not the picture's own value, so that reports
stay short. This file knows no decoder.
"""

from typing import NamedTuple

from PIL import Image

from pokegan.data.options import PrepareOptions
from pokegan.data.refusals import DecodeError

SVG = "SVG"
DRAWN = "drawn"
PIXELS = "pixels"


class Original(NamedTuple):
    """What a picture was before it was prepared.

    Attributes:
        format: as `sniff` names it; `DRAWN` by pokegan; `PIXELS` that were prepared before.
        width: in px, upright; of vector graphics and drawn pictures, as they were drawn.
        height: likewise.
    """

    format: str
    width: int
    height: int

    @property
    def is_drawn(self) -> bool:
        """Whether its size was ours to choose."""
        return self.format in (SVG, DRAWN)


def check_original(original: Original, options: PrepareOptions) -> None:
    """Raise DecodeError where the shorter side is under `min_size` or the aspect over `max_aspect`.

    Vector graphics and drawn pictures are never too small.
    """
    short, long = sorted(original[1:])
    if not original.is_drawn and short < options.min_size:
        raise DecodeError(f"too small: a side under {options.min_size} px")
    if options.max_aspect is not None and long > options.max_aspect * short:
        raise DecodeError(f"too long: an aspect over {options.max_aspect:g}")


def check_border(picture: Image.Image, options: PrepareOptions) -> None:
    """With `plain_background`: raise DecodeError where the border is not the background.

    At least `PLAIN_BORDER` of the outermost pixels of an RGB picture, composited and not fitted
    yet, must be within `TOLERANCE` levels of the background.
    """
    if not options.plain_background:
        return
    from pokegan.data.background import PLAIN_BORDER, picture_border_share

    if picture_border_share(picture, options.background) < PLAIN_BORDER:
        colour = "#" + bytes(options.background).hex()
        raise DecodeError(f"no plain background: the border is neither transparent nor {colour}")


def check_foreground(square: Image.Image, options: PrepareOptions) -> None:
    """Raise DecodeError where less than `min_foreground` of an RGB square is foreground."""
    least = options.min_foreground
    if least == 0:
        return
    from pokegan.data.background import picture_foreground

    if picture_foreground(square, options.background) < least:
        raise DecodeError(f"nearly empty: under {least:.4g} of it is foreground")
