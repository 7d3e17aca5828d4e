"""Batch norm over the pictures of all ranks, so that a run is the same on any number of them.

On the CPU the activation behind a norm is computed with it, by `pokegan.ops.batch_norm_act`.
Elsewhere, and in eval mode, the layers are PyTorch's own. Knows `Peers`; not who they are.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pokegan.networks.convolution import Conv2d, ConvTranspose2d
from pokegan.ops import second_order
from pokegan.ops.activation import activate_, can_activate
from pokegan.ops.batch_norm_act import (
    batch_norm_act,
    batch_norm_act_backward,
    batch_norm_act_sums,
    batch_norm_moments,
    batch_norm_track_,
    by_channel,
    can_fuse,
    channels_last,
    through_activation,
)
from pokegan.peers import Peers, total


class _SharedBatchNorm(_BatchNorm):
    """Batch norm (arXiv 1502.03167) whose means and variances are those of the whole batch.

    `share` says over which ranks; state and results in eval mode are those of PyTorch's layers.
    """

    peers: Peers | None = None

    def forward(
        self,
        input: Tensor,
        activation: nn.Module | None = None,
        moments: Tensor | None = None,
    ) -> Tensor:
        """[N, C, ...] to the same; N is the same on every rank. `activation` is what follows.

        `moments` are the input's means and variances, [2, C], where they are known.
        """
        slope = _slope(activation)
        fused = self.training and slope is not None and can_fuse(input, self.weight, self.bias)
        if not self.training or (self.peers is None and not fused):
            return _followed(super().forward(input), activation)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]  # torch's
        ranks = 1 if self.peers is None else self.peers.count
        parameters = (input, self.weight, self.bias, self.eps)
        out: Tensor
        if fused:
            out, moments = _Fused.apply(*parameters, slope, self.peers, moments)
        else:
            normalised, mean, variance = _Normalise.apply(*parameters, self.peers)
            out = _followed(normalised, activation)
            moments = torch.stack((mean, variance))
        self._track(moments, ranks * input.numel() // input.shape[1])
        return out

    @torch.no_grad()
    def _track(self, moments: Tensor, count: int) -> None:
        """Move the running statistics, as PyTorch does, to the moments of `count` values."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        weight = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        # By `data`, as PyTorch's kernels do: autograd minds no change of what an earlier call
        # of the same norm, computed by PyTorch, has kept.
        batch_norm_track_(self.running_mean.data, self.running_var.data, moments, weight, count)


class Sequential(nn.Sequential):
    """`torch.nn.Sequential`, whose batch norms are told of the layers around them.

    A norm computes the activation behind it, too, which stays a module of which nobody sees a call;
    and takes the moments of a convolution before it, that are summed where it is written. Other
    activations in place go to `pokegan.ops.activation` in training.
    """

    def forward(self, input: Any) -> Any:
        """Pass `input` through the modules."""
        modules = [*self, None]
        moments = None
        place = 0
        while (module := modules[place]) is not None:
            behind = modules[place + 1]
            if isinstance(module, _SharedBatchNorm):
                activation = behind if _slope(behind) not in (None, 1.0) else None
                input, moments = module(input, activation, moments), None
                place += 1 if activation is None else 2
            elif isinstance(module, _CONVOLUTIONS) and _sums(behind):
                input, moments = module.with_moments(input)
                place += 1
            elif isinstance(module, _ACTIVATIONS) and module.training:
                input = _activated(input, module)
                place += 1
            else:
                input = module(input)
                place += 1
        return input


class BatchNorm1d(_SharedBatchNorm, nn.BatchNorm1d):
    """Of [N, C] and [N, C, L]."""


class BatchNorm2d(_SharedBatchNorm, nn.BatchNorm2d):
    """Of [N, C, H, W]."""


def share(network: nn.Module, peers: Peers | None) -> int:
    """Let the batch norms of `network` see the batches of all `peers`; return how many there are.

    None makes each rank normalise its own share again.
    """
    count = 0
    for norm in batch_norms(network):
        norm.peers = peers
        count += 1
    return count


def batch_norms(network: nn.Module) -> Iterator[_SharedBatchNorm]:
    """Yield the batch norms within `network`."""
    return (module for module in network.modules() if isinstance(module, _SharedBatchNorm))


_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU)
_CONVOLUTIONS = (Conv2d, ConvTranspose2d)


def _sums(module: nn.Module | None) -> bool:
    """Whether it asks for the moments of its input."""
    return isinstance(module, _SharedBatchNorm) and module.training


def _activated(values: Tensor, activation: nn.ReLU | nn.LeakyReLU) -> Tensor:
    slope = _slope(activation)
    if slope is not None and second_order.inside():
        return second_order.piecewise_linear(values, slope, activation.inplace)
    if slope is None or not activation.inplace or not can_activate(values):
        return _followed(values, activation)
    return activate_(values, slope)


def _slope(activation: nn.Module | None) -> float | None:
    """Return the slope below 0 of a (leaky) ReLU, 1 of nothing, None of anything else."""
    if activation is None:
        return 1.0
    if type(activation) is nn.ReLU:
        return 0.0
    return float(activation.negative_slope) if type(activation) is nn.LeakyReLU else None


def _followed(values: Tensor, activation: nn.Module | None) -> Tensor:
    out: Tensor = values if activation is None else activation(values)
    return out


class _Fused(torch.autograd.Function):
    """Norm and activation by our kernels, with the same talk between ranks as `_Normalise`.

    Only the input is kept, of which the activation's slopes are computed again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        slope: float,
        peers: Peers | None,
        moments: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        if moments is None:
            moments = batch_norm_moments(input)
        if peers is not None:
            moments = torch.stack(_together(peers.gather(moments)))
        ctx.save_for_backward(input, weight, bias, moments)
        ctx.eps, ctx.slope, ctx.peers = eps, slope, peers
        ctx.mark_non_differentiable(moments)
        ctx.set_materialize_grads(False)  # nobody asks for zeros in the place of the moments'
        return batch_norm_act(input, moments, weight, bias, eps, slope), moments

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor | None, *unused: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (None,) * 7
        input, weight, bias, moments = ctx.saved_tensors
        peers: Peers | None = ctx.peers
        grads: tuple[Tensor | None, Tensor, Tensor]
        if torch.is_grad_enabled():  # to be differentiated again
            grads = _differentiable(gradient, input, weight, bias, ctx.eps, ctx.slope, peers)
        else:
            numbers = (moments, weight, bias)
            gradient = channels_last(gradient)  # once for both passes
            sums = batch_norm_act_sums(gradient, input, *numbers, ctx.eps, ctx.slope)
            to_input = None
            if ctx.needs_input_grad[0]:
                ranks = 1 if peers is None else peers.count
                to_input = batch_norm_act_backward(
                    gradient,
                    input,
                    *numbers,
                    sums if peers is None else peers.sum(sums),
                    ranks * input.numel() // input.shape[1],
                    ctx.eps,
                    ctx.slope,
                )
            grads = to_input, sums[0], sums[1]
        needed = zip(grads, ctx.needs_input_grad, strict=False)
        return *(grad if need else None for grad, need in needed), None, None, None, None


class _Normalise(torch.autograd.Function):
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
        if gradient is None:
            return (None,) * 5
        input, weight, mean, variance = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            grads = _differentiable(gradient, input, weight, None, ctx.eps, 1.0, ctx.peers)
        else:
            grads = _backward(gradient, input, weight, mean, variance, ctx.eps, ctx.peers)
        needed = zip(grads, ctx.needs_input_grad, strict=False)
        return *(grad if need else None for grad, need in needed), None, None


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
    eps: float,
    slope: float,
    peers: Peers | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the backward passes do as a function of gradient, input and weight."""
    dims = _over(input)
    count = (1 if peers is None else peers.count) * input.numel() // input.shape[1]
    wide = torch.promote_types(input.dtype, torch.float32)
    dy, x = gradient.to(wide), input.to(wide)

    def mean(values: Tensor) -> Tensor:
        summed = values.sum(dims)
        return by_channel((summed if peers is None else total(summed, peers)) / count, x)

    centred = x - mean(x)
    scale = torch.rsqrt(mean(centred.square()) + eps)
    normal = centred * scale
    if slope != 1:
        before = normal if weight is None else normal * by_channel(weight, x)
        before = before if bias is None else before + by_channel(bias, x)
        dy = through_activation(dy, before, slope)
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
