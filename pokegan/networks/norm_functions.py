"""What autograd knows of batch norm over all ranks: alone, with an activation, with a convolution.

A norm's moments and the sums of its gradient are [2, C] tensors, which ranks exchange.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pokegan.ops.batch_norm_act import (
    batch_norm_act,
    batch_norm_act_backward,
    batch_norm_act_sums,
    batch_norm_moments,
    by_channel,
    channels_last,
    through_activation,
)
from pokegan.ops.conv_gradients import bias_gradient
from pokegan.ops.conv_layer import ConvLayer
from pokegan.peers import Peers, total

Numbers = tuple[Tensor, Tensor | None, Tensor | None]  # moments, weight and bias


class NormSettings(NamedTuple):
    """What a norm and its activation are called with, beside tensors."""

    eps: float
    slope: float
    peers: Peers | None

    def together(self, moments: Tensor) -> Tensor:
        """Return the moments of all ranks' maps."""
        return moments if self.peers is None else torch.stack(_together(self.peers.gather(moments)))

    def count(self, input: Tensor) -> int:
        """Return how many values of a channel all ranks have."""
        ranks = 1 if self.peers is None else self.peers.count
        return ranks * input.numel() // input.shape[1]

    def backward(self, gradient: Tensor, input: Tensor, numbers: Numbers, sums: Tensor) -> Tensor:
        """Return the gradient by the input."""
        sums = sums if self.peers is None else self.peers.sum(sums)
        count = self.count(input)
        return batch_norm_act_backward(gradient, input, *numbers, sums, count, self.eps, self.slope)


class Fused(torch.autograd.Function):
    """Norm and activation by our kernels, with the same talk between ranks as `Normalise`.

    Only the input is kept, of which the activation's slopes are computed again. Where the input
    needs no gradient, ranks have nothing to say backwards.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        moments: Tensor | None,
        by: NormSettings,
        shared: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Return act(norm(input)) and the moments.

        `moments` are the input's, where known; or those of all ranks, if they are `shared`.
        """
        own = batch_norm_moments(input) if moments is None else moments
        moments = own if shared else by.together(own)
        ctx.save_for_backward(input, weight, bias, moments)
        ctx.by = by
        ctx.mark_non_differentiable(moments)
        ctx.set_materialize_grads(False)  # nobody asks for zeros in the place of the moments'
        return batch_norm_act(input, moments, weight, bias, by.eps, by.slope), moments

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor | None, *unused: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of input, weight and bias."""
        if gradient is None:
            return (None,) * 6
        input, weight, bias, moments = ctx.saved_tensors
        by: NormSettings = ctx.by
        grads: tuple[Tensor | None, ...]
        if torch.is_grad_enabled():  # to be differentiated again
            grads = _differentiable(gradient, input, weight, bias, by)
        else:
            numbers = (moments, weight, bias)
            gradient = channels_last(gradient)  # once for both passes
            sums = batch_norm_act_sums(gradient, input, *numbers, by.eps, by.slope)
            needed = ctx.needs_input_grad[0]
            grads = by.backward(gradient, input, numbers, sums) if needed else None, *sums.unbind()
        return *_due(grads, ctx.needs_input_grad), None, None, None


class NormConvolution(torch.autograd.Function):
    """`Fused`, and the convolution behind it, whose gradient's sums are made where it is written.

    What is between them is kept for the gradient by the convolution's weight. Ranks say to each
    other what they say with two functions; but who asks autograd for the gradient by the kernel
    alone, while the norm needs one, too, has them say what two functions would leave out.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        kernel: Tensor,
        kernel_bias: Tensor | None,
        moments: Tensor | None,
        by: NormSettings,
        layer: ConvLayer,
        summed: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the result, the moments of the input, and if `summed` those of the result."""
        moments = by.together(batch_norm_moments(input) if moments is None else moments)
        between = batch_norm_act(input, moments, weight, bias, by.eps, by.slope)
        out, behind = layer.run(between, kernel, kernel_bias, summed)
        ctx.save_for_backward(input, weight, bias, moments, between, kernel)
        ctx.by, ctx.layer = by, layer
        ctx.bias_dtype = None if kernel_bias is None else kernel_bias.dtype
        ctx.mark_non_differentiable(moments, *([] if behind is None else [behind]))
        ctx.set_materialize_grads(False)
        return out, moments, behind

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor | None, *unused: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of input, weight and bias, of kernel and its bias."""
        if gradient is None:
            return (None,) * 9
        input, weight, bias, moments, between, kernel = ctx.saved_tensors
        by: NormSettings = ctx.by
        layer: ConvLayer = ctx.layer
        needed = ctx.needs_input_grad
        gradient = channels_last(gradient)
        norm: tuple[Tensor | None, ...] = (None,) * 3
        to_kernel = to_bias = None
        if torch.is_grad_enabled():  # to be differentiated again
            if needed[3]:
                between = Fused.apply(input, weight, bias, moments, by, True)[0]
            if any(needed[:3]):
                to_between = layer.by_input(gradient, kernel, between)
                norm = _differentiable(to_between, input, weight, bias, by)
        elif any(needed[:3]):
            numbers = (moments, weight, bias)
            to_between, sums = layer.by_input_and_sums(
                gradient, kernel, input, (*numbers, by.eps, by.slope)
            )
            to_input = by.backward(to_between, input, numbers, sums) if needed[0] else None
            norm = to_input, *sums.unbind()
        if needed[3]:
            to_kernel = layer.by_weight(between, gradient, kernel)
        if needed[4]:
            to_bias = bias_gradient(gradient, ctx.bias_dtype)
        return *_due(norm, needed), to_kernel, to_bias, None, None, None, None


def _due(grads: tuple[Tensor | None, ...], needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    return tuple(grad if need else None for grad, need in zip(grads, needed, strict=False))


class Normalise(torch.autograd.Function):
    """One gather of means and variances forwards, one sum of two vectors backwards.

    Shares are equal, so the mean of the batch is that of the ranks' means, and its variance the
    mean of (variance + squared distance of the means): no difference of large numbers.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        peers: Peers,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the input normalised, and the means and variances."""
        dtype = torch.promote_types(input.dtype, torch.float32)
        own = torch.stack(_moments(input, dtype))
        mean, variance = _together(peers.gather(own))
        ctx.save_for_backward(input, weight, mean, variance)
        ctx.eps, ctx.peers = eps, peers
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        out = torch.batch_norm(input, weight, bias, mean, variance, False, 0.0, eps, True)
        return out, mean, variance

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor | None, *unused: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of input, weight and bias."""
        if gradient is None:
            return (None,) * 5
        input, weight, mean, variance = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            by = NormSettings(ctx.eps, 1.0, ctx.peers)
            grads = _differentiable(gradient, input, weight, None, by)
        else:
            grads = _backward(gradient, input, weight, mean, variance, ctx.eps, ctx.peers)
        return *_due(grads, ctx.needs_input_grad), None, None


def _backward(
    gradient: Tensor,
    input: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    peers: Peers,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of input, weight and bias, in two passes over memory.

    dx = w s (dy - mean(dy) - n mean(dy n)), where n = (x - m) s and s = 1 / sqrt(v + eps), is
    a dy + b x + c with one number a channel each. Batch norm in eval mode gives b x + c.
    """
    scale = torch.rsqrt(variance + eps)
    _, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
        gradient, input, weight, mean, variance, mean, scale, False, eps, [False, True, True]
    )  # CUDA asks for both pairs, though eval mode's derivative needs but one
    count = peers.count * input.numel() // input.shape[1]
    along, level = peers.sum(torch.stack((by_weight, by_bias)).to(mean)).div_(count).unbind()
    a = scale if weight is None else scale * weight
    b = -a * scale * along
    c = -a * level - b * mean
    zero, one = torch.zeros_like(b), torch.ones_like(b)
    rest = torch.batch_norm(input, b, c, zero, one, False, 0.0, 0.0, True)
    return rest.addcmul_(gradient, by_channel(a.to(gradient), gradient)), by_weight, by_bias


def _differentiable(
    gradient: Tensor,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    by: NormSettings,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the backward passes do as a function of gradient, input and weight."""
    dims = _over(input)
    count, peers = by.count(input), by.peers
    wide = torch.promote_types(input.dtype, torch.float32)
    dy, x = gradient.to(wide), input.to(wide)

    def mean(values: Tensor) -> Tensor:
        summed = values.sum(dims)
        return by_channel((summed if peers is None else total(summed, peers)) / count, x)

    centred = x - mean(x)
    scale = torch.rsqrt(mean(centred.square()) + by.eps)
    normal = centred * scale
    if by.slope != 1:
        before = normal if weight is None else normal * by_channel(weight, x)
        before = before if bias is None else before + by_channel(bias, x)
        dy = through_activation(dy, before, by.slope)
    dx = scale * (dy - mean(dy) - normal * mean(dy * normal))
    if weight is not None:
        dx = dx * by_channel(weight, x)
    return dx.to(input.dtype), (dy * normal).sum(dims), dy.sum(dims)


def _together(moments: Tensor) -> tuple[Tensor, Tensor]:
    """[R, 2, C] means and variances of equal shares to those of the whole, [C] each."""
    means, variances = moments.unbind(1)
    mean = means.mean(0)
    return mean, (variances + (means - mean).square()).mean(0)


def _moments(input: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return mean and variance of every channel, [C] each of `dtype`."""
    if torch.compiler.is_compiling():
        variance, mean = torch.var_mean(input.to(dtype), _over(input), correction=0)
        return mean, variance
    nothing = torch.zeros(input.shape[1], dtype=dtype, device=input.device)
    return torch.batch_norm_update_stats(input, nothing, nothing.clone(), 0.0)


def _over(input: Tensor) -> list[int]:
    """Return all dimensions but that of the channels."""
    return [dim for dim in range(input.dim()) if dim != 1]
