"""What a gradient by a network's input may leave out when it is differentiated by the weights.

A penalty does both. Two parts of it are unused or 0, and yet cost as much as the rest:

- In the first pass the operators' gradients by their weights; autograd tells functions that are
  written in Python only what needs a gradient, not what is asked for (as `no_weight_gradients` of
  StyleGAN2-ADA, Karras et al., arXiv 2006.06676, has it).
- In the second pass the gradient by the input of a (leaky) ReLU's slope: it is 0 wherever it
  exists, but PyTorch sends those zeros backwards through every layer below. Here it is undefined,
  which autograd passes on as it is through its own operators; functions written in Python must
  ask for that (`set_materialize_grads(False)`), or they get zeros and send them on.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class gradients_by_input:  # noqa: N801  (a context manager, named as torch names its own)
    """Inside, only gradients by the network's input are asked for, to be differentiated again.

    The forward pass and the first backward pass belong inside, the second one outside.
    """

    def __enter__(self) -> None:
        global _active
        self.before, _active = _active, True

    def __exit__(self, *_: object) -> None:
        global _active
        _active = self.before


def inside() -> bool:
    """Return whether a `gradients_by_input` is around the caller."""
    return _active


def piecewise_linear(input: Tensor, slope: float, inplace: bool = False) -> Tensor:
    """Change x below 0 to slope x, with no gradient by `input` of that slope.

    Args:
        input: of any shape and floating dtype.
        slope: in [0, 1), 0 for a ReLU.
        inplace: `input` may be changed, if it is no view.

    Returns:
        Like `input`; differentiable any number of times.
    """
    if torch.compiler.is_compiling():
        below = input.detach() <= 0
        return torch.where(below, input * slope if slope else torch.zeros_like(input), input)
    out: Tensor = _PiecewiseLinear.apply(input, slope, inplace and not input._is_view())
    return out


def through_slope(gradient: Tensor, result: Tensor, slope: float) -> Tensor:
    """Return the gradient by the input of what has `gradient` by its result.

    Differentiable any number of times in `gradient`; `result` gets no gradient.
    """
    out: Tensor = _ThroughSlope.apply(gradient, result, slope)
    return out


_active = False


class _PiecewiseLinear(torch.autograd.Function):
    """The result has the sign of the input, so it tells the slope."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, slope: float, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(input)
            result = F.leaky_relu_(input, slope) if slope else F.relu_(input)
        else:
            result = F.leaky_relu(input, slope) if slope else F.relu(input)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(result)
        ctx.slope = slope
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, None, None]:
        if gradient is None:
            return None, None, None
        (result,) = ctx.saved_tensors
        return through_slope(gradient, result.detach(), ctx.slope), None, None


class _ThroughSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, result: Tensor, slope: float) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(result)
        ctx.slope = slope
        aten = torch.ops.aten
        out: Tensor = (
            aten.leaky_relu_backward(gradient, result, slope, True)
            if slope
            else aten.threshold_backward(gradient, result, 0)
        )
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, None, None]:
        if gradient is None:
            return None, None, None
        (result,) = ctx.saved_tensors
        return through_slope(gradient, result, ctx.slope), None, None
