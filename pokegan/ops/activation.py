"""A (leaky) ReLU in place, and its gradient, at the speed of memory in bfloat16.

The results are PyTorch's to the bit, but that denormal numbers become 0. An activation is its slope
below 0, as in `batch_norm_act.py`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pokegan.ops.batch_norm_act import (
    channels_last,
    empty_rows,
    is_channels_last,
    through_activation,
)
from pokegan.ops.extension import status

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


class _Activate(torch.autograd.Function):
    """The result has the sign of the input, so it tells the slope."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, slope: float) -> Tensor:
        torch.ops.pokegan.activate_(input, slope)
        ctx.mark_dirty(input)
        ctx.save_for_backward(input)
        ctx.slope = slope
        return input

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (result,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            return through_activation(gradient, result.detach(), ctx.slope), None
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
