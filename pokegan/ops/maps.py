"""Feature maps put together in one pass over memory, and colours mixed by their scores.

On the CPU kernels do what PyTorch needs two to four passes for; elsewhere, and in compiled code,
the same is written in PyTorch's operators, which a compiler fuses. All are linear in their maps but
`mix_colours`, whose gradient cannot be differentiated again.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pokegan.ops.conv_gradients import channels_last
from pokegan.ops.extension import status

_USE = status()  # fixed for the process, so a compiled function sees a constant
_DTYPES = (torch.float32, torch.bfloat16)
MAX_COLOURS = 64


def shuffle_cat(maps: Tensor, everywhere: Tensor, before: int = 0, after: int = 0) -> Tensor:
    """Return the pixel shuffle (arXiv 1609.05158) of maps and of values that are everywhere.

    Args:
        maps: [N, 4 C, H, W].
        everywhere: [N, 4 E] values that each pixel of the maps has besides, of the same dtype.
        before: rows of zeros above and columns left of the result.
        after: the same below and right.

    Returns:
        [N, C + E, before + 2 H + after, before + 2 W + after] of the maps' dtype, channels_last:
        `F.pad(F.pixel_shuffle(torch.cat((maps, everywhere at every pixel), 1), 2), ...)`.

    Raises:
        RuntimeError: an argument has the wrong shape or range.
    """
    if _takes(maps, everywhere):
        out: Tensor = torch.ops.pokegan.shuffle_cat(channels_last(maps), everywhere, before, after)
        return out
    return shuffle_cat_reference(maps, everywhere, before, after)


def shuffle_cat_reference(
    maps: Tensor, everywhere: Tensor, before: int = 0, after: int = 0
) -> Tensor:
    """Do what `shuffle_cat` does, in plain PyTorch; `F.pixel_shuffle` is not channels_last."""
    if everywhere.shape[1]:
        spread = everywhere[:, :, None, None].expand(-1, -1, *maps.shape[2:])
        maps = torch.cat((maps, spread), 1)
    n, channels, height, width = maps.shape
    parts = maps.view(n, channels // 4, 2, 2, height, width).permute(0, 4, 2, 5, 3, 1)
    joined = parts.reshape(n, 2 * height, 2 * width, channels // 4).permute(0, 3, 1, 2)
    return F.pad(joined, (before, after, before, after))


def upsample_cat(maps: Tensor, skip: Tensor) -> Tensor:
    """Return maps at twice their side (nearest neighbour), with others behind their channels.

    Args:
        maps: [N, C, H, W].
        skip: [N, S, 2 H, 2 W] of the same dtype.

    Returns:
        [N, C + S, 2 H, 2 W]; channels_last by the kernel, else where both inputs are.

    Raises:
        RuntimeError: an argument has the wrong shape.
    """
    if _takes(maps, skip):
        out: Tensor = torch.ops.pokegan.upsample_cat(channels_last(maps), channels_last(skip))
        return out
    return upsample_cat_reference(maps, skip)


def upsample_cat_reference(maps: Tensor, skip: Tensor) -> Tensor:
    """Do what `upsample_cat` does, in plain PyTorch."""
    return torch.cat((F.interpolate(maps, scale_factor=2.0, mode="nearest"), skip), 1)


def mix_colours(scores: Tensor, palettes: Tensor) -> Tensor:
    """Mix colours by the softmax of their scores, pixel by pixel.

    Args:
        scores: [N, K, H, W].
        palettes: [N, 3, K], K colours for each picture, of the same dtype.

    Returns:
        [N, 3, H, W], channels_last. The kernel computes in float32 and rounds once; its gradient
        cannot be differentiated again.

    Raises:
        RuntimeError: an argument has the wrong shape.
    """
    if _takes(scores, palettes) and 1 <= scores.shape[1] <= MAX_COLOURS:
        out: Tensor = torch.ops.pokegan.mix_colours(channels_last(scores), palettes)
        return out
    return mix_colours_reference(scores, palettes)


def mix_colours_reference(scores: Tensor, palettes: Tensor) -> Tensor:
    """Do what `mix_colours` does, in plain PyTorch.

    One softmax over the fastest dimension and one batched product.
    """
    shares = scores.permute(0, 2, 3, 1).softmax(-1)  # [N, H, W, K]
    mixed = shares.flatten(1, 2).matmul(palettes.mT)  # [N, H W, 3]
    return mixed.view(*shares.shape[:3], 3).permute(0, 3, 1, 2)


def _takes(maps: Tensor, other: Tensor) -> bool:
    return (
        _USE.cpu
        and maps.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and maps.dtype in _DTYPES
        and other.dtype == maps.dtype
        and maps.dim() == 4
    )


if _USE.cpu:
    _ops = torch.ops.pokegan

    def _setup_shuffle(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _maps, everywhere, *ctx.border = inputs
        ctx.count = everywhere.shape[1]

    def _shuffle_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        maps, everywhere = _ops.shuffle_cat_backward(
            channels_last(gradient), ctx.count, *ctx.border
        )
        return maps, everywhere, None, None

    def _setup_unshuffle(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _gradient, _count, *ctx.border = inputs

    def _unshuffle_backward(ctx: Any, maps: Tensor, everywhere: Tensor) -> tuple[Any, ...]:
        gradient = _ops.shuffle_cat(channels_last(maps), everywhere, *ctx.border)
        return gradient, None, None, None

    def _setup_upsample(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.count = inputs[1].shape[1]

    def _upsample_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        maps, skip = _ops.upsample_cat_backward(channels_last(gradient), ctx.count)
        return maps, skip

    def _downsample_backward(ctx: Any, maps: Tensor, skip: Tensor) -> tuple[Any, ...]:
        return _ops.upsample_cat(channels_last(maps), channels_last(skip)), None

    def _setup_mix(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    def _mix_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        by_scores, by_palettes = _ops.mix_colours_backward(
            channels_last(gradient), *ctx.saved_tensors
        )
        return by_scores, by_palettes

    def _nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    for _name, _setup, _backward in (
        ("shuffle_cat", _setup_shuffle, _shuffle_backward),
        ("shuffle_cat_backward", _setup_unshuffle, _unshuffle_backward),
        ("upsample_cat", _setup_upsample, _upsample_backward),
        ("upsample_cat_backward", _nothing, _downsample_backward),
        ("mix_colours", _setup_mix, _mix_backward),
    ):
        torch.library.register_autograd(f"pokegan::{_name}", _backward, setup_context=_setup)
