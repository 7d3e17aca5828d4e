"""Batch norm over the pictures of all ranks, so that a run is the same on any number of them.

On the CPU the activation behind a norm is computed with it, by `pokegan.ops.batch_norm_act`.
Elsewhere, and in eval mode, the layers are PyTorch's own. Knows `Peers`; not who they are.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pokegan.networks.convolution import Conv2d, ConvTranspose2d, has_hooks, layer_of
from pokegan.networks.norm_functions import Fused, Normalise, NormConvolution, NormSettings
from pokegan.ops import second_order
from pokegan.ops.activation import activate_, can_activate
from pokegan.ops.batch_norm_act import batch_norm_track_, can_fuse
from pokegan.peers import Peers


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
        parameters = (input, self.weight, self.bias)
        by = NormSettings(self.eps, 1.0 if slope is None else slope, self.peers)
        out: Tensor
        if fused:
            out, moments = Fused.apply(*parameters, moments, by)
        else:
            normalised, mean, variance = Normalise.apply(*parameters, self.eps, self.peers)
            out = _followed(normalised, activation)
            moments = torch.stack((mean, variance))
        self._track(moments, by.count(input))
        return out

    def with_convolution(
        self,
        input: Tensor,
        activation: nn.Module | None,
        moments: Tensor | None,
        convolution: nn.Module | None,
        summed: bool,
    ) -> tuple[Tensor, Tensor | None] | None:
        """Return what the convolution behind makes, and its moments, if they are to be `summed`.

        None where they are better called one by one.
        """
        slope = _slope(activation)
        if slope is None or not self.training or second_order.inside():
            return None
        if has_hooks(self) or not can_fuse(input, self.weight, self.bias):
            return None
        layer = layer_of(convolution, input)
        if layer is None:
            return None
        assert isinstance(convolution, _CONVOLUTIONS)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]  # torch's
        by = NormSettings(self.eps, slope, self.peers)
        parameters = (self.weight, self.bias, convolution.weight, convolution.bias)
        out, own, behind = NormConvolution.apply(input, *parameters, moments, by, layer, summed)
        self._track(own, by.count(input))
        return out, behind

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
    takes the moments of a convolution before it, that are summed where it is written; and makes one
    function with a convolution behind it, whose gradient is summed where it is written. Other
    activations in place go to `pokegan.ops.activation` in training.
    """

    def forward(self, input: Any) -> Any:
        """Pass `input` through the modules."""
        modules = [*self, None, None, None]
        moments = None
        place = 0
        while (module := modules[place]) is not None:
            behind = modules[place + 1]
            if isinstance(module, _SharedBatchNorm):
                activation = behind if _slope(behind) not in (None, 1.0) else None
                place += 1 if activation is None else 2
                after, summed = modules[place], _takes_moments(modules[place + 1])
                both = module.with_convolution(input, activation, moments, after, summed)
                if both is not None:
                    input, moments = both
                    place += 1
                elif activation is None and moments is None:
                    input = module(input)
                else:
                    input, moments = module(input, activation, moments), None
            elif isinstance(module, _CONVOLUTIONS) and _takes_moments(behind):
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


def _takes_moments(module: nn.Module | None) -> bool:
    """Whether it normalises by the moments of what it is given, which nobody changes before."""
    return isinstance(module, _SharedBatchNorm) and module.training and not has_hooks(module)


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
