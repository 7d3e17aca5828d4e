"""Affine resampling of a batch, one placement a picture, differentiable twice in the pictures."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pokegan.augment.layout import levels
from pokegan.ops.python_operator import python_operator

_BILINEAR = 0  # these are the numbers of torch's grid sampler
_ZEROS, _REFLECTION = 0, 2


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
        reflected: Tensor = _sample(pictures, grid, _REFLECTION)
        return reflected
    fill = levels(background, pictures)
    distance: Tensor = _sample(pictures - fill, grid, _ZEROS)
    return distance + fill


def _grid(placement: Placement, pictures: Tensor) -> Tensor:
    """Return [N, H, W, 2]: where to read, in torch's coordinates from -1 to 1."""
    height, width = pictures.shape[2:]
    column = torch.arange(width, device=pictures.device).to(pictures.dtype) + (1 - width) / 2
    row = torch.arange(height, device=pictures.device).to(pictures.dtype) + (1 - height) / 2
    xx, xy, yx, yy, x, y = (part.to(pictures.dtype)[:, None, None] for part in placement)
    across = xx * column + (xy * row[:, None] + x)  # [N, H, W]
    down = yx * column + (yy * row[:, None] + y)
    return torch.stack((across * (2 / width), down * (2 / height)), dim=-1)


# torch 2.11's `grid_sample` has no second derivative, and an `autograd.Function` has none inside a
# compiled function. For a fixed grid the sampling is linear: its gradient is its adjoint, and the
# gradient of that is the sampling again.


def _sampled(pictures: Tensor, grid: Tensor, padding: int) -> Tensor:
    return torch.grid_sampler_2d(pictures, grid, _BILINEAR, padding, False)


def _adjoint(gradient: Tensor, grid: Tensor, padding: int) -> Tensor:
    # The second argument stands for the pictures, of which only the shape is used here.
    adjoint: Tensor = torch.ops.aten.grid_sampler_2d_backward(
        gradient, gradient, grid, _BILINEAR, padding, False, [True, False]
    )[0]
    return adjoint


def _unknown(pictures: Tensor, grid: Tensor, padding: int) -> Tensor:
    return pictures.new_empty(pictures.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, grid, ctx.padding = inputs
    ctx.save_for_backward(grid)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    return _sample_adjoint(gradient, *ctx.saved_tensors, ctx.padding), None, None


def _backward_of_adjoint(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    return _sample(gradient, *ctx.saved_tensors, ctx.padding), None, None


_sample = python_operator(_sampled, "sample_bilinear", _unknown)
_sample_adjoint = python_operator(_adjoint, "sample_bilinear_adjoint", _unknown)
torch.library.register_autograd("pokegan::sample_bilinear", _backward, setup_context=_keep)
torch.library.register_autograd(
    "pokegan::sample_bilinear_adjoint", _backward_of_adjoint, setup_context=_keep
)
