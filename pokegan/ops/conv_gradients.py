"""Shapes and gradients of the convolution's operators, of which there are two families.

`*_bf16` take bfloat16 maps, `*_split` float32 ones. A convolution makes y of x and w, a transposed
one x of y and w, and the gradient by the weight w of x and y. All three are bilinear and each is
the gradient of the others, so they may be differentiated as often as wanted.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pokegan.ops import second_order

_ops = torch.ops.pokegan
Numbers = tuple[Any, ...]


def channels_last(tensor: Tensor) -> Tensor:
    """Return the tensor as the operators want it; those that have not 4 dimensions, as they are."""
    if tensor.dim() != 4:
        return tensor  # the operator says what is wrong
    return tensor.contiguous(memory_format=torch.channels_last)


class Winograd(NamedTuple):
    """Which operators of a layer use minimal filtering; see `conv`."""

    convolve: bool = False
    transpose: bool = False
    weight: bool = False


class Family(NamedTuple):
    """Operators of one arithmetic.

    `last` are the last arguments of both convolutions: (units,) of `_bf16`, (parts, units) of
    `_split`; the gradient by the weight takes the weight's dtype as well, where there is a choice.
    `_bf16` have `Winograd`'s flag behind them.
    """

    name: str
    has_winograd: bool

    def operator(self, operation: str) -> Any:
        """Return the operator of this family: `conv2d_weight`, `conv2d_moments`, ..."""
        return getattr(_ops, f"{operation}_{self.name}")

    def flag(self, winograd: bool) -> tuple[bool, ...]:
        """Return the argument that says how an operator multiplies, if it has it."""
        return (winograd,) if self.has_winograd else ()

    def convolve(self, x: Tensor, w: Tensor, by: "Settings") -> Tensor:
        """Return y of x and w."""
        flag = self.flag(by.winograd.convolve)
        y: Tensor = self.operator("conv2d")(x, w, None, by.stride, by.padding, *by.last, *flag)
        return y

    def transpose(self, y: Tensor, w: Tensor, like: Tensor, by: "Settings") -> Tensor:
        """Return x of y and w, of the size of `like`."""
        more = by.output_padding(y, w, like)
        numbers = (by.stride, by.padding, more, *by.last, *self.flag(by.winograd.transpose))
        x: Tensor = self.operator("conv_transpose2d")(y, w, None, *numbers)
        return x

    def weight(self, x: Tensor, y: Tensor, like: Tensor, by: "Settings") -> Tensor:
        """Return w of x and y, of the shape and dtype of `like`."""
        dtype = (like.dtype,) if self.name == "bf16" else ()
        numbers = (by.stride, by.padding, *dtype, *by.last, *self.flag(by.winograd.weight))
        w: Tensor = self.operator("conv2d_weight")(x, y, like.shape[2:], *numbers)
        return w


class Settings(NamedTuple):
    """What the operators of a layer have in common."""

    stride: int
    padding: int
    last: Numbers
    winograd: Winograd

    def output_padding(self, y: Tensor, w: Tensor, like: Tensor) -> list[int]:
        """Return what makes a transposed convolution of y as large as `like`."""
        return [
            like.shape[axis]
            - ((y.shape[axis] - 1) * self.stride - 2 * self.padding + w.shape[axis])
            for axis in (2, 3)
        ]


def register(family: Family) -> None:
    """Give the operators of a family their fakes and gradients."""
    for operation, fake, setup, backward in (
        ("conv2d", fake_conv, _setup, _backward),
        ("conv_transpose2d", fake_transposed, _setup, _backward_of_transposed),
        ("conv2d_weight", _fake_weight, _setup_weight, _backward_of_weight),
    ):
        operator = f"pokegan::{operation}_{family.name}"
        torch.library.register_fake(operator, fake)
        torch.library.register_autograd(
            operator, _of(family, backward), setup_context=_setup_of(family, setup)
        )


class Convolution(torch.autograd.Function):
    """A convolution or a transposed one: the same operator, with less Python around a call.

    `numbers` are the operator's arguments behind the bias, without `Winograd`'s flag; `summed`
    returns the result's moments, too, through which no gradient goes. Inside `torch.compile` the
    operator is called as it is.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        family: Family,
        transposed: bool,
        numbers: Numbers,
        winograd: Winograd,
        summed: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the operator's result; maps and weight are channels_last."""
        operation = "conv_transpose2d" if transposed else "conv2d"
        filtered = winograd.transpose if transposed else winograd.convolve
        out: Tensor | tuple[Tensor, Tensor]
        with torch._C._AutoDispatchBelowAutograd():
            if summed:
                out = family.operator(f"{operation}_moments")(input, weight, bias, *numbers)
                ctx.mark_non_differentiable(out[1])
            else:
                flag = family.flag(filtered)
                out = family.operator(operation)(input, weight, bias, *numbers, *flag)
        _setup(ctx, (input, weight, bias, *numbers), winograd)
        ctx.family, ctx.run = family, _backward_of_transposed if transposed else _backward
        return out

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor | None, *unused: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of input, weight and bias."""
        if gradient is None:
            return (None,) * 8
        gradient = channels_last(gradient)
        if torch.is_grad_enabled():  # to be differentiated again
            grads = ctx.run(ctx.family, ctx, gradient)
        else:
            with torch._C._AutoDispatchBelowAutograd():
                grads = ctx.run(ctx.family, ctx, gradient)
        return *grads, None, None, None, None, None


def _setup_of(family: Family, setup: Any) -> Any:
    """Take the last argument of an operator as that of its gradients, too."""

    def run(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        if family.has_winograd:
            setup(ctx, inputs[:-1], Winograd(*[inputs[-1]] * 3))
        else:
            setup(ctx, inputs, Winograd())

    return run


def _of(family: Family, backward: Any) -> Any:
    def run(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (None,) * len(ctx.needs_input_grad)
        first: tuple[Tensor | None, ...] = backward(family, ctx, channels_last(gradient))
        return first + (None,) * (len(ctx.needs_input_grad) - len(first))

    return run


def _empty(like: Tensor, n: int, c: int, h: int, w: int, dtype: torch.dtype) -> Tensor:
    return like.new_empty_strided((n, c, h, w), (h * w * c, 1, w * c, c), dtype=dtype)


def fake_conv(
    input: Tensor, weight: Tensor, bias: Any, stride: int, padding: int, *last: Any
) -> Tensor:
    """Return an empty result of a convolution."""
    height, width = (
        (input.shape[axis] + 2 * padding - weight.shape[axis]) // stride + 1 for axis in (2, 3)
    )
    return _empty(input, input.shape[0], weight.shape[0], height, width, input.dtype)


def fake_transposed(
    input: Tensor,
    weight: Tensor,
    bias: Any,
    stride: int,
    padding: int,
    output_padding: list[int],
    *last: Any,
) -> Tensor:
    """Return an empty result of a transposed convolution."""
    height, width = (
        (input.shape[axis] - 1) * stride - 2 * padding + weight.shape[axis] + more
        for axis, more in zip((2, 3), output_padding, strict=True)
    )
    return _empty(input, input.shape[0], weight.shape[1], height, width, input.dtype)


def _fake_weight(
    large: Tensor, small: Tensor, kernel: list[int], stride: int, padding: int, *last: Any
) -> Tensor:
    dtype = last[0] if large.dtype == torch.bfloat16 else torch.float32
    return _empty(large, small.shape[1], large.shape[1], kernel[0], kernel[1], dtype)


def _setup(ctx: Any, inputs: tuple[Any, ...], winograd: Winograd) -> None:
    ctx.set_materialize_grads(False)  # see `second_order`
    input, weight, bias, stride, padding, *last = inputs
    last = last[1:] if isinstance(last[0], list | tuple) else last  # no output_padding
    ctx.settings = Settings(stride, padding, tuple(last), winograd)
    ctx.save_for_backward(input, weight)
    ctx.bias_dtype = None if bias is None else bias.dtype


def _backward(family: Family, ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    input, weight = ctx.saved_tensors
    settings = ctx.settings
    to_input = to_weight = to_bias = None
    by_weights = not second_order.inside()
    if ctx.needs_input_grad[0]:
        to_input = family.transpose(gradient, weight, input, settings)
    if ctx.needs_input_grad[1] and by_weights:
        to_weight = family.weight(input, gradient, weight, settings)
    if ctx.needs_input_grad[2] and by_weights:
        to_bias = bias_gradient(gradient, ctx.bias_dtype)
    return to_input, to_weight, to_bias


def _backward_of_transposed(
    family: Family, ctx: Any, gradient: Tensor
) -> tuple[Tensor | None, ...]:
    input, weight = ctx.saved_tensors
    settings = ctx.settings
    to_input = to_weight = to_bias = None
    by_weights = not second_order.inside()
    if ctx.needs_input_grad[0]:
        to_input = family.convolve(gradient, weight, settings)
    if ctx.needs_input_grad[1] and by_weights:
        to_weight = family.weight(gradient, input, weight, settings)
    if ctx.needs_input_grad[2] and by_weights:
        to_bias = bias_gradient(gradient, ctx.bias_dtype)
    return to_input, to_weight, to_bias


def _setup_weight(ctx: Any, inputs: tuple[Any, ...], winograd: Winograd) -> None:
    ctx.set_materialize_grads(False)
    large, small, _, stride, padding, *last = inputs
    last = last[1:] if large.dtype == torch.bfloat16 else last  # no dtype
    ctx.settings = Settings(stride, padding, tuple(last), winograd)
    ctx.save_for_backward(large, small)


def _backward_of_weight(family: Family, ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    large, small = ctx.saved_tensors
    settings = ctx.settings
    to_large = to_small = None
    if ctx.needs_input_grad[0]:
        to_large = family.transpose(small, gradient, large, settings)
    if ctx.needs_input_grad[1]:
        to_small = family.convolve(large, gradient, settings)
    return to_large, to_small


def bias_gradient(gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum over the pixels; the kernel of batch norm's means is several times PyTorch's sum."""
    again = torch.is_grad_enabled() and gradient.requires_grad
    if again or torch.compiler.is_compiling() or gradient.numel() == 0:
        return gradient.sum((0, 2, 3), dtype=torch.float32).to(dtype)
    means: Tensor = _ops.batch_norm_moments(gradient)[0]
    return means.mul_(gradient.numel() // gradient.shape[1]).to(dtype)
