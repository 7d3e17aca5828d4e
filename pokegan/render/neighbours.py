"""Generated pictures above the training pictures that they are nearest to."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

INK = (40, 44, 52)
ALARM = (196, 30, 40)
PAPER = (255, 255, 255)
LEAST = 96  # px of a picture on the sheet, so that its caption has room
COLUMNS = 8
_GAP = 6
_CAPTION = 14


class Pair(NamedTuple):
    """A generated picture, the training picture nearest to it, and how near.

    Attributes:
        sample: [S, S, 3] uint8.
        nearest: [S, S, 3] uint8.
        caption: written below.
        copied: whether it counts as a copy: caption and frame are red then.
    """

    sample: NDArray[np.uint8]
    nearest: NDArray[np.uint8]
    caption: str
    copied: bool


def make_pairs_sheet(pairs: Sequence[Pair], columns: int = COLUMNS) -> NDArray[np.uint8]:
    """Return [H, W, 3] uint8: each sample above its nearest picture and its caption, row by row.

    Pictures below 96 px are enlarged by a whole factor, without smoothing.

    Raises:
        ValueError: there is no pair.
    """
    if not pairs:
        raise ValueError("a sheet of no pairs")
    factor = math.ceil(LEAST / len(pairs[0].sample))
    side = factor * len(pairs[0].sample)
    columns = min(columns, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    across, down = side + _GAP, 2 * side + _CAPTION + 2 * _GAP
    sheet = Image.new("RGB", (columns * across + _GAP, rows * down + _GAP), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for index, pair in enumerate(pairs):
        left, top = index % columns * across + _GAP, index // columns * down + _GAP
        colour = ALARM if pair.copied else INK
        for place, picture in enumerate((pair.sample, pair.nearest)):
            large = picture.repeat(factor, axis=0).repeat(factor, axis=1)
            sheet.paste(Image.fromarray(large), (left, top + place * side))
        if pair.copied:
            draw.rectangle((left - 2, top - 2, left + side + 1, top + 2 * side + 1), None, ALARM, 2)
        draw.text((left, top + 2 * side + 2), pair.caption, colour, font)
    return np.asarray(sheet)


def read_pairs_sheet(
    sheet: NDArray[np.uint8], count: int
) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Return the (sample, nearest) pictures of a sheet [H, W, 3] of `count` pairs, in order.

    They are as large as on the sheet.

    Raises:
        ValueError: no sheet of so many pairs has this size.
    """
    columns = max(1, min(COLUMNS, count))
    rows = math.ceil(count / columns)
    across = (sheet.shape[1] - _GAP) // columns
    side, down = across - _GAP, 2 * (across - _GAP) + _CAPTION + 2 * _GAP
    if sheet.shape[:2] != (rows * down + _GAP, columns * across + _GAP) or count < 1:
        raise ValueError(f"no sheet of {count} pairs is {sheet.shape[1]} x {sheet.shape[0]} px")
    found = []
    for index in range(count):
        left, top = index % columns * across + _GAP, index // columns * down + _GAP
        pair = sheet[top : top + 2 * side, left : left + side]
        found.append((pair[:side], pair[side:]))
    return found
