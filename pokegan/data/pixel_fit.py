"""Decoded pixels to prepared squares, as `square.fit` does it, in a fraction of its time.

Torch resizes bytes by vector instructions, which Pillow does not. Where torch cannot do Lanczos (up
to 2.14), and for the centres of pictures that are not square, it is Pillow that resizes.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pokegan.data.decode import composite
from pokegan.data.geometry import pad_geometry
from pokegan.data.options import RGB
from pokegan.data.square import fit


def fit_pixels(pixels: Tensor, size: int, mode: str, background: RGB) -> Tensor:
    """Bring upright pictures of one shape to squares: composite, fit by `mode`, resize.

    Args:
        pixels: [N, H, W, 3], or [N, H, W, 4] with straight alpha, uint8 on the CPU.
        size: side of the squares in px.
        mode: "pad" or "crop".
        background: under transparent pixels and around the pictures.

    Returns:
        [N, size, size, 3] uint8, within 1 level of what `square.fit` gives for pictures up to 8
        times the square.
    """
    count, height, width, channels = pixels.shape
    if channels == 4:
        pixels = _on(background, pixels)
    if not _HAS_LANCZOS or (mode == "crop" and width != height):  # Pillow looks beyond the box
        pictures = [Image.fromarray(picture) for picture in pixels.numpy()]
        squares = [np.asarray(fit(picture, size, mode, background)) for picture in pictures]
        return torch.from_numpy(np.stack(squares))
    fitted_width, fitted_height, left, top = pad_geometry(width, height, size)
    scaled = _resized(pixels, fitted_height, fitted_width)
    if (fitted_width, fitted_height) == (size, size):
        return scaled
    canvas = torch.tensor(background, dtype=torch.uint8).repeat(count, size, size, 1)
    canvas[:, top : top + fitted_height, left : left + fitted_width] = scaled
    return canvas


def _on(background: RGB, pixels: Tensor) -> Tensor:
    """[N, H, W, 4] to [N, H, W, 3], by Pillow's arithmetic, as one tall picture."""
    count, height, width, _ = pixels.shape
    tall = Image.fromarray(pixels.reshape(count * height, width, 4).numpy())
    opaque = torch.from_numpy(np.array(composite(tall, background)))
    return opaque.view(count, height, width, 3)


def _resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """[N, H, W, 3] to [N, height, width, 3], by the filters of `square.fit`."""
    if (height, width) == pixels.shape[1:3]:
        return pixels
    method = "bicubic" if width > pixels.shape[2] else "lanczos"
    planes = pixels.permute(0, 3, 1, 2)  # channels_last, for which the fast kernels are
    resized = F.interpolate(planes, (height, width), mode=method, antialias=True)
    return resized.permute(0, 2, 3, 1)


def _has_lanczos() -> bool:
    probe = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    try:
        F.interpolate(probe, (2, 2), mode="lanczos", antialias=True)
    except (NotImplementedError, ValueError, RuntimeError):
        return False
    return True


_HAS_LANCZOS = _has_lanczos()
