"""Halving of feature maps by averaging 2x2, with a gradient that is one pass over the maps."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class _Halved(torch.autograd.Function):
    """A quarter of the gradient, repeated: to the bit what PyTorch adds to zeros, value by value.

    Both directions are differentiable themselves, so the gradient is as often as wanted.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        last = maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
        ctx.set_materialize_grads(False)  # see `ops.second_order`
        ctx.memory = torch.channels_last if last else torch.contiguous_format
        return F.avg_pool2d(maps, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> Tensor | None:
        if gradient is None:
            return None
        repeated = F.interpolate(gradient * 0.25, scale_factor=2.0, mode="nearest")
        return repeated.contiguous(memory_format=ctx.memory)  # that of `gradient`, mostly


def halved(maps: Tensor) -> Tensor:
    """Return [N, C, H // 2, W // 2], the means of 2x2 of `maps` [N, C, H, W]; `F.avg_pool2d`.

    For odd sides it is PyTorch's. That calls the second derivative by the maps zeros, which a
    penalty would send back through every layer below; ours, and a mean, leave it undefined.
    """
    height, width = maps.shape[2:]
    if height % 2 or width % 2:
        return F.avg_pool2d(maps, 2)
    if torch.compiler.is_compiling():  # where a Function has no second derivative
        cut = maps.view(*maps.shape[:2], height // 2, 2, width // 2, 2)
        return cut.mean((3, 5)).contiguous(memory_format=_memory(maps))
    result: Tensor = _Halved.apply(maps)
    return result


def _memory(maps: Tensor) -> torch.memory_format:
    last = maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format
