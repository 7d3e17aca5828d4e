"""A whole training step as one function of tensors: what a compiler or a recorder is given.

All phases, their updates, the noise and the adaptive augmentation are in it. What runs is fixed
while it is traced, by which phases are due.
"""

import abc
import itertools
import types
import weakref
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pokegan.networks.progressive import fades
from pokegan.networks.spectral_norm import SpectralNorm, spectral_norms
from pokegan.objectives.phases import Phase, StepInput
from pokegan.ops.conv_choice import split_products
from pokegan.ops.python_operator import python_operator
from pokegan.training.adam_update import AdamUpdate
from pokegan.training.step import GradientObserver, Reduce, StepParts, StepRefusedError, clip

Gradients = list[Tensor | None]
Outcome = tuple[dict[str, Tensor], list[Gradients]]
Traceable = Callable[[Tensor, Tensor, Tensor], Outcome]
Due = tuple[int, ...]  # indices of the phases that run in a step: each choice is a trace of its own

Branches = tuple[bool, ...]


class WholeStep:
    """What `EagerStep` does, without Python between the tensors.

    Args:
        parts: what the step is made of.

    Raises:
        StepRefusedError: an optimiser is no fused Adam.
    """

    def __init__(self, parts: StepParts) -> None:
        # One by one: a tracer that met `parts` would look into the optimisers too.
        self.networks = parts.networks
        self.phases = parts.phases
        self.autocast = parts.autocast
        self.split = parts.split
        self.device = parts.device
        self.noise = parts.noise
        self.adaptive = parts.adaptive
        self.reducer = None if parts.reduce is None else _Reducer(parts.reduce)
        self.updates = {name: AdamUpdate(one) for name, one in parts.optimizers.items()}
        self.norms = {name: spectral_norms(network) for name, network in parts.networks.items()}
        self._fades = [fade for network in parts.networks.values() for fade in fades(network)]
        self.anchor = torch.zeros((), device=parts.device, requires_grad=True)
        self._left: dict[Due, tuple[bool, ...]] = {}

    def prepare(self, number: int) -> tuple[Due, bool]:
        """Get ready for step `number`; return what is due in it, and whether traces are stale."""
        stale = [update.prepare() for update in self.updates.values()]
        for norm in self._all_norms():
            norm.enter_step()
        due = (i for i, phase in enumerate(self.phases) if (number + 1) % phase.every == 0)
        return tuple(due), any(stale)

    def branches(self) -> Branches:
        """Return what else decides which operators a step has, where it is not compiled."""
        return tuple(fade.over for fade in self._fades)

    def function(self, due: Due) -> Traceable:
        """Return the step of `due`: (real, samples, step) as in `StepInput` to its outcome.

        The outcome is the detached scalars to record, and for every update of `updated` the
        gradients of its network's parameters.
        """

        def run(real: Tensor, samples: Tensor, step: Tensor) -> Outcome:
            return self._run(due, StepInput(real, samples, step, anchor=self.anchor))

        # A code object of its own: torch.compile counts the compilations of each.
        code = run.__code__.replace(co_name=f"step_{'_'.join(map(str, due))}")
        return types.FunctionType(code, globals(), code.co_name, None, run.__closure__)

    def finish(self, due: Due) -> None:
        """Note what a run of `due` left behind; also after a replay, which runs no Python."""
        left = self._left.setdefault(due, tuple(norm.left for norm in self._all_norms()))
        for norm, current in zip(self._all_norms(), left, strict=True):
            norm.leave_step(current)

    def abandon(self) -> None:
        """Undo `prepare` for a step that was traced but not run."""
        for norm in self._all_norms():
            norm.leave_step(not norm.exact)  # for these `prepare` found no sigma

    def break_off(self) -> None:
        """Forget what is known of the weights, which a step may have written before it failed."""
        for norm in self._all_norms():
            norm.leave_step(False)

    def show(self, observer: GradientObserver, due: Due, outcome: Outcome) -> None:
        """Let `observer` see the gradients of a step, whose update is done by now."""
        names = [name for place in due for name in self.phases[place].updates]
        for name, gradients in zip(names, outcome[1], strict=True):
            parameters = self.updates[name].parameters
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            observer.observe(name, self.networks[name])
            for parameter in parameters:
                parameter.grad = None

    def _all_norms(self) -> list[SpectralNorm]:
        return list(itertools.chain.from_iterable(self.norms.values()))

    def _run(self, due: Due, inputs: StepInput) -> Outcome:
        for norm in self._all_norms():
            norm.begin_step()
        for noise in self.noise:
            noise.begin(inputs.step, inputs.samples)
        recorded: dict[str, Tensor] = {}
        gradients: list[Gradients] = []
        for place in due:
            recorded.update(self._run_phase(self.phases[place], inputs, gradients))
        if self.adaptive is not None:
            self.adaptive.update(inputs.samples.shape[0])
            recorded.update(self.adaptive.recorded())
        for norm in self._all_norms():
            norm.end_step()
        return recorded, gradients

    def _run_phase(
        self, phase: Phase, inputs: StepInput, gradients: list[Gradients]
    ) -> Mapping[str, Tensor]:
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)
        with autocast, split_products(self.split):
            result = phase.loss(inputs)
        parameters = [p for name in phase.updates for p in self.updates[name].parameters]
        found: Gradients = list(torch.autograd.grad(result.loss, parameters, allow_unused=True))
        with torch.no_grad():
            for name in phase.updates:
                count = len(self.updates[name].parameters)
                own, found = found[:count], found[count:]
                self._update(name, own, phase.clip)
                gradients.append(own)
        return result.recorded

    def _update(self, name: str, gradients: Gradients, bound: float | None) -> None:
        if self.reducer is not None:
            given = [gradient for gradient in gradients if gradient is not None]
            torch.ops.pokegan.reduce_gradients(given, name, self.reducer.number)
        self.updates[name](gradients)
        if bound is not None:
            clip(self.networks[name], bound)
        for norm in self.norms[name]:
            norm.written()


class WholeSteps(abc.ABC):
    """Runs whole steps one way or another, in place of `EagerStep`.

    The observer is called after the step: it sees the step's gradients and the updated weights.

    Args:
        whole: the step.
    """

    mode: str

    def __init__(self, whole: WholeStep) -> None:
        self.whole = whole

    def __call__(
        self, inputs: StepInput, number: int, observer: GradientObserver | None = None
    ) -> Mapping[str, Tensor]:
        """Run step `number` and return detached scalars to record, on the device.

        Raises:
            StepRefusedError: this way does not work; nothing was run.
        """
        due, stale = self.whole.prepare(number)
        if stale:
            self.forget()
        try:
            outcome = self.run(due, inputs)
        except StepRefusedError:
            self.whole.abandon()
            raise
        except BaseException:
            self.whole.break_off()
            raise
        self.whole.finish(due)
        if observer is not None:
            self.whole.show(observer, due, outcome)
        return outcome[0]

    def news(self) -> list[str]:
        """Return nothing: there is nothing to tell."""
        return []

    def close(self) -> None:
        """Give up what was made for further steps; there are none."""
        self.forget()

    @abc.abstractmethod
    def run(self, due: Due, inputs: StepInput) -> Outcome:
        """Run the phases `due`."""

    @abc.abstractmethod
    def forget(self) -> None:
        """Drop what was made of the step: tensors that it knows were replaced."""


class _Reducer:
    """A number for a callable, by which an operator finds it."""

    def __init__(self, reduce: Reduce) -> None:
        self.reduce = reduce
        self.number = next(_numbers)
        _reducers[self.number] = self


_numbers = itertools.count()
_reducers: "weakref.WeakValueDictionary[int, _Reducer]" = weakref.WeakValueDictionary()


def _reduce_gradients(gradients: list[Tensor], network: str, number: int) -> None:
    """Call the reducer of that number: no compiler looks into it."""
    _reducers[number].reduce(network, gradients)


python_operator(_reduce_gradients, "reduce_gradients", changes=("gradients",))
