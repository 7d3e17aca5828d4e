"""Affine resampling of a batch, one placement a picture, differentiable twice in the pictures."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pokegan.augment.layout import levels

_BILINEAR = 0
_PADDING = {"zeros": 0, "reflection": 2}  # the numbers of torch's grid sampler


class Placement(NamedTuple):
    """Where pixels are read: source x = xx X + xy Y + x, source y = yx X + yy Y + y.

    (X, Y) is a pixel of the result. All are pixels from the picture's centre, x to the right and
    y down; every part has the shape [N].
    """

    xx: Tensor
    xy: Tensor
    yx: Tensor
    yy: Tensor
    x: Tensor
    y: Tensor


def rotation(degrees: Tensor) -> Placement:
    """Return the placement of a rotation counterclockwise about the centre; `degrees` is [N]."""
    angle = degrees * (math.pi / 180)
    cosine, sine = angle.cos(), angle.sin()
    zero = torch.zeros_like(angle)
    return Placement(cosine, -sine, sine, cosine, zero, zero)


def resample(
    pictures: Tensor, placement: Placement, background: Sequence[int] | None = None
) -> Tensor:
    """Read each picture at its placement, bilinearly.

    Sampling takes place on the distance to the background, so that a mixture of background and
    outside is background exactly. The identity, moves by whole pixels and quarter turns are exact
    to rounding at 1, for sides that are a power of two.

    Args:
        pictures: [N, 3, H, W] float32 or float64.
        placement: one a picture.
        background: RGB bytes of what lies outside, or None to reflect at the edges.

    Returns:
        Like `pictures`.
    """
    grid = _grid(placement, pictures)
    if background is None:
        return _sample(pictures, grid, "reflection")
    fill = levels(background, pictures)
    return _sample(pictures - fill, grid, "zeros") + fill


def _grid(placement: Placement, pictures: Tensor) -> Tensor:
    """Return [N, H, W, 2]: where to read, in torch's coordinates from -1 to 1."""
    height, width = pictures.shape[2:]
    column = torch.arange(width, device=pictures.device).to(pictures.dtype) + (1 - width) / 2
    row = torch.arange(height, device=pictures.device).to(pictures.dtype) + (1 - height) / 2
    xx, xy, yx, yy, x, y = (part.to(pictures.dtype)[:, None, None] for part in placement)
    across = xx * column + (xy * row[:, None] + x)  # [N, H, W]
    down = yx * column + (yy * row[:, None] + y)
    return torch.stack((across * (2 / width), down * (2 / height)), dim=-1)


def _sample(pictures: Tensor, grid: Tensor, padding: str) -> Tensor:
    out: Tensor = _Sample.apply(pictures, grid, padding)
    return out


class _Sample(torch.autograd.Function):
    """`grid_sample` with a gradient that has a gradient.

    In torch 2.11 it has none. For a fixed grid the sampling is linear, so its gradient is its
    adjoint, and the gradient of that is the sampling again.
    """

    @staticmethod
    def forward(ctx: Any, pictures: Tensor, grid: Tensor, padding: str) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.padding = padding
        return torch.grid_sampler_2d(pictures, grid, _BILINEAR, _PADDING[padding], False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _SampleAdjoint.apply(gradients[0], *ctx.saved_tensors, ctx.padding), None, None


class _SampleAdjoint(torch.autograd.Function):
    """The adjoint of the sampling, in its gradient."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, grid: Tensor, padding: str) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.padding = padding
        adjoint: Tensor = torch.ops.aten.grid_sampler_2d_backward(
            gradient,
            gradient,  # stands for the pictures: without a gradient for the grid, only its shape
            grid,
            _BILINEAR,
            _PADDING[padding],
            False,
            [True, False],
        )[0]
        return adjoint

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _Sample.apply(gradients[0], *ctx.saved_tensors, ctx.padding), None, None
