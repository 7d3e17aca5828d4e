"""What every augmentation does before and after: precision, memory format, background."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pokegan.errors import ConfigError


def widened(pictures: Tensor) -> Tensor:
    """Return `pictures` contiguous, in float32 or wider; the input itself where it is so."""
    wide = torch.promote_types(pictures.dtype, torch.float32)
    if pictures.is_contiguous():
        return pictures.to(wide)
    return pictures.to(wide, memory_format=torch.contiguous_format)  # one copy, not two


def restored(values: Tensor, pictures: Tensor) -> Tensor:
    """Return `values` in the dtype of `pictures`, channels_last where `pictures` is."""
    interleaved = not pictures.is_contiguous() and pictures.is_contiguous(
        memory_format=torch.channels_last
    )
    memory = torch.channels_last if interleaved else torch.contiguous_format
    return values.to(pictures.dtype, memory_format=memory)


def per_picture(parameter: Tensor, values: Tensor) -> Tensor:
    """Return the [N] `parameter` as [N, 1, 1, 1] in the dtype of `values` [N, C, H, W]."""
    return parameter.to(values.dtype).view(-1, 1, 1, 1)


def levels(background: Sequence[int], values: Tensor) -> Tensor:
    """Return the RGB bytes `background` in [-1, 1], [1, 3, 1, 1] in the dtype of `values`."""
    # Filled on the device: a tensor made from a list would wait for a copy from the host.
    return torch.cat(
        [values.new_full((1, 1, 1, 1), level / 127.5 - 1.0) for level in background], dim=1
    )


def checked_background(background: Sequence[int]) -> tuple[int, int, int]:
    """Return `background` as a tuple.

    Raises:
        ConfigError: it is not three bytes.
    """
    if len(background) != 3 or not all(0 <= level <= 255 for level in background):
        raise ConfigError(f"background {tuple(background)}: give red, green and blue in 0 to 255")
    red, green, blue = background
    return int(red), int(green), int(blue)
