"""Convolutions of bfloat16 feature maps, as matrix products on the processor's bfloat16 units.

A convolution makes y of x and w, a transposed one x of y and w, and the gradient by the weight w of
x and y. All three are bilinear and each is the gradient of the others, so they may be
differentiated as often as wanted. Sums are in float32; the same bits for any count of threads.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pokegan.ops.extension import status

_USE = status()  # fixed for the process, so a compiled function sees a constant
_UNITS = ("none", "AVX512-BF16", "AMX")
MAX_KERNEL = 16


def _widest() -> int:
    return int(torch.ops.pokegan.conv_units()) if _USE.cpu else 0


_WIDEST = _widest()


def conv_units() -> str:
    """Return what the kernels run on: `AMX`, `AVX512-BF16`, or `none`: the reference is used."""
    return _UNITS[_WIDEST]


def conv2d_bf16(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    units: int = 0,
) -> Tensor:
    """Return the convolution (cross-correlation) of `input` with `weight`, as `F.conv2d` does.

    Args:
        input: [N, C, H, W] bfloat16.
        weight: [O, C, KH, KW] float32 or bfloat16, KH and KW at most 16; float32 is rounded to
            bfloat16 on the way, its gradient is not.
        bias: [O] float32 or bfloat16.
        stride: at least 1.
        padding: zeros on every side, at least 0.
        units: 0 the widest that the processor has, 1 AVX512-BF16, 2 AMX.

    Returns:
        [N, O, (H + 2 padding - KH) // stride + 1, ...] bfloat16, channels_last.

    Raises:
        RuntimeError: an argument has the wrong dtype, shape or range.
    """
    if not _is_compiled(input):
        return _reference(F.conv2d, input, weight, bias, stride, padding)
    out: Tensor = torch.ops.pokegan.conv2d_bf16(
        _channels_last(input), _channels_last(weight), bias, stride, padding, units
    )
    return out


def conv_transpose2d_bf16(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    output_padding: tuple[int, int] = (0, 0),
    units: int = 0,
) -> Tensor:
    """Return the transposed convolution of `input` with `weight`, as `F.conv_transpose2d` does.

    Args:
        input: [N, O, H, W] bfloat16.
        weight: [O, C, KH, KW] as in `conv2d_bf16`, whose gradient by its input this is.
        bias: [C] float32 or bfloat16.
        stride: at least 1.
        padding: of that convolution, at least 0.
        output_padding: further rows and columns, each in [0, stride).
        units: as in `conv2d_bf16`.

    Returns:
        [N, C, (H - 1) stride - 2 padding + KH + output_padding, ...] bfloat16, channels_last.

    Raises:
        RuntimeError: an argument has the wrong dtype, shape or range.
    """
    if not _is_compiled(input):
        return _reference(F.conv_transpose2d, input, weight, bias, stride, padding, output_padding)
    out: Tensor = torch.ops.pokegan.conv_transpose2d_bf16(
        _channels_last(input),
        _channels_last(weight),
        bias,
        stride,
        padding,
        list(output_padding),
        units,
    )
    return out


def _is_compiled(input: Tensor) -> bool:
    return _WIDEST > 0 and input.device.type == "cpu"


def _channels_last(tensor: Tensor) -> Tensor:
    if tensor.dim() != 4:
        return tensor  # the operator says what is wrong
    return tensor.contiguous(memory_format=torch.channels_last)


def _reference(operator: Any, input: Tensor, weight: Tensor, bias: Any, *numbers: Any) -> Tensor:
    """Do what the operators do, in plain PyTorch: float32 sums of bfloat16 values."""
    if input.dtype != torch.bfloat16:
        raise RuntimeError(f"{operator.__name__}_bf16: input must be bfloat16")
    rounded = weight.to(torch.bfloat16).float()
    with torch.autocast(input.device.type, enabled=False):
        wide: Tensor = operator(
            input.float(), rounded, None if bias is None else bias.float(), *numbers
        )
    return wide.to(torch.bfloat16, memory_format=torch.channels_last)


def _output_padding(size: Tensor, small: Tensor, kernel: Any, stride: int, padding: int) -> Any:
    """Return what a transposed convolution of `small` needs to reach the size of `size`."""
    return [
        size.shape[axis] - ((small.shape[axis] - 1) * stride - 2 * padding + kernel[axis - 2])
        for axis in (2, 3)
    ]


def _bias_gradient(gradient: Tensor, dtype: torch.dtype) -> Tensor:
    return gradient.sum((0, 2, 3), dtype=torch.float32).to(dtype)


if _USE.cpu:
    _ops = torch.ops.pokegan

    def _empty(like: Tensor, n: int, c: int, h: int, w: int, dtype: torch.dtype) -> Tensor:
        return like.new_empty_strided((n, c, h, w), (h * w * c, 1, w * c, c), dtype=dtype)

    @torch.library.register_fake("pokegan::conv2d_bf16")  # type: ignore[untyped-decorator]  # torch's
    def _fake_conv(
        input: Tensor, weight: Tensor, bias: Any, stride: int, padding: int, units: int = 0
    ) -> Tensor:
        height, width = (
            (input.shape[axis] + 2 * padding - weight.shape[axis]) // stride + 1 for axis in (2, 3)
        )
        return _empty(input, input.shape[0], weight.shape[0], height, width, input.dtype)

    @torch.library.register_fake("pokegan::conv_transpose2d_bf16")  # type: ignore[untyped-decorator]  # torch's
    def _fake_transposed(
        input: Tensor,
        weight: Tensor,
        bias: Any,
        stride: int,
        padding: int,
        output_padding: list[int],
        units: int = 0,
    ) -> Tensor:
        height, width = (
            (input.shape[axis] - 1) * stride - 2 * padding + weight.shape[axis] + more
            for axis, more in zip((2, 3), output_padding, strict=True)
        )
        return _empty(input, input.shape[0], weight.shape[1], height, width, input.dtype)

    @torch.library.register_fake("pokegan::conv2d_weight_bf16")  # type: ignore[untyped-decorator]  # torch's
    def _fake_weight(
        large: Tensor,
        small: Tensor,
        kernel: list[int],
        stride: int,
        padding: int,
        dtype: torch.dtype,
        units: int = 0,
    ) -> Tensor:
        return _empty(large, small.shape[1], large.shape[1], kernel[0], kernel[1], dtype)

    def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        input, weight, bias, ctx.stride, ctx.padding, *_, ctx.units = inputs
        ctx.save_for_backward(input, weight)
        ctx.bias_dtype = None if bias is None else bias.dtype

    def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        gradient = _channels_last(gradient)
        numbers, kernel = (ctx.stride, ctx.padding), weight.shape[2:]
        to_input = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            more = _output_padding(input, gradient, kernel, *numbers)
            to_input = _ops.conv_transpose2d_bf16(gradient, weight, None, *numbers, more, ctx.units)
        if ctx.needs_input_grad[1]:
            to_weight = _ops.conv2d_weight_bf16(
                input, gradient, kernel, *numbers, weight.dtype, ctx.units
            )
        if ctx.needs_input_grad[2]:
            to_bias = _bias_gradient(gradient, ctx.bias_dtype)
        return to_input, to_weight, to_bias, None, None, None

    def _backward_of_transposed(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        gradient = _channels_last(gradient)
        numbers = (ctx.stride, ctx.padding)
        to_input = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_input = _ops.conv2d_bf16(gradient, weight, None, *numbers, ctx.units)
        if ctx.needs_input_grad[1]:
            to_weight = _ops.conv2d_weight_bf16(
                gradient, input, weight.shape[2:], *numbers, weight.dtype, ctx.units
            )
        if ctx.needs_input_grad[2]:
            to_bias = _bias_gradient(gradient, ctx.bias_dtype)
        return to_input, to_weight, to_bias, None, None, None, None

    def _setup_weight(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        large, small, ctx.kernel, ctx.stride, ctx.padding, _, ctx.units = inputs
        ctx.save_for_backward(large, small)

    def _backward_of_weight(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        large, small = ctx.saved_tensors
        gradient = _channels_last(gradient)
        numbers = (ctx.stride, ctx.padding)
        to_large = to_small = None
        if ctx.needs_input_grad[0]:
            more = _output_padding(large, small, ctx.kernel, *numbers)
            to_large = _ops.conv_transpose2d_bf16(small, gradient, None, *numbers, more, ctx.units)
        if ctx.needs_input_grad[1]:
            to_small = _ops.conv2d_bf16(large, gradient, None, *numbers, ctx.units)
        return to_large, to_small, None, None, None, None, None

    torch.library.register_autograd("pokegan::conv2d_bf16", _backward, setup_context=_setup)
    torch.library.register_autograd(
        "pokegan::conv_transpose2d_bf16", _backward_of_transposed, setup_context=_setup
    )
    torch.library.register_autograd(
        "pokegan::conv2d_weight_bf16", _backward_of_weight, setup_context=_setup_weight
    )
