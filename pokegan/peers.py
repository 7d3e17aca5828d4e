"""What the ranks of a run tell each other, seen from layers and losses that need the whole batch.

Each rank has an equal share of the batch and a loss of its own, the mean over its share; the run
follows the mean of these losses. A gradient that passes from rank to rank is therefore that of
their sum. Knows tensors; who the ranks are, and how they talk, only `training.distributed` knows.
"""

from typing import Any, Protocol

import torch
from torch import Tensor


class Peers(Protocol):
    """The ranks of a run. All of them make the same calls, in the same order.

    Attributes:
        count: how many ranks there are.
        rank: which of them this is, from 0.
    """

    @property
    def count(self) -> int:
        """Return how many ranks there are."""
        ...

    @property
    def rank(self) -> int:
        """Return which of them this is."""
        ...

    def gather(self, values: Tensor) -> Tensor:
        """Return [count, ...], the [...] values of every rank in their order; no gradient."""
        ...

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of the values of all ranks, the same bits on each; no gradient."""
        ...


def total(values: Tensor, peers: Peers) -> Tensor:
    """Return the sum of `values` over the ranks, differentiable any number of times."""
    summed: Tensor = _Total.apply(values, peers)
    return summed


def whole(values: Tensor, peers: Peers | None) -> Tensor:
    """Return [count N, ...]: the [N, ...] values of all ranks, in the order of the samples.

    For a loss that looks at all of the batch: every rank computes it alike, and its gradient by a
    rank's own values comes back without talking again. So it is the gradient of that one loss,
    counted `count` times, as is due where ranks' gradients are averaged.
    """
    if peers is None:
        return values
    if not values.requires_grad:
        return peers.gather(values).flatten(0, 1)
    gathered: Tensor = _Whole.apply(values, peers)
    return gathered


class _Total(torch.autograd.Function):
    """The sum over ranks: the gradient of a sum is the sum of the gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, peers: Peers) -> Tensor:
        ctx.peers = peers
        return peers.sum(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return total(gradient, ctx.peers), None


class _Whole(torch.autograd.Function):
    """All ranks' values, with a gradient for one's own alone."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, peers: Peers) -> Tensor:
        everyone = peers.gather(values)
        ctx.peers = peers
        return everyone.flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        peers: Peers = ctx.peers
        own = gradient.view(peers.count, -1, *gradient.shape[1:])[peers.rank]
        return own * peers.count, None
