"""Batch norm (arXiv 1502.03167) and the activation behind it, each way in two passes over memory.

Four operators and not one: what lies between the passes is a [2, C] tensor, which ranks can add.
An activation is its slope below 0: 0 is a ReLU, 1 none, anything between a leaky ReLU. Sums are in
an order that shapes alone fix: the same bits for any count of threads. On other devices and in
compiled code PyTorch's own layers are used, which a compiler fuses.
"""

from typing import Any

import torch
from torch import Tensor

from pokegan.ops.extension import status

_USE = status()  # fixed for the process, so a compiled function sees a constant


def can_fuse(input: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
    """Return whether the kernels take [N, C, ...] maps and [C] parameters as they are.

    They take float32 and bfloat16 on the CPU, dense with the channels last in memory, of more than
    one value a channel, with float32 parameters; not inside `torch.compile`.
    """
    return (
        _USE.cpu
        and input.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and input.dtype in (torch.float32, torch.bfloat16)
        and (weight is None or weight.dtype == torch.float32)
        and (bias is None or bias.dtype == torch.float32)
        and input.dim() >= 2
        and input.numel() > input.shape[1] > 0
        and is_channels_last(input)
    )


def batch_norm_moments(input: Tensor, units: int = 0) -> Tensor:
    """Return means and variances (divided by the count) of every channel.

    Args:
        input: [N, C, ...] float32 or bfloat16, not empty.
        units: 0 the widest that the processor has, 1 those of any.

    Returns:
        [2, C] float32. Differences from a value of the channel are summed, never the values.

    Raises:
        RuntimeError: an argument has the wrong dtype, shape or range. So do all others here.
    """
    if not _is_compiled(input):
        return batch_norm_moments_reference(input)
    out: Tensor = torch.ops.pokegan.batch_norm_moments(channels_last(input), units)
    return out


def batch_norm_act(
    input: Tensor,
    moments: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    slope: float,
    units: int = 0,
) -> Tensor:
    """Return act(weight (input - mean) / sqrt(variance + eps) + bias), rounded once.

    Args:
        input: [N, C, ...] float32 or bfloat16, not empty.
        moments: [2, C] float32, means and variances.
        weight: [C] float32; None is 1.
        bias: [C] float32; None is 0.
        eps: is added to the variances.
        slope: of the activation below 0.
        units: as in `batch_norm_moments`.

    Returns:
        As `input`, with the channels last in memory.
    """
    if not _is_compiled(input):
        return batch_norm_act_reference(input, moments, weight, bias, eps, slope)
    out: Tensor = torch.ops.pokegan.batch_norm_act(
        channels_last(input), moments, weight, bias, eps, slope, units
    )
    return out


def batch_norm_act_sums(
    gradient: Tensor,
    input: Tensor,
    moments: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    slope: float,
    units: int = 0,
) -> Tensor:
    """Return the gradients by weight and bias, [2, C] float32.

    Args are those of `batch_norm_act`, and the `gradient` by its result. The activation's slopes
    come from the input, so that the result need not be kept.
    """
    if not _is_compiled(input):
        return batch_norm_act_sums_reference(gradient, input, moments, weight, bias, eps, slope)
    out: Tensor = torch.ops.pokegan.batch_norm_act_sums(
        channels_last(gradient), channels_last(input), moments, weight, bias, eps, slope, units
    )
    return out


def batch_norm_act_backward(
    gradient: Tensor,
    input: Tensor,
    moments: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    sums: Tensor,
    count: int,
    eps: float,
    slope: float,
    units: int = 0,
) -> Tensor:
    """Return the gradient by the input, through its moments too.

    With g the gradient behind the activation, n = (x - mean) s and s = 1 / sqrt(variance + eps),
    it is weight s (g - sums[1] / count - n sums[0] / count).

    Args are those of `batch_norm_act_sums`, and:
        sums: its result, added up over all who share the moments.
        count: of the values of a channel that the moments are of.
    """
    if not _is_compiled(input):
        return batch_norm_act_backward_reference(
            gradient, input, moments, weight, bias, sums, count, eps, slope
        )
    out: Tensor = torch.ops.pokegan.batch_norm_act_backward(
        channels_last(gradient),
        channels_last(input),
        moments,
        weight,
        bias,
        sums,
        count,
        eps,
        slope,
        units,
    )
    return out


def batch_norm_track_(
    mean: Tensor, variance: Tensor, moments: Tensor, weight: float | Tensor, count: int
) -> None:
    """Move running statistics towards `moments`, in place, as PyTorch's batch norm does.

    Args:
        mean: [C] float32.
        variance: [C] float32.
        moments: [2, C], means and variances of `count` values a channel.
        weight: how far, 1 to the end (PyTorch's momentum); a scalar tensor is not waited for.
        count: the variance is multiplied by count / (count - 1), which takes its bias away.
    """
    alike = mean.dtype == variance.dtype == moments.dtype == torch.float32
    traced = torch.compiler.is_compiling() or isinstance(weight, Tensor)
    if alike and not traced and _is_compiled(mean):
        torch.ops.pokegan.batch_norm_track_(mean, variance, moments, weight, count)
        return
    mean.lerp_(moments[0].to(mean), weight)
    variance.lerp_((moments[1] * (count / max(count - 1, 1))).to(variance), weight)


def batch_norm_moments_reference(input: Tensor) -> Tensor:
    """Do what `batch_norm_moments` does, in plain PyTorch; float64 stays."""
    variance, mean = torch.var_mean(_wide(input), _over(input), correction=0)
    return torch.stack((mean, variance))


def batch_norm_act_reference(
    input: Tensor,
    moments: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    slope: float,
) -> Tensor:
    """Do what `batch_norm_act` does, in plain PyTorch; float64 stays."""
    before = _before(input, moments, weight, bias, eps)
    return torch.where(before <= 0, before * slope if slope else 0.0, before).to(input.dtype)


def batch_norm_act_sums_reference(
    gradient: Tensor,
    input: Tensor,
    moments: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    slope: float,
) -> Tensor:
    """Do what `batch_norm_act_sums` does, in plain PyTorch; float64 stays."""
    behind = through_activation(gradient, _before(input, moments, weight, bias, eps), slope)
    normal = _before(input, moments, None, None, eps)
    dims = _over(input)
    return torch.stack(((behind * normal).sum(dims), behind.sum(dims)))


def batch_norm_act_backward_reference(
    gradient: Tensor,
    input: Tensor,
    moments: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    sums: Tensor,
    count: int,
    eps: float,
    slope: float,
) -> Tensor:
    """Do what `batch_norm_act_backward` does, in plain PyTorch; float64 stays."""
    behind = through_activation(gradient, _before(input, moments, weight, bias, eps), slope)
    normal = _before(input, moments, None, None, eps)
    along, level = (by_channel(one / count, input) for one in sums.unbind())
    scale = torch.rsqrt(moments[1] + eps) * (1 if weight is None else weight)
    return (by_channel(scale, input) * (behind - level - normal * along)).to(input.dtype)


def through_activation(gradient: Tensor, before: Tensor, slope: float) -> Tensor:
    """Return the gradient by `before` of what has `gradient` by its activation."""
    wide = gradient.to(before.dtype)
    return torch.where(before <= 0, wide * slope if slope else 0.0, wide)


def by_channel(values: Tensor, like: Tensor) -> Tensor:
    """Give [C] values the shape [1, C, 1, ...] of `like`."""
    return values.view(1, -1, *[1] * (like.dim() - 2))


def channels_last(maps: Tensor) -> Tensor:
    """Return [N, C, ...] as it is where it is dense with the channels last, else a copy that is."""
    if maps.dim() < 2 or is_channels_last(maps):
        return maps  # where a dimension is missing the operator says so
    return maps.movedim(1, -1).contiguous().movedim(-1, 1)


def is_channels_last(maps: Tensor) -> bool:
    """Return whether [N, C, ...] is dense with the channels last in memory."""
    if maps.dim() == 4:
        return maps.is_contiguous(memory_format=torch.channels_last)
    return maps.movedim(1, -1).is_contiguous()


def empty_rows(maps: Tensor) -> Tensor:
    """Return an empty tensor like [N, C, ...], with the channels last in memory."""
    strides, stride = [1] * maps.dim(), maps.shape[1]
    for axis in (*range(maps.dim() - 1, 1, -1), 0):
        strides[axis] = stride
        stride = stride * maps.shape[axis]
    out: Tensor = maps.new_empty_strided(maps.shape, strides)
    return out


def _is_compiled(input: Tensor) -> bool:
    return _USE.cpu and input.device.type == "cpu"


def _before(
    input: Tensor, moments: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """What the activation is applied to."""
    scale = torch.rsqrt(moments[1] + eps) * (1 if weight is None else weight)
    centred = _wide(input) - by_channel(moments[0], input)
    normal = centred * by_channel(scale, input)
    return normal if bias is None else normal + by_channel(bias, input)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _over(input: Tensor) -> list[int]:
    """Return all dimensions but that of the channels."""
    return [dim for dim in range(input.dim()) if dim != 1]


if _USE.cpu:

    @torch.library.register_fake("pokegan::batch_norm_moments")  # type: ignore[untyped-decorator]  # torch's
    def _fake_moments(input: Tensor, units: int = 0) -> Tensor:
        return input.new_empty((2, input.shape[1]), dtype=torch.float32)

    @torch.library.register_fake("pokegan::batch_norm_act")  # type: ignore[untyped-decorator]  # torch's
    def _fake_act(input: Tensor, *rest: Any) -> Tensor:
        return empty_rows(input)

    @torch.library.register_fake("pokegan::batch_norm_act_sums")  # type: ignore[untyped-decorator]  # torch's
    def _fake_sums(gradient: Tensor, input: Tensor, *rest: Any) -> Tensor:
        return input.new_empty((2, input.shape[1]), dtype=torch.float32)

    @torch.library.register_fake("pokegan::batch_norm_act_backward")  # type: ignore[untyped-decorator]  # torch's
    def _fake_backward(gradient: Tensor, input: Tensor, *rest: Any) -> Tensor:
        return empty_rows(input)
