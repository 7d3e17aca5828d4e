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
        ctx.memory = torch.channels_last if last else torch.contiguous_format
        return F.avg_pool2d(maps, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        repeated = F.interpolate(gradient * 0.25, scale_factor=2.0, mode="nearest")
        return repeated.contiguous(memory_format=ctx.memory)  # that of `gradient`, mostly


def halved(maps: Tensor) -> Tensor:
    """Return [N, C, H // 2, W // 2], the means of 2x2 of `maps` [N, C, H, W]; `F.avg_pool2d`.

    Elsewhere than in eager mode on a CPU, and for odd sides, it is PyTorch's with its gradient:
    compilers and CUDA's kernel write each value of that once.
    """
    even = maps.shape[2] % 2 == 0 and maps.shape[3] % 2 == 0
    if torch.compiler.is_compiling() or maps.device.type != "cpu" or not even:
        return F.avg_pool2d(maps, 2)
    result: Tensor = _Halved.apply(maps)
    return result
