"""Convolutions as matrix products on the processor's bfloat16 units.

Of bfloat16 maps, and of float32 ones by split products: a float32 is a sum of bfloat16 parts (Henry
et al., arXiv 1904.06376), and a product the sum of the larger products of parts.

    parts   products   error of a product x w, at most
    2       3          2^-15 |x w|
    3       6          2^-24 |x w|, as of float32's own rounding

Sums are in float32; the same bits for any count of threads. All may be differentiated as often as
wanted, see `conv_gradients`. Infinities and what is no number have float32's results. A product of
finite numbers that overflows is infinite or no number, and may overflow from 2^-7 below the largest
number on. Parts and sums below 2^-126 count as zeros.

Kernels of 4 x 4 and stride 1 or 2, and of 3 x 3 and stride 1, can be computed by minimal filtering
(Winograd 1980; Lavin and Gray, arXiv 1509.09308) where both sides have at least 32 channels: 9
products in place of 16, and 16 in place of 36. What is multiplied are differences of maps and sums
of weights, made in float32 and then rounded to bfloat16, so a result is about twice as far from the
exact one, 0.5 % of its size in the mean. What is not finite makes infinities or NaNs of all pixels
that are made with it, and of gradients by the weight also where it lies behind the last pixel.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pokegan.ops import conv_gradients
from pokegan.ops.conv_gradients import Convolution, Family, Winograd, channels_last
from pokegan.ops.extension import status

_USE = status()  # fixed for the process, so a compiled function sees a constant
_UNITS = ("none", "AVX512-BF16", "AMX")
MAX_KERNEL = 16
PARTS = 2  # of a split float32
BF16, SPLIT = Family("bf16", has_winograd=True), Family("split", has_winograd=False)


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
    winograd: Winograd | bool = False,
) -> Tensor:
    """Return the convolution (cross-correlation) of `input` with `weight`, as `F.conv2d` does.

    Args:
        input: [N, C, H, W] bfloat16.
        weight: [O, C, KH, KW] float32 or bfloat16, KH and KW at most 16; float32 is rounded to
            bfloat16 on the way, its gradient is not.
        bias: [O] float32 or bfloat16.
        stride: in [1, 2^20].
        padding: zeros on every side, in [0, 2^20].
        units: 0 the widest that the processor has, 1 AVX512-BF16, 2 AMX.
        winograd: by minimal filtering, see the module; one by one for the convolution and its
            gradients by input (transpose) and weight, or for all three. In compiled code, and for
            gradients of gradients, an operator's own holds for its gradients, too.

    Returns:
        [N, O, (H + 2 padding - KH) // stride + 1, ...] bfloat16, channels_last.

    Raises:
        RuntimeError: an argument has the wrong dtype, shape or range.
    """
    if not is_compiled(input):
        return _reference(F.conv2d, input, weight, bias, stride, padding)
    return _run(BF16, False, input, weight, bias, (stride, padding, units), winograd)


def conv_transpose2d_bf16(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    output_padding: tuple[int, int] = (0, 0),
    units: int = 0,
    winograd: Winograd | bool = False,
) -> Tensor:
    """Return the transposed convolution of `input` with `weight`, as `F.conv_transpose2d` does.

    Args:
        input: [N, O, H, W] bfloat16.
        weight: [O, C, KH, KW] as in `conv2d_bf16`, whose gradient by its input this is.
        bias: [C] float32 or bfloat16.
        stride: in [1, 2^20].
        padding: of that convolution, in [0, 2^20].
        output_padding: further rows and columns, each in [0, stride).
        units: as in `conv2d_bf16`.
        winograd: as in `conv2d_bf16`.

    Returns:
        [N, C, (H - 1) stride - 2 padding + KH + output_padding, ...] bfloat16, channels_last.

    Raises:
        RuntimeError: an argument has the wrong dtype, shape or range.
    """
    if not is_compiled(input):
        return _reference(F.conv_transpose2d, input, weight, bias, stride, padding, output_padding)
    numbers = (stride, padding, list(output_padding), units)
    return _run(BF16, True, input, weight, bias, numbers, winograd)


def conv2d_split(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    parts: int = PARTS,
    units: int = 0,
) -> Tensor:
    """Return what `F.conv2d` does of float32, by split products.

    Args:
        input: [N, C, H, W] float32.
        weight: [O, C, KH, KW] float32, KH and KW at most 16.
        bias: [O] float32 or bfloat16.
        stride: in [1, 2^20].
        padding: zeros on every side, in [0, 2^20].
        parts: 2 or 3, that each value is split into.
        units: as in `conv2d_bf16`.

    Returns:
        [N, O, (H + 2 padding - KH) // stride + 1, ...] float32, channels_last.

    Raises:
        RuntimeError: an argument has the wrong dtype, shape or range.
    """
    if not is_compiled(input):
        return _wide_reference(F.conv2d, input, weight, bias, stride, padding)
    return _run(SPLIT, False, input, weight, bias, (stride, padding, parts, units))


def conv_transpose2d_split(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    output_padding: tuple[int, int] = (0, 0),
    parts: int = PARTS,
    units: int = 0,
) -> Tensor:
    """Return what `F.conv_transpose2d` does of float32, by split products.

    Args:
        input: [N, O, H, W] float32.
        weight: [O, C, KH, KW] as in `conv2d_split`, whose gradient by its input this is.
        bias: [C] float32 or bfloat16.
        stride: in [1, 2^20].
        padding: of that convolution, in [0, 2^20].
        output_padding: further rows and columns, each in [0, stride).
        parts: 2 or 3, that each value is split into.
        units: as in `conv2d_bf16`.

    Returns:
        [N, C, (H - 1) stride - 2 padding + KH + output_padding, ...] float32, channels_last.

    Raises:
        RuntimeError: an argument has the wrong dtype, shape or range.
    """
    if not is_compiled(input):
        return _wide_reference(
            F.conv_transpose2d, input, weight, bias, stride, padding, output_padding
        )
    return _run(
        SPLIT, True, input, weight, bias, (stride, padding, list(output_padding), parts, units)
    )


def _run(
    family: Family,
    transposed: bool,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    numbers: tuple[Any, ...],
    winograd: Winograd | bool = False,
) -> Tensor:
    both = channels_last(input), channels_last(weight)
    ways = Winograd(winograd, winograd, winograd) if isinstance(winograd, bool) else winograd
    out: Tensor
    if torch.compiler.is_compiling():
        operator = family.operator("conv_transpose2d" if transposed else "conv2d")
        flag = family.flag(ways.transpose if transposed else ways.convolve)
        out = operator(*both, bias, *numbers, *flag)
    else:
        out = Convolution.apply(*both, bias, family, transposed, numbers, ways)
    return out


def is_compiled(input: Tensor) -> bool:
    """Return whether the kernels, and not the references, take it."""
    return _WIDEST > 0 and input.device.type == "cpu"


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


def _wide_reference(
    operator: Any, input: Tensor, weight: Tensor, bias: Any, *numbers: Any
) -> Tensor:
    """Do it in float32, without the error of the products."""
    if input.dtype != torch.float32:
        raise RuntimeError(f"{operator.__name__}_split: input must be float32")
    with torch.autocast(input.device.type, enabled=False):
        out: Tensor = operator(input, weight, None if bias is None else bias.float(), *numbers)
    return channels_last(out)


if _USE.cpu:
    conv_gradients.register(BF16)
    conv_gradients.register(SPLIT)
