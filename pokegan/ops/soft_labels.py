"""Adversarial losses on soft labels: smoothing, noise, swaps and the loss in one pass.

A sample's targets are a pure function of (seed, stream, step, global sample index): a target is
low + (high - low) U with U uniform in [0, 1), and with probability `swap` it becomes 1 minus that.
The real and the fake side draw independently. The one pass that gives the loss gives its gradient
too, so targets are never stored and never drawn twice. Sums are in float64 and in a fixed order.

Sources: bce arXiv 1406.2661, lsgan 1611.04076, rgan and ragan 1807.00734 (RSGAN and RaSGAN).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pokegan.ops.extension import status
from pokegan.ops.random import Stream, uniform_reference

_USE = status()  # fixed for the process, so a compiled function sees a constant
Target = Tensor | float
Interval = tuple[float, float]


def soft_labels(
    form: str,
    real: Tensor,
    fake: Tensor,
    samples: Tensor,
    step: Tensor | int,
    seed: int,
    real_interval: Interval,
    fake_interval: Interval,
    swap: float = 0.0,
    stream: Stream = Stream.LABEL,
) -> Tensor:
    """Return the discriminator's loss on targets drawn for each sample.

    Args:
        form: one of `FORMS`.
        real: [N] logits of real pictures: float32, float64 or bfloat16.
        fake: [N] logits of fakes, like `real`.
        samples: [N] int64 global sample indices, on the device of `real`.
        step: an int, or an int64 scalar on that device.
        seed: the run's seed in [0, 2^64).
        real_interval: (low, high) of real targets, -1 <= low <= high <= 2.
        fake_interval: the same of fake targets.
        swap: probability in [0, 1] that a target t becomes 1 - t; drawn for each sample, for its
            real and its fake target independently.
        stream: which stream the draws come from.

    Returns:
        Scalar, the mean over the batch: float64 for float64 logits, else float32. NaN for N = 0.
        Differentiable once by the logits. The means inside of `ragan` are over the logits given.

    Raises:
        RuntimeError: an argument has the wrong dtype, shape, device or range.
    """
    if not (_USE.cuda if real.is_cuda else _USE.cpu):
        return soft_labels_reference(
            form, real, fake, samples, step, seed, real_interval, fake_interval, swap, stream
        )
    step = step if isinstance(step, Tensor) else _step_tensor(step, samples)
    rule = (*real_interval, *fake_interval, swap)
    draw = (samples, step, _signed(seed), int(stream), _number(form), rule)
    loss: Tensor = _SoftLabels.apply(real, fake, draw)
    return loss


def label_targets(
    samples: Tensor,
    step: Tensor | int,
    seed: int,
    real_interval: Interval,
    fake_interval: Interval,
    swap: float = 0.0,
    stream: Stream = Stream.LABEL,
) -> tuple[Tensor, Tensor]:
    """Return the (real, fake) targets, [N] float32 each, that `soft_labels` draws for inspection.

    The arguments and errors are those of `soft_labels`. The reference gives the same bits.
    """
    if not _is_compiled(samples):
        return label_targets_reference(
            samples, step, seed, real_interval, fake_interval, swap, stream
        )
    both: Tensor = torch.ops.pokegan.label_targets(
        samples,
        _step_tensor(step, samples),
        _signed(seed),
        stream,
        (*real_interval, *fake_interval, swap),
    )
    return both[0], both[1]


def soft_labels_reference(
    form: str,
    real: Tensor,
    fake: Tensor,
    samples: Tensor,
    step: Tensor | int,
    seed: int,
    real_interval: Interval,
    fake_interval: Interval,
    swap: float = 0.0,
    stream: Stream = Stream.LABEL,
) -> Tensor:
    """Do what `soft_labels` does, in plain PyTorch: equal to rounding."""
    _number(form)
    _check(real, fake, samples)
    targets = label_targets_reference(
        samples, step, seed, real_interval, fake_interval, swap, stream, op="soft_labels"
    )
    if real.dtype == torch.bfloat16:
        real, fake = real.float(), fake.float()
    return FORMS[form](real, fake, *(target.to(real.dtype) for target in targets))


def label_targets_reference(
    samples: Tensor,
    step: Tensor | int,
    seed: int,
    real_interval: Interval,
    fake_interval: Interval,
    swap: float = 0.0,
    stream: Stream = Stream.LABEL,
    op: str = "label_targets",
) -> tuple[Tensor, Tensor]:
    """Do what `label_targets` does, in plain PyTorch: the same bits."""
    _check_rule(op, real_interval, fake_interval, swap)
    draws = uniform_reference(seed, stream, step, samples, 4, op).unbind(1)

    def side(interval: Interval, value: Tensor, toss: Tensor) -> Tensor:
        target = value * (interval[1] - interval[0]) + interval[0]
        return torch.where(toss < swap, 1 - target, target)

    return side(real_interval, draws[0], draws[1]), side(fake_interval, draws[2], draws[3])


def cross_entropy(logits: Tensor, target: Target) -> Tensor:
    """Return the mean of -t log s(x) - (1 - t) log(1 - s(x)) = softplus(x) - t x."""
    return (F.softplus(logits) - target * logits).mean()


def _bce(real: Tensor, fake: Tensor, real_target: Target, fake_target: Target) -> Tensor:
    return cross_entropy(real, real_target) + cross_entropy(fake, fake_target)


def _lsgan(real: Tensor, fake: Tensor, real_target: Target, fake_target: Target) -> Tensor:
    return 0.5 * ((real - real_target).square().mean() + (fake - fake_target).square().mean())


def _rgan(real: Tensor, fake: Tensor, real_target: Target, fake_target: Target) -> Tensor:
    # The paper drops f2(fake - real), which equals f1(real - fake) for hard labels. Soft ones
    # differ, so both are here, halved: together one cross entropy against a target in between.
    return cross_entropy(real - fake, 0.5 * (real_target + (1 - fake_target)))


def _ragan(real: Tensor, fake: Tensor, real_target: Target, fake_target: Target) -> Tensor:
    return cross_entropy(real - fake.mean(), real_target) + cross_entropy(
        fake - real.mean(), fake_target
    )


# The formulas: (real logits [N], fake logits [N], real targets, fake targets) to a scalar, targets
# [N] or numbers. Their order is that of LossForm in csrc/soft_labels.h.
FORMS: dict[str, Callable[[Tensor, Tensor, Target, Target], Tensor]] = {
    "bce": _bce,
    "lsgan": _lsgan,
    "rgan": _rgan,
    "ragan": _ragan,
}
_NUMBERS = {name: number for number, name in enumerate(FORMS)}


class _SoftLabels(torch.autograd.Function):
    """Gradient; `torch.library.register_autograd` costs 40 us a call, more than all the rest."""

    @staticmethod
    def forward(
        ctx: Any,
        real: Tensor,
        fake: Tensor,
        draw: tuple[Tensor, Tensor, int, int, int, tuple[float, ...]],
    ) -> Tensor:
        # Nobody else holds the slopes, so nobody can change them: nothing to guard.
        loss: Tensor
        loss, ctx.real, ctx.fake = torch.ops.pokegan.soft_labels.default(real, fake, *draw)
        ctx.dtype = real.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if gradient.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("soft_labels: differentiable once, and a second time was asked for")
        real, fake = ctx.real * gradient, ctx.fake * gradient
        if real.dtype != ctx.dtype:
            real, fake = real.to(ctx.dtype), fake.to(ctx.dtype)
        return real, fake, None


def _number(form: str) -> int:
    if form not in _NUMBERS:
        raise RuntimeError(f"soft_labels: form must be one of {', '.join(_NUMBERS)}, got {form}")
    return _NUMBERS[form]


def _is_compiled(tensor: Tensor) -> bool:
    return _USE.cuda if tensor.is_cuda else _USE.cpu


def _signed(seed: int) -> int:
    return seed if seed < 2**63 else seed - 2**64


def _step_tensor(step: Tensor | int, samples: Tensor) -> Tensor:
    if isinstance(step, Tensor):
        return step
    return torch.full((), step, dtype=torch.int64, device=samples.device)


def _check(real: Tensor, fake: Tensor, samples: Tensor) -> None:
    """Raise what the compiled operator raises, in the same words."""
    rules = (
        (
            real.dtype in (torch.float32, torch.float64, torch.bfloat16),
            "real must be float32, float64 or bfloat16",
        ),
        (real.dim() == 1, "real must have the shape [N]"),
        (fake.dtype == real.dtype, "fake must have the dtype of real"),
        (fake.shape == real.shape, "fake must have the shape of real"),
        (fake.device == real.device, "fake must be on the device of real"),
        (
            samples.dtype == torch.int64 and samples.dim() == 1,
            "samples must be int64 of the shape [B]",
        ),
        (samples.shape == real.shape, "samples must have the shape of real"),
        (samples.device == real.device, "samples must be on the device of real"),
    )
    for holds, message in rules:
        if not holds:
            raise RuntimeError(f"soft_labels: {message}")


def _check_rule(op: str, real: Interval, fake: Interval, swap: float) -> None:
    for side, (low, high) in (("real", real), ("fake", fake)):
        if not -1 <= low <= 2:
            raise RuntimeError(f"{op}: {side}_low must be in [-1, 2], got {low:g}")
        if not low <= high <= 2:
            raise RuntimeError(f"{op}: {side}_high must be in [{side}_low, 2], got {high:g}")
    if not 0 <= swap <= 1:
        raise RuntimeError(f"{op}: swap must be in [0, 1], got {swap:g}")


if _USE.cpu:

    @torch.library.register_fake("pokegan::soft_labels")  # type: ignore[untyped-decorator]  # torch's
    def _fake_loss(real: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        dtype = torch.float64 if real.dtype == torch.float64 else torch.float32
        slopes = real.new_empty(real.shape, dtype=dtype), real.new_empty(real.shape, dtype=dtype)
        return real.new_empty((), dtype=dtype), *slopes

    @torch.library.register_fake("pokegan::label_targets")  # type: ignore[untyped-decorator]  # torch's
    def _fake_targets(samples: Tensor, *rest: Any) -> Tensor:
        return samples.new_empty((2, samples.shape[0]), dtype=torch.float32)
