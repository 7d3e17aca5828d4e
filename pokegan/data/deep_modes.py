"""Pixel formats beyond 8 bits, and alpha that Pillow does not see: the rare part of `modes.py`."""

import io
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from pokegan.data.refusals import DecodeError

Values: TypeAlias = npt.NDArray[Any]

_BITS_PER_SAMPLE = 258
_PHOTOMETRIC = 262
_SAMPLE_FORMAT = 339
_UNSIGNED = 1
_WHITE_IS_ZERO = 0
_OVERSHOOT = 2.0  # sharpening and resampling carry floating point beyond white
_ALPHA_SHARE = 0.02
_PIECE = 1 << 20  # values that are worked on together


def from_wide(image: Image.Image, kind: str) -> Image.Image:
    """Grey of 12, 16 or 32 bits or floating point, to RGB, or RGBA with one transparent value."""
    values: Values = np.asarray(image)
    if kind == "TIFF" and image.mode == "I":
        unsigned = _tiff_tag(image, _SAMPLE_FORMAT) in (None, _UNSIGNED)
        values = values.view(np.uint32) if unsigned else values  # Pillow knows no unsigned mode
    grey = _scale_16(image, values) if _is_16(image, kind) else _scale_by_range(image, values)
    if kind == "TIFF" and _tiff_tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = ~grey
    plain = Image.fromarray(grey).convert("RGB")
    key = image.info.get("transparency")
    if isinstance(key, int):
        plain.putalpha(Image.fromarray(np.where(values == key, np.uint8(0), np.uint8(255))))
    return plain


def deep_colour_key(image: Image.Image, content: bytes) -> Image.Image | None:
    """The alpha of an RGB PNG of 16 bits with a transparent colour (tRNS); None for any other.

    Pillow keeps the high bytes only. A second look at the file unpacks the low ones: two colours
    that differ in them alone are not the same.
    """
    key = image.info.get("transparency")
    if image.mode != "RGB" or not isinstance(key, tuple) or content[24] != 16:
        return None
    del image.info["transparency"]
    with Image.open(io.BytesIO(content), formats=("PNG",)) as low:
        low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
        low.load()
        deep = np.asarray(image).astype(np.uint16) << 8 | np.asarray(low)  # [H, W, 3]
    return Image.fromarray(np.where((deep == key).all(axis=-1), np.uint8(0), np.uint8(255)))


def hidden_bmp_alpha(content: bytes, size: tuple[int, int]) -> Image.Image | None:
    """The fourth byte of the pixels of a plain 32-bit BMP, where it is used as alpha.

    By the letter that byte is padding, and Pillow drops it; in practice it is constant, alpha, or
    left as it was found in memory. None where it is constant or hardly ever used, or the file is of
    another kind.
    """
    width, height = size
    if len(content) < 54:
        return None
    offset, header = struct.unpack_from("<II", content, 10)
    signed_height, _, bits, compression = struct.unpack_from("<iHHI", content, 22)
    if header < 40 or bits != 32 or compression != 0 or len(content) < offset + 4 * width * height:
        return None
    pixels = np.frombuffer(content, np.uint8, 4 * width * height, offset)
    alpha = pixels.reshape(height, width, 4)[..., 3]
    if alpha.min() == alpha.max() or np.count_nonzero(alpha) < _ALPHA_SHARE * alpha.size:
        return None
    return Image.fromarray(np.ascontiguousarray(alpha[::-1] if signed_height > 0 else alpha))


def _is_16(image: Image.Image, kind: str) -> bool:
    return image.mode.startswith("I;16") or (kind == "PNG" and image.mode == "I")


def _scale_16(image: Image.Image, values: Values) -> npt.NDArray[np.uint8]:
    """16-bit grey by v / 257; 12-bit grey, which only TIFF knows, by v * 255 / 4095. Rounded."""
    white = 4095 if _tiff_tag(image, _BITS_PER_SAMPLE) == 12 else 65535
    table = np.rint(np.minimum(np.arange(65536) * (255 / white), 255)).astype(np.uint8)
    return _by_rows(values, lambda rows: table[rows])


def _scale_by_range(image: Image.Image, values: Values) -> npt.NDArray[np.uint8]:
    """32-bit and floating point grey, whose white no header tells.

    White is the smallest of 1 (floating point only), 255, 65535 and 2^32 - 1 that is not below the
    brightest pixel, which in floating point may be up to twice as bright as white; negative values
    are black.
    """
    if not np.isfinite(values).all():
        raise DecodeError("damaged: pixels that are no numbers")
    whites, slack = [255.0, 65535.0, 2.0**32 - 1], 1.0
    if image.mode == "F":
        whites, slack = [1.0, *whites], _OVERSHOOT
    white = next((white for white in whites if values.max() <= slack * white), None)
    if white is None:
        raise DecodeError("damaged: floating point values beyond any known range")
    return _by_rows(values, lambda rows: np.rint(_scaled(rows, white)))


def _scaled(rows: Values, white: float) -> npt.NDArray[np.float32]:
    clipped: npt.NDArray[np.float32] = np.clip(rows.astype(np.float32), 0, white)
    clipped *= np.float32(255 / white)
    return clipped


def _by_rows(values: Values, change: Callable[[Values], Values]) -> npt.NDArray[np.uint8]:
    """`change` of [H, W] values as uint8, a few rows at a time: of a large picture, one copy."""
    out = np.empty(values.shape, np.uint8)
    step = max(1, _PIECE // max(1, values.shape[1]))
    for start in range(0, len(values), step):
        out[start : start + step] = change(values[start : start + step])
    return out


def _tiff_tag(image: Image.Image, tag: int) -> int | None:
    tags = getattr(image, "tag_v2", None)
    value = tags.get(tag) if tags is not None else None
    return value[0] if isinstance(value, tuple) else value
