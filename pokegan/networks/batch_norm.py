"""Batch norm over the pictures of all ranks, so that a run is the same on any number of them.

Alone, and in eval mode, the layers are PyTorch's own. Knows `Peers`; not who they are.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pokegan.peers import Peers, total


class _SharedBatchNorm(_BatchNorm):
    """Batch norm (arXiv 1502.03167) whose means and variances are those of the whole batch.

    `share` says over which ranks; state and results in eval mode are those of PyTorch's layers.
    """

    peers: Peers | None = None

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, ...] to the same; N is the same on every rank."""
        if self.peers is None or not self.training:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]  # torch's
        normalised: Tensor
        normalised, mean, variance = _Normalise.apply(
            input, self.weight, self.bias, self.eps, self.peers
        )
        self._track(mean, variance, self.peers.count * input.numel() // input.shape[1])
        return normalised

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics, as PyTorch does: the variance without its bias."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        weight = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        unbiased = variance * (count / max(count - 1, 1))
        self.running_mean.lerp_(mean.to(self.running_mean), weight)
        self.running_var.lerp_(unbiased.to(self.running_var), weight)


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
        means, variances = peers.gather(own).unbind(1)  # [R, C] each
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        ctx.save_for_backward(input, weight, mean, variance)
        ctx.eps, ctx.peers = eps, peers
        ctx.mark_non_differentiable(mean, variance)
        out = torch.batch_norm(input, weight, bias, mean, variance, False, 0.0, eps, True)
        return out, mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, mean, variance = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            grads = _differentiable(gradient, input, weight, ctx.eps, ctx.peers)
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
    _, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
        gradient, input, weight, mean, variance, None, None, False, eps, [False, True, True]
    )
    count = peers.count * input.numel() // input.shape[1]
    along, level = peers.sum(torch.stack((by_weight, by_bias)).to(mean)).div_(count).unbind()
    scale = torch.rsqrt(variance + eps)
    a = scale if weight is None else scale * weight
    b = -a * scale * along
    c = -a * level - b * mean
    zero, one = torch.zeros_like(b), torch.ones_like(b)
    rest = torch.batch_norm(input, b, c, zero, one, False, 0.0, 0.0, True)
    return rest.addcmul_(gradient, _by_channel(a.to(gradient), gradient)), by_weight, by_bias


def _differentiable(
    gradient: Tensor, input: Tensor, weight: Tensor | None, eps: float, peers: Peers
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `_backward` does as a function of gradient, input and weight."""
    dims = _over(input)
    count = peers.count * input.numel() // input.shape[1]
    wide = torch.promote_types(input.dtype, torch.float32)
    dy, x = gradient.to(wide), input.to(wide)

    def mean(values: Tensor) -> Tensor:
        return _by_channel(total(values.sum(dims), peers) / count, x)

    centred = x - mean(x)
    scale = torch.rsqrt(mean(centred.square()) + eps)
    normal = centred * scale
    dx = scale * (dy - mean(dy) - normal * mean(dy * normal))
    if weight is not None:
        dx = dx * _by_channel(weight, x)
    return dx.to(input.dtype), (dy * normal).sum(dims), dy.sum(dims)


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


def _by_channel(values: Tensor, like: Tensor) -> Tensor:
    """Give [C] values the shape [1, C, 1, ...] of `like`."""
    return values.view(1, -1, *[1] * (like.dim() - 2))
