"""One training step: runs a list of phases, each with its own optimisers. No host synchronisation.

Knows networks, optimisers and phases; not what they compute.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pokegan.augment import AdaptiveAugment
from pokegan.monitor.spans import span
from pokegan.networks.noise import CountedNoise
from pokegan.objectives.phases import Phase, StepInput
from pokegan.ops.conv_choice import split_products

Reduce = Callable[[str, Sequence[Tensor]], None]


@dataclass(frozen=True)
class StepParts:
    """What a step is made of, whichever way it runs.

    Attributes:
        networks: by name.
        optimizers: by the name of the network that each updates.
        phases: in order.
        device: of everything.
        autocast: bfloat16 autocast for the networks' arithmetic.
        noise: where the networks' noise layers get their numbers.
        adaptive: the augmentation that follows the discriminator's logits, if any.
        reduce: makes gradients the mean over all ranks, in place: called for every network that a
            phase updates, after its backward pass and before its update, with the network's name
            and those of its parameters' gradients that there are, in the parameters' order.
        split: let convolutions of float32 be computed by `split_products`.
    """

    networks: Mapping[str, nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer]
    phases: Sequence[Phase]
    device: torch.device
    autocast: bool = False
    noise: Sequence[CountedNoise] = ()
    adaptive: AdaptiveAugment | None = None
    reduce: Reduce | None = None
    split: bool = False


class StepRefusedError(Exception):
    """A way to run steps does not work for this one. Nothing was changed.

    Attributes:
        part: what does not work: compile, capture, record, or optimiser.
        reason: why.
    """

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(f"{part}: {reason}")
        self.part = part
        self.reason = reason


class GradientObserver(Protocol):
    """Who looks at gradients between a phase's backward pass and its update."""

    def observe(self, name: str, network: nn.Module) -> None:
        """See the gradients of the network called `name`."""
        ...


class Step(Protocol):
    """Runs training steps."""

    @property
    def mode(self) -> str:
        """How, in words."""
        ...

    def __call__(
        self, inputs: StepInput, number: int, observer: GradientObserver | None = None
    ) -> Mapping[str, Tensor]:
        """Run step `number` and return detached scalars to record, on the device.

        The next step may write over them.
        """
        ...

    def news(self) -> list[str]:
        """Return what people should know since the last call."""
        ...

    def close(self) -> None:
        """Give up what was made for further steps; there are none."""
        ...


class EagerStep:
    """Runs the phases one after another, eagerly.

    Args:
        parts: what the step is made of.
    """

    mode = "eager"

    def __init__(self, parts: StepParts) -> None:
        self.parts = parts

    def __call__(
        self, inputs: StepInput, number: int, observer: GradientObserver | None = None
    ) -> dict[str, Tensor]:
        """Run step `number` and return detached scalars to record, on the device."""
        recorded: dict[str, Tensor] = {}
        for noise in self.parts.noise:
            noise.begin(inputs.step, inputs.samples)
        for phase in self.parts.phases:
            if (number + 1) % phase.every == 0:
                with span(phase.name):
                    recorded.update(self._run(phase, inputs, observer))
        adaptive = self.parts.adaptive
        if adaptive is not None:
            adaptive.update(len(inputs.samples))
            recorded.update(adaptive.recorded())
        return recorded

    def news(self) -> list[str]:
        """Return nothing: there is nothing to tell."""
        return []

    def close(self) -> None:
        """Give nothing up: nothing is kept between steps."""

    def _run(
        self, phase: Phase, inputs: StepInput, observer: GradientObserver | None
    ) -> Mapping[str, Tensor]:
        parts = self.parts
        with _frozen(parts.networks[name] for name in phase.frozen):
            autocast = torch.autocast(parts.device.type, torch.bfloat16, enabled=parts.autocast)
            with span("loss"), autocast, split_products(parts.split):
                result = phase.loss(inputs)
            with span("backward"):
                result.loss.backward()  # type: ignore[no-untyped-call]  # torch's
        for name in phase.updates:
            network, optimizer = parts.networks[name], parts.optimizers[name]
            if parts.reduce is not None:
                with span("all-reduce"):
                    parts.reduce(name, _gradients(network))
            if observer is not None:
                observer.observe(name, network)
            with span("optimiser"):
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if phase.clip is not None:
                    clip(network, phase.clip)
        return result.recorded


def _gradients(network: nn.Module) -> list[Tensor]:
    return [one.grad for one in network.parameters() if one.grad is not None]


@torch.no_grad()
def clip(network: nn.Module, bound: float) -> None:
    """Clamp the weights to [-bound, bound]: the Lipschitz constraint of arXiv 1701.07875."""
    parameters: list[Tensor] = list(network.parameters())
    torch._foreach_clamp_min_(parameters, -bound)
    torch._foreach_clamp_max_(parameters, bound)


@contextlib.contextmanager
def _frozen(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Let gradients pass through `networks` without computing those of their parameters."""
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
