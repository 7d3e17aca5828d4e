"""Dropout of values or of whole feature maps, with counted randomness.

What stays follows from (seed, stream, step, sample), and the backward pass is the same dropout of
the gradient, as is the backward pass of that. On the CPU it is kept as a mask of one bit a value,
1/16 of bfloat16 values, where these lie in memory as they are counted; else it is worked out again.

Sources: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
JMLR 15, 2014; of feature maps, Tompson et al., "Efficient Object Localization Using Convolutional
Networks", 2014 (arXiv 1411.4280), section 3.2.
"""

import math
from typing import Any

import torch
from torch import Tensor

from pokegan.ops.extension import status
from pokegan.ops.random import uniform_reference

_USE = status()  # fixed for the process, so a compiled function sees a constant


def dropout(
    values: Tensor,
    p: float,
    seed: int,
    stream: int,
    step: Tensor | int,
    samples: Tensor,
    *,
    maps: bool = False,
) -> Tensor:
    """Set values to 0 with probability `p` and multiply the others by 1 / (1 - p).

    Differentiable any number of times in `values`. A value stays where the uniform of its word is
    at least `p`: word i of a sample (`random.uniform`) decides about its value i, channels counted
    fastest, so that the memory format changes nothing; with `maps`, about its channel i. The factor
    is rounded to float32 and to the dtype of `values`, as PyTorch's own is on the CPU.

    Args:
        values: [N, ...] float32, bfloat16 or float64; [N, C, H, W] with `maps`.
        p: in [0, 1).
        seed: the run's seed in [0, 2^64).
        stream: what the numbers are for, in [0, 2^32).
        step: the step, an int or an int64 scalar on the device of `values`, in [0, 2^32). Backward
            reads it again where no mask is kept: change it in place only after.
        samples: [B] int64, global sample indices in [0, 2^32), on the device of `values`; N is a
            multiple of B, and pass i over the samples has stream + i.
        maps: whether whole feature maps [H, W] stay or go.

    Returns:
        Like `values`; channels_last stays channels_last.

    Raises:
        RuntimeError: an argument has the wrong dtype, shape, device or range.
    """
    if not isinstance(step, Tensor):
        step = torch.full((), step, dtype=torch.int64, device=values.device)
    if _USE.cuda if values.device.type == "cuda" else _USE.cpu:
        signed = seed - 2**64 if seed >= 2**63 else seed  # a schema's `int` is an int64
        out: Tensor
        if not maps and _keeps_mask(values):
            out, _kept = torch.ops.pokegan.dropout_kept(values, step, samples, signed, stream, p)
            return out
        out = torch.ops.pokegan.dropout(values, step, samples, signed, stream, p, maps)
        return out
    return dropout_reference(values, p, seed, stream, step, samples, maps=maps)


def _keeps_mask(values: Tensor) -> bool:
    """Return whether backward will multiply by a mask that forward has written."""
    return (
        values.requires_grad
        and values.device.type == "cpu"
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and _is_counted_in_order(values)
    )


def _is_counted_in_order(values: Tensor) -> bool:
    """Return whether channels are fastest in memory, or there are none or nothing but channels."""
    if values.dim() != 4 or values.is_contiguous(memory_format=torch.channels_last):
        return True
    _n, channels, height, width = values.shape
    return channels <= 1 or height * width <= 1


def dropout_reference(
    values: Tensor,
    p: float,
    seed: int,
    stream: int,
    step: Tensor | int,
    samples: Tensor,
    *,
    maps: bool = False,
) -> Tensor:
    """Do what `dropout` does, in plain PyTorch with its own gradients."""
    if not isinstance(step, Tensor):
        step = torch.full((), step, dtype=torch.int64, device=values.device)
    _check(values, p, stream, step, samples, maps)
    count = values.shape[1] if maps else math.prod(values.shape[1:])
    passes = values.shape[0] // max(samples.shape[0], 1)
    draws = torch.cat(
        [samples.new_empty((0, count), dtype=torch.float32)]
        + [uniform_reference(seed, stream + i, step, samples, count) for i in range(passes)]
    )
    factors = ((draws >= p) * (1 / (1 - p))).to(values.dtype)
    if maps:
        factors = factors[:, :, None, None]
    elif values.dim() == 4:
        n, c, h, w = values.shape
        factors = factors.view(n, h, w, c).permute(0, 3, 1, 2)
    else:
        factors = factors.view(values.shape)
    out = values * factors
    return out if _is_dense(out) else out.contiguous()


def _is_dense(values: Tensor) -> bool:
    return values.is_contiguous() or (
        values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last)
    )


def _check(
    values: Tensor, p: float, stream: int, step: Tensor, samples: Tensor, maps: bool
) -> None:
    """Raise what the compiled operator raises, in the same words."""
    share = samples.shape[0] if samples.dim() == 1 else 1
    batch = values.shape[0] if values.dim() else 0
    rules = (
        (
            values.dtype in (torch.float32, torch.bfloat16, torch.float64),
            "values must be float32, bfloat16 or float64",
        ),
        (values.dim() >= 1, "values must have the shape [N, ...]"),
        (not maps or values.dim() == 4, "maps need values of the shape [N, C, H, W]"),
        (
            samples.dtype == torch.int64 and samples.dim() == 1,
            "samples must be int64 of the shape [B]",
        ),
        (step.dtype == torch.int64 and step.dim() == 0, "step must be an int64 scalar tensor"),
        (step.device == samples.device, "step must be on the device of samples"),
        (samples.device == values.device, "samples must be on the device of values"),
        (
            batch % share == 0 if share else batch == 0,
            f"a batch of {batch} is no multiple of {share} samples",
        ),
        (0 <= stream < 2**32, "stream must be in [0, 2^32)"),
        (0 <= p < 1, f"p must be in [0, 1), got {p:g}"),
    )
    for holds, message in rules:
        if not holds:
            raise RuntimeError(f"dropout: {message}")


if _USE.cpu:

    @torch.library.register_fake("pokegan::dropout")  # type: ignore[untyped-decorator]  # torch's
    def _fake(values: Tensor, *_choice: object) -> Tensor:
        if _is_dense(values):
            return torch.empty_like(values)
        return torch.empty_like(values, memory_format=torch.contiguous_format)

    def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _values, step, samples, *choice = inputs
        ctx.set_materialize_grads(False)  # see `second_order`
        ctx.save_for_backward(step, samples)
        ctx.choice = choice  # seed, stream, p, maps

    def _backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (None,) * 7
        return torch.ops.pokegan.dropout(gradient, *ctx.saved_tensors, *ctx.choice), *(None,) * 6

    @torch.library.register_fake("pokegan::dropout_kept")  # type: ignore[untyped-decorator]  # torch's
    def _fake_kept(values: Tensor, *_place: object) -> tuple[Tensor, Tensor]:
        bytes_of_row = (math.prod(values.shape[1:]) + 7) // 8
        return _fake(values), values.new_empty((values.shape[0], bytes_of_row), dtype=torch.uint8)

    torch.library.register_fake("pokegan::dropout_again")(_fake)

    def _setup_kept(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.set_materialize_grads(False)  # the mask has no gradient
        ctx.save_for_backward(output[1])
        ctx.p = inputs[-1]

    def _setup_again(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
        ctx.set_materialize_grads(False)
        _values, kept, ctx.p = inputs
        ctx.save_for_backward(kept)

    def _again(ctx: Any, gradient: Tensor) -> Tensor:
        (kept,) = ctx.saved_tensors
        if not _is_counted_in_order(gradient):
            gradient = gradient.contiguous(memory_format=torch.channels_last)
        out: Tensor = torch.ops.pokegan.dropout_again(gradient, kept, ctx.p)
        return out

    def _backward_kept(
        ctx: Any, gradient: Tensor | None, _of_mask: None
    ) -> tuple[Tensor | None, ...]:
        return None if gradient is None else _again(ctx, gradient), *(None,) * 5

    def _backward_again(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        return None if gradient is None else _again(ctx, gradient), None, None

    torch.library.register_autograd("pokegan::dropout", _backward, setup_context=_setup)
    torch.library.register_autograd(
        "pokegan::dropout_kept", _backward_kept, setup_context=_setup_kept
    )
    torch.library.register_autograd(
        "pokegan::dropout_again", _backward_again, setup_context=_setup_again
    )
