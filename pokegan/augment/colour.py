"""Colour changes of whole batches, one factor a picture, without branches a pixel.

The definitions are those of torchvision's `adjust_*`, clamps between the changes included: on
art with a white background, most of a brightened picture would otherwise leave [0, 1] and pull
the mean that contrast is taken about. One thing differs: luma has the weights of ITU-R BT.601
that sum to 1 (torchvision's red weight is 0.2989), so that greys stay what they are.
"""

import torch
from torch import Tensor

from pokegan.augment.layout import per_picture

_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114
_SMALLEST = 1e-12  # of a chroma that has a hue; below, the hue is arbitrary and has no effect


def adjust_brightness(pictures: Tensor, factor: Tensor) -> Tensor:
    """Multiply each picture by its factor, in place.

    Args:
        pictures: [N, 3, H, W] in [0, 1], float32 or float64; changed.
        factor: [N] in [0, inf).

    Returns:
        `pictures`, clamped to [0, 1].
    """
    return pictures.mul_(per_picture(factor, pictures)).clamp_(0, 1)


def adjust_contrast(pictures: Tensor, factor: Tensor) -> Tensor:
    """Scale each picture's distance to its mean luma, in place.

    The arguments and the result are those of `adjust_brightness`.
    """
    red, green, blue = pictures.mean((2, 3)).unbind(1)  # [N] each
    mean = _RED * red + _GREEN * green + _BLUE * blue
    rest = (1 - factor.to(pictures.dtype)) * mean
    return pictures.mul_(per_picture(factor, pictures)).add_(rest.view(-1, 1, 1, 1)).clamp_(0, 1)


def adjust_saturation(pictures: Tensor, factor: Tensor) -> Tensor:
    """Scale each pixel's distance to its luma, in place.

    The arguments and the result are those of `adjust_brightness`.
    """
    red, green, blue = pictures.chunk(3, dim=1)
    luma = red.mul(_RED).add_(green, alpha=_GREEN).add_(blue, alpha=_BLUE)  # [N, 1, H, W]
    luma.mul_(1 - per_picture(factor, pictures))
    return pictures.mul_(per_picture(factor, pictures)).add_(luma).clamp_(0, 1)


def adjust_hue(pictures: Tensor, shift: Tensor) -> Tensor:
    """Turn each pixel's hue in HSV, keeping its saturation and value.

    With V the largest channel, v the smallest and C = V - v, the hue's distance from red in sixths
    of the circle is (V - 2 v - R + G + B) / C, on green's side where G > B. Channel n of (5, 3, 1)
    is V - C clamp(2 - |k - 2|, 0, 1), where k is n plus the new hue in sixths, modulo 6.

    Args:
        pictures: [N, 3, H, W] in [0, 1], float32 or float64.
        shift: [N] in [-1/2, 1/2], part of the colour circle.

    Returns:
        Like `pictures`.
    """
    red, green, blue = pictures.chunk(3, dim=1)
    value = torch.maximum(torch.maximum(red, green), blue)  # [N, 1, H, W]
    lowest = torch.minimum(torch.minimum(red, green), blue)
    chroma = value - lowest
    sixths = (green + blue).sub_(red).add_(value).sub_(lowest, alpha=2)
    sixths.div_(chroma.clamp(min=_SMALLEST)).copysign_(green - blue)  # [-3, 3]
    channels = torch.arange(5, 0, -2, device=pictures.device).to(pictures.dtype).view(1, 3, 1, 1)
    # [N, 3, 1, 1] in turns of the circle; one more keeps what frac_ sees positive.
    turns = channels / 6 + per_picture(shift, pictures) + 1
    place = (sixths.div_(6) + turns).frac_()  # [N, 3, H, W], k / 6
    # -clamp(2 - |k - 2|, 0, 1) / 6
    weight = place.sub_(1 / 3).abs_().sub_(1 / 3).clamp_(-1 / 6, 0)
    return torch.addcmul(value, weight, chroma, value=6)
