"""Convolutions that sum, while they write, what a batch norm would read their result again for.

Forwards these are the moments of the norm behind a convolution; backwards, where a convolution
makes the gradient of a norm and its activation, the gradients by the norm's weight and bias. Maps
have the bits of `conv2d_bf16` and `conv_transpose2d_bf16`. Sums are in an order that shapes alone
fix: the same bits for any count of threads.
"""

from typing import Any

import torch
from torch import Tensor

from pokegan.ops.batch_norm_act import batch_norm_act_sums, batch_norm_moments
from pokegan.ops.conv import BF16, conv2d_bf16, conv_transpose2d_bf16, is_compiled
from pokegan.ops.conv_gradients import (
    Convolution,
    Winograd,
    channels_last,
    fake_conv,
    fake_transposed,
)
from pokegan.ops.extension import status

_ops = torch.ops.pokegan


def conv2d_moments_bf16(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    units: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return what `conv2d_bf16` does, and what `batch_norm_moments` makes of that.

    The moments are of the values as they are written, and have no gradient: that through them is
    `batch_norm_act_backward`'s.

    Args are those of `conv2d_bf16`, and its errors.

    Returns:
        [N, O, ...] bfloat16, channels_last; [2, O] float32, means and variances.
    """
    if not is_compiled(input) or torch.compiler.is_compiling():
        out = conv2d_bf16(input, weight, bias, stride, padding, units)
        return out, batch_norm_moments(out.detach())
    return _with_moments(False, input, weight, bias, (stride, padding, units))


def conv_transpose2d_moments_bf16(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    output_padding: tuple[int, int] = (0, 0),
    units: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return what `conv_transpose2d_bf16` does, and the moments as `conv2d_moments_bf16`.

    Args are those of `conv_transpose2d_bf16`, and its errors.

    Returns:
        [N, C, ...] bfloat16, channels_last; [2, C] float32, means and variances.
    """
    if not is_compiled(input) or torch.compiler.is_compiling():
        out = conv_transpose2d_bf16(input, weight, bias, stride, padding, output_padding, units)
        return out, batch_norm_moments(out.detach())
    return _with_moments(True, input, weight, bias, (stride, padding, list(output_padding), units))


def conv2d_norm_sums_bf16(
    input: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    maps: Tensor,
    moments: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    slope: float,
    units: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return what `conv2d_bf16` does, and what `batch_norm_act_sums` makes of that.

    It is the gradient of a transposed convolution by its input, which is act(norm(maps)). Neither
    result has a gradient.

    Args:
        input: [N, C, H, W] bfloat16.
        weight: [O, C, KH, KW] as in `conv2d_bf16`.
        stride: as there.
        padding: as there.
        maps: like the result, bfloat16.
        moments: [2, O] float32, means and variances of the maps.
        norm_weight: [O] float32; None is 1.
        norm_bias: [O] float32; None is 0.
        eps: is added to the variances.
        slope: of the activation below 0.
        units: as in `conv2d_bf16`.

    Returns:
        [N, O, ...] bfloat16, channels_last; [2, O] float32, the gradients by norm_weight and
        norm_bias.

    Raises:
        RuntimeError: an argument has the wrong dtype, shape or range.
    """
    norm = (moments, norm_weight, norm_bias, eps, slope)
    with torch.no_grad():
        if not is_compiled(input):
            out = conv2d_bf16(input, weight, None, stride, padding)
            return out, batch_norm_act_sums(out, maps, *norm)
        both = channels_last(input), channels_last(weight)
        numbers = (stride, padding, channels_last(maps), *norm, units)
        result: tuple[Tensor, Tensor] = _ops.conv2d_norm_sums_bf16(*both, *numbers)
    return result


def conv_transpose2d_norm_sums_bf16(
    input: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    output_padding: tuple[int, int],
    maps: Tensor,
    moments: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    slope: float,
    units: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return what `conv_transpose2d_bf16` does, and the sums as `conv2d_norm_sums_bf16`.

    It is the gradient of a convolution by its input, which is act(norm(maps)).

    Args are those of `conv_transpose2d_bf16` and of `conv2d_norm_sums_bf16`, and their errors.

    Returns:
        [N, C, ...] bfloat16, channels_last; [2, C] float32, the gradients by norm_weight and
        norm_bias.
    """
    norm = (moments, norm_weight, norm_bias, eps, slope)
    with torch.no_grad():
        if not is_compiled(input):
            out = conv_transpose2d_bf16(input, weight, None, stride, padding, output_padding)
            return out, batch_norm_act_sums(out, maps, *norm)
        both = channels_last(input), channels_last(weight)
        numbers = (stride, padding, list(output_padding), channels_last(maps), *norm, units)
        result: tuple[Tensor, Tensor] = _ops.conv_transpose2d_norm_sums_bf16(*both, *numbers)
    return result


def _with_moments(
    transposed: bool, input: Tensor, weight: Tensor, bias: Tensor | None, numbers: tuple[Any, ...]
) -> tuple[Tensor, Tensor]:
    both = channels_last(input), channels_last(weight)
    out: tuple[Tensor, Tensor] = Convolution.apply(
        *both, bias, BF16, transposed, numbers, Winograd(), True
    )
    return out


def _and_sums(maps: Tensor) -> tuple[Tensor, Tensor]:
    return maps, maps.new_empty((2, maps.shape[1]), dtype=torch.float32)


if status().cpu:

    @torch.library.register_fake("pokegan::conv2d_moments_bf16")  # type: ignore[untyped-decorator]  # torch's
    def _fake_moments(*arguments: Any) -> tuple[Tensor, Tensor]:
        return _and_sums(fake_conv(*arguments))

    @torch.library.register_fake("pokegan::conv_transpose2d_moments_bf16")  # type: ignore[untyped-decorator]  # torch's
    def _fake_transposed_moments(*arguments: Any) -> tuple[Tensor, Tensor]:
        return _and_sums(fake_transposed(*arguments))

    @torch.library.register_fake("pokegan::conv2d_norm_sums_bf16")  # type: ignore[untyped-decorator]  # torch's
    def _fake_sums(input: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        return _and_sums(fake_conv(input, weight, None, *rest))

    @torch.library.register_fake("pokegan::conv_transpose2d_norm_sums_bf16")  # type: ignore[untyped-decorator]  # torch's
    def _fake_transposed_sums(input: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        return _and_sums(fake_transposed(input, weight, None, *rest))
