"""A training step is a list of phases; this is what a phase is, and what it is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class StepInput:
    """What every phase of one step sees.

    Attributes:
        real: [B, 3, H, W] normalised pictures of this rank.
        samples: [B] int64 global sample indices of this rank's share.
        step: int64 scalar on the device: which step this is.
        shared: what one phase leaves for a later one of the same step, by name.
        anchor: a zero that requires a gradient, in a step that is run as one function of tensors:
            there, what is differentiated within a loss begins at it. Else None.
    """

    real: Tensor
    samples: Tensor
    step: Tensor
    shared: dict[str, Tensor] = field(default_factory=dict)
    anchor: Tensor | None = None


@dataclass(frozen=True)
class PhaseResult:
    """A phase's scalar loss, and detached scalars to record."""

    loss: Tensor
    recorded: Mapping[str, Tensor]


@dataclass(frozen=True)
class Phase:
    """One part of a step: a backward pass and an optimiser's step of its own.

    Attributes:
        name: for the records and messages.
        updates: names of the networks whose parameters this phase optimises.
        loss: gives the loss.
        frozen: names of networks that take part with parameters that need no gradient.
        every: the phase runs in the last of every so many steps.
        clip: after the update, every parameter of the networks in `updates` is clamped to
            [-clip, clip]: weights, biases, and norms' scales and biases alike, as in Algorithm 1
            of arXiv 1701.07875; buffers are not. None for no clipping.
        second_order: the loss holds gradients of the networks in `updates`.
    """

    name: str
    updates: tuple[str, ...]
    loss: Callable[[StepInput], PhaseResult]
    frozen: tuple[str, ...] = ()
    every: int = 1
    clip: float | None = None
    second_order: bool = False
