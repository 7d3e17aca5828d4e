"""Differentiable augmentation: colour, translation and cutout of a batch in one pass.

The parameters of a picture are counted, not drawn: they follow from (seed, stream, step, sample),
so they do not depend on the rest of the batch, and the backward pass computes them again instead
of keeping them. For fixed parameters the operator is affine in the pictures; its gradient is the
adjoint of its linear part, and the gradient of that is the linear part again.

Source: Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", 2020
(arXiv 2006.10738), section 3.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pokegan.ops import random
from pokegan.ops.extension import status

_USE = status()  # fixed for the process, so a compiled function sees a constant
_WORDS = 7


class Parameters(NamedTuple):
    """What is done to each picture; every part has the shape [N].

    Attributes:
        brightness: float32 in [-1/2, 1/2), added to every value.
        saturation: float32 in [0, 2), scales the distance to the pixel's mean over channels.
        contrast: float32 in [1/2, 3/2), scales the distance to the picture's mean.
        down: int64 pixels, up to an eighth of the height either way.
        right: int64 pixels, up to an eighth of the width either way.
        cutout_top: int64, first row of the cutout, which may lie outside.
        cutout_left: int64, first column of the cutout, which may lie outside.
    """

    brightness: Tensor
    saturation: Tensor
    contrast: Tensor
    down: Tensor
    right: Tensor
    cutout_top: Tensor
    cutout_left: Tensor


def diff_augment(
    images: Tensor,
    seed: int,
    stream: int,
    step: Tensor | int,
    samples: Tensor,
    *,
    colour: bool = True,
    translation: bool = True,
    cutout: bool = True,
    fill: float = 0.0,
) -> Tensor:
    """Augment each picture with parameters of its own; differentiable twice in `images`.

    `torch.autograd.grad` gives both orders, also inside compiled code. `torch.func.grad` does not:
    PyTorch has no functional transforms of registered operators.

    In this order: brightness, saturation and contrast; a move by up to an eighth of each side; a
    rectangle of half of each side set to zero. `parameters` says how much.

    Args:
        images: [N, 3, H, W] float32, bfloat16 or float64, in any memory format.
        seed: the run's seed in [0, 2^64).
        stream: what the numbers are for, in [0, 2^32); real and generated pictures want two.
        step: the step, an int or an int64 scalar on the device of `images`, in [0, 2^32). Backward
            reads it again: change it in place only after.
        samples: [N] int64, global sample indices in [0, 2^32), on the device of `images`.
        colour: whether to change brightness, saturation and contrast.
        translation: whether to move the pictures.
        cutout: whether to cut a rectangle out.
        fill: what a move uncovers; 0 in the paper, the background's level for art on a background.

    Returns:
        Like `images`; channels_last stays channels_last. Arithmetic is in float32 or wider and
        rounded once.

    Raises:
        RuntimeError: an argument has the wrong dtype, shape, device or range.
    """
    if not isinstance(step, Tensor):
        step = torch.full((), step, dtype=torch.int64, device=images.device)
    policy = (colour, translation, cutout)
    if _USE.cuda if images.device.type == "cuda" else _USE.cpu:
        out: Tensor = torch.ops.pokegan.diff_augment(
            images, step, samples, _signed(seed), int(stream), *policy, fill, False
        )
        return out
    return diff_augment_reference(
        images,
        seed,
        stream,
        step,
        samples,
        colour=colour,
        translation=translation,
        cutout=cutout,
        fill=fill,
    )


def parameters(
    seed: int, stream: int, step: Tensor | int, samples: Tensor, height: int, width: int
) -> Parameters:
    """Return what `diff_augment` does to pictures of `height` x `width`, sample by sample.

    Each parameter has its own random word: leaving a policy out does not change the others. The
    cutout's centre is uniform on the picture; one of even length may also be centred on the far
    edge, so that both edges lose equally often.
    """
    words = random.words(seed, stream, step, samples, _WORDS) >> 8  # [N, 7] of 24 bits
    uniform = words.to(torch.float32) * 2.0**-24
    move_down, move_right = (height + 4) // 8, (width + 4) // 8
    cut_height, cut_width = (height + 1) // 2, (width + 1) // 2

    def below(word: int, count: int) -> Tensor:
        return (words[:, word] * count) >> 24

    return Parameters(
        uniform[:, 0] - 0.5,
        uniform[:, 1] * 2,
        uniform[:, 2] + 0.5,
        below(3, 2 * move_down + 1) - move_down,
        below(4, 2 * move_right + 1) - move_right,
        below(5, height + 1 - cut_height % 2) - cut_height // 2,
        below(6, width + 1 - cut_width % 2) - cut_width // 2,
    )


def diff_augment_reference(
    images: Tensor,
    seed: int,
    stream: int,
    step: Tensor | int,
    samples: Tensor,
    *,
    colour: bool = True,
    translation: bool = True,
    cutout: bool = True,
    fill: float = 0.0,
) -> Tensor:
    """Do what `diff_augment` does, in plain PyTorch with its own gradients."""
    if not isinstance(step, Tensor):
        step = torch.full((), step, dtype=torch.int64, device=images.device)
    _check(images, step, samples, int(stream), fill)
    height, width = images.shape[2:]
    chosen = parameters(seed, stream, step, samples, height, width)
    values = images.to(torch.promote_types(images.dtype, torch.float32))
    if colour:
        values = _coloured(values, chosen)
    if translation:
        values = _moved(values, chosen, fill)
    if cutout:
        values = _cut(values, chosen)
    interleaved = not images.is_contiguous() and _is_channels_last(images)
    memory = torch.channels_last if interleaved else torch.contiguous_format
    return values.to(images.dtype).contiguous(memory_format=memory)


def _coloured(values: Tensor, chosen: Parameters) -> Tensor:
    """Change brightness, then saturation, then contrast."""
    brightness, saturation, contrast = (
        part.to(values.dtype).view(-1, 1, 1, 1) for part in chosen[:3]
    )
    values = values + brightness
    grey = values.mean(1, keepdim=True)
    values = (values - grey) * saturation + grey
    mean = values.mean((1, 2, 3), keepdim=True)
    return (values - mean) * contrast + mean


def _moved(values: Tensor, chosen: Parameters, fill: float) -> Tensor:
    """Move each picture; what it uncovers becomes `fill`."""
    batch, _, height, width = values.shape
    device = values.device
    rows = torch.arange(height, device=device) - chosen.down[:, None]  # [N, H] source rows
    columns = torch.arange(width, device=device) - chosen.right[:, None]  # [N, W] source columns
    # One more row and column hold the fill; whatever lies outside reads them.
    padded = functional.pad(values, (0, 1, 0, 1), value=fill)
    rows = torch.where((rows < 0) | (rows >= height), height, rows)
    columns = torch.where((columns < 0) | (columns >= width), width, columns)
    sample = torch.arange(batch, device=device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def _cut(values: Tensor, chosen: Parameters) -> Tensor:
    """Set a rectangle of each picture to zero."""
    height, width = values.shape[2:]

    def inside(begin: Tensor, side: int) -> Tensor:
        place = torch.arange(side, device=values.device) - begin[:, None]  # [N, side]
        return (place >= 0) & (place < (side + 1) // 2)

    hole = (
        inside(chosen.cutout_top, height)[:, :, None] & inside(chosen.cutout_left, width)[:, None]
    )
    return values.masked_fill(hole[:, None], 0)


def _signed(seed: int) -> int:
    """Return the bits of an unsigned 64-bit seed as the int64 that a schema's `int` is."""
    return seed - 2**64 if seed >= 2**63 else seed


def _is_channels_last(images: Tensor) -> bool:
    return images.is_contiguous(memory_format=torch.channels_last)


def _check(images: Tensor, step: Tensor, samples: Tensor, stream: int, fill: float) -> None:
    """Raise what the compiled operator raises, in the same words."""
    rules = (
        (
            images.dtype in (torch.float32, torch.bfloat16, torch.float64),
            "images must be float32, bfloat16 or float64",
        ),
        (images.dim() == 4 and images.shape[1] == 3, "images must have the shape [N, 3, H, W]"),
        (step.dtype == torch.int64 and step.dim() == 0, "step must be an int64 scalar"),
        (step.device == images.device, "step must be on the device of images"),
        (
            samples.dtype == torch.int64 and samples.shape == images.shape[:1],
            "samples must be int64 of the shape [N]",
        ),
        (samples.device == images.device, "samples must be on the device of images"),
        (0 <= stream < 2**32, "stream must be in [0, 2^32)"),
        (abs(fill) < float("inf"), "fill must be finite"),
    )
    for holds, message in rules:
        if not holds:
            raise RuntimeError(f"diff_augment: {message}")


def _empty_like(images: Tensor) -> Tensor:
    if images.is_contiguous() or _is_channels_last(images):
        return torch.empty_like(images)
    return torch.empty_like(images, memory_format=torch.contiguous_format)


def _keep(ctx: Any, step: Tensor, samples: Tensor, *choice: int) -> None:
    ctx.save_for_backward(step, samples)
    ctx.choice = choice  # seed, stream, colour, translation, cutout


if _USE.cpu:

    @torch.library.register_fake("pokegan::diff_augment")  # type: ignore[untyped-decorator]  # torch's
    def _fake(images: Tensor, *_choice: object) -> Tensor:
        return _empty_like(images)

    @torch.library.register_fake("pokegan::diff_augment_adjoint")  # type: ignore[untyped-decorator]  # torch's
    def _fake_adjoint(gradient: Tensor, *_choice: object) -> Tensor:
        return _empty_like(gradient)

    def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _images, step, samples, *choice, _fill, _linear = inputs
        _keep(ctx, step, samples, *choice)

    def _setup_adjoint(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _gradient, step, samples, *choice = inputs
        _keep(ctx, step, samples, *choice)

    def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        adjoint = torch.ops.pokegan.diff_augment_adjoint
        return adjoint(gradient, *ctx.saved_tensors, *ctx.choice), *(None,) * 9

    def _backward_of_adjoint(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        forward = torch.ops.pokegan.diff_augment
        linear = forward(gradient, *ctx.saved_tensors, *ctx.choice, 0.0, True)
        return linear, *(None,) * 7

    torch.library.register_autograd("pokegan::diff_augment", _backward, setup_context=_setup)
    torch.library.register_autograd(
        "pokegan::diff_augment_adjoint", _backward_of_adjoint, setup_context=_setup_adjoint
    )
