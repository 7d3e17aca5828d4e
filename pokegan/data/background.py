"""What of a picture is background: pixels close to the colour that was laid under it."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from pokegan.data.options import RGB

Pixels: TypeAlias = npt.NDArray[np.uint8]
Mask: TypeAlias = npt.NDArray[np.bool_]

TOLERANCE = 16  # levels; JPEG leaves up to 12 on flat white beside an outline
PLAIN_BORDER = 0.75  # art that is cropped tightly touches its border; a white sky covers half of it


def foreground(pixels: Pixels, background: RGB) -> Mask:
    """Which pixels [..., 3] are not background: [...].

    A pixel is foreground when a channel of it is more than `TOLERANCE` levels off `background`.
    """
    shown: Mask = np.zeros(pixels.shape[:-1], bool)
    for channel, level in enumerate(background):
        values = pixels[..., channel]
        shown |= values > min(level + TOLERANCE, 255)
        shown |= values < max(level - TOLERANCE, 0)
    return shown


def border_share(mask: Mask) -> npt.NDArray[np.float64]:
    """The share of background among the outermost pixels of masks [..., H, W]: [...], 0 to 1."""
    height, width = mask.shape[-2:]
    if min(height, width) < 3:
        return 1 - _mean(mask.reshape(*mask.shape[:-2], -1))
    sides = (mask[..., 0, :], mask[..., -1, :], mask[..., 1:-1, 0], mask[..., 1:-1, -1])
    return 1 - _mean(np.concatenate(sides, axis=-1))


def picture_border_share(picture: Image.Image, background: RGB) -> float:
    """`border_share` of an RGB picture of any size, without a copy of all of it."""
    width, height = picture.size
    lines = [(0, 0, width, 1), (0, height - 1, width, height)]
    lines += [(0, 0, 1, height), (width - 1, 0, width, height)]
    sides = [np.asarray(picture.crop(box)).reshape(-1, 3) for box in lines]
    return 1 - float(foreground(np.concatenate(sides), background).mean())


def picture_foreground(picture: Image.Image, background: RGB) -> float:
    """The share of an RGB picture that is `foreground`, 0 to 1."""
    return float(foreground(np.asarray(picture), background).mean())


def _mean(mask: Mask) -> npt.NDArray[np.float64]:
    mean: npt.NDArray[Any] = np.asarray(mask.mean(axis=-1))
    return mean
