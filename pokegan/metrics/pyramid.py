"""The Laplacian pyramid (Burt and Adelson, 1983): a picture by bands of detail."""

import torch
from torch import Tensor
from torch.nn import functional

LEAST = 16  # px of the coarsest level
_TAPS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def levels(size: int) -> list[int]:
    """Return the sides of the levels for pictures of `size` px, halved while 16 px or more."""
    sides = [size]
    while sides[-1] % 2 == 0 and sides[-1] // 2 >= LEAST:
        sides.append(sides[-1] // 2)
    return sides


def laplacian(images: Tensor) -> list[Tensor]:
    """Return the bands of images [N, C, S, S], finest first; the last is what remains, blurred.

    A band is a level less what its half-sized blur says of it, so they add up to the picture.
    """
    bands = []
    for _ in levels(images.shape[-1])[1:]:
        smaller = shrink(images)
        bands.append(images - grow(smaller))
        images = smaller
    return [*bands, images]


def shrink(images: Tensor) -> Tensor:
    """Return [N, C, S/2, S/2]: blurred by the binomial of 5 x 5, mirrored at the edges."""
    return _blurred(images)[..., ::2, ::2]


def grow(images: Tensor) -> Tensor:
    """Return [N, C, 2S, 2S]: zeros between the pixels, then the same blur, four times as strong."""
    n, channels, height, width = images.shape
    wide = images.new_zeros(n, channels, 2 * height, 2 * width)
    wide[..., ::2, ::2] = images
    return _blurred(wide).mul_(4)


def _blurred(images: Tensor) -> Tensor:
    channels = images.shape[1]
    taps = torch.tensor(_TAPS, dtype=images.dtype, device=images.device)
    for kernel in (taps.view(1, 1, 5, 1), taps.view(1, 1, 1, 5)):
        padding = [2, 2, 0, 0] if kernel.shape[-1] == 5 else [0, 0, 2, 2]
        padded = functional.pad(images, padding, mode="reflect")
        images = functional.conv2d(padded, kernel.expand(channels, 1, -1, -1), groups=channels)
    return images
