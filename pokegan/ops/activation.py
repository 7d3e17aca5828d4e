"""A (leaky) ReLU in place and tanh, with their gradients, at the speed of memory in bfloat16.

The results of a ReLU are PyTorch's to the bit, but that denormal numbers become 0. Such an
activation is its slope below 0, as in `batch_norm_act.py`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pokegan.ops.batch_norm_act import (
    channels_last,
    empty_rows,
    is_channels_last,
)
from pokegan.ops.extension import status
from pokegan.ops.second_order import through_slope

_USE = status()  # fixed for the process, so a compiled function sees a constant


def can_activate(input: Tensor) -> bool:
    """Return whether our kernel takes `input` [N, C, ...], and pays.

    It takes bfloat16 on the CPU, dense with the channels last in memory and no view of another
    tensor; not inside `torch.compile`. In float32 PyTorch's is as fast.
    """
    return (
        _USE.cpu
        and input.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and input.dtype == torch.bfloat16
        and input.dim() >= 2
        and input.numel() > 0
        and is_channels_last(input)
        and not input._is_view()
    )


def activate_(input: Tensor, slope: float) -> Tensor:
    """Change x below 0 to slope x, in place; return `input`.

    Args:
        input: [N, C, ...]; any for which `can_activate` does not hold goes to PyTorch.
        slope: in [0, 1), 0 for a ReLU.

    Returns:
        `input`; differentiable any number of times.
    """
    if not can_activate(input):
        return F.leaky_relu_(input, slope) if slope else F.relu_(input)
    out: Tensor = _Activate.apply(input, slope)
    return out


def tanh(input: Tensor) -> Tensor:
    """Return the hyperbolic tangent, as `torch.tanh` does.

    Dense bfloat16 on the CPU goes to our kernel, which computes in float32, to 2^-18 of the value,
    and rounds once; everything else, and what `torch.compile` sees, to PyTorch.

    Args:
        input: of any shape and floating dtype.

    Returns:
        Like `input`; differentiable any number of times.
    """
    if (
        _USE.cpu
        and input.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and input.dtype == torch.bfloat16
        and (input.is_contiguous() or (input.dim() == 4 and is_channels_last(input)))
    ):
        out: Tensor = torch.ops.pokegan.tanh(input)
        return out
    return torch.tanh(input)


class _Activate(torch.autograd.Function):
    """The result has the sign of the input, so it tells the slope."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, slope: float) -> Tensor:
        torch.ops.pokegan.activate_(input, slope)
        ctx.mark_dirty(input)
        ctx.set_materialize_grads(False)  # see `second_order`
        ctx.save_for_backward(input)
        ctx.slope = slope
        return input

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, None]:
        if gradient is None:
            return None, None
        (result,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            return through_slope(gradient, result.detach(), ctx.slope), None
        to_input: Tensor = torch.ops.pokegan.activate_backward(
            channels_last(gradient), result, ctx.slope
        )
        return to_input, None


if _USE.cpu:

    @torch.library.register_fake("pokegan::activate_")  # type: ignore[untyped-decorator]  # torch's
    def _fake_activate(input: Tensor, slope: float, units: int = 0) -> None:
        return None

    @torch.library.register_fake("pokegan::activate_backward")  # type: ignore[untyped-decorator]  # torch's
    def _fake_backward(gradient: Tensor, result: Tensor, slope: float, units: int = 0) -> Tensor:
        return empty_rows(result)

    @torch.library.register_fake("pokegan::tanh")  # type: ignore[untyped-decorator]  # torch's
    def _fake_tanh(input: Tensor) -> Tensor:
        return torch.empty_like(input)

    def _setup_tanh(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(output)

    def _tanh_backward(ctx: Any, gradient: Tensor) -> Tensor:
        (result,) = ctx.saved_tensors
        to_input: Tensor = torch.ops.aten.tanh_backward(gradient, result)
        return to_input

    torch.library.register_autograd("pokegan::tanh", _tanh_backward, setup_context=_setup_tanh)
