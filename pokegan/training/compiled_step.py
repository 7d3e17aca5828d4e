"""A step compiled as a whole by torch.compile: one graph for every combination of due phases."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
import torch._dynamo
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from pokegan.objectives.phases import StepInput
from pokegan.training.step import GradientObserver, StepRefusedError
from pokegan.training.whole_step import Outcome, Traceable, Variant, WholeStep


class Runner:
    """Runs variants of a step, each compiled when it is first due.

    Args:
        whole: the step.
        backend: of torch.compile; None runs it as it is.
    """

    def __init__(self, whole: WholeStep, backend: str | None = "inductor") -> None:
        self.whole = whole
        self.backend = backend
        self._functions: dict[Variant, Traceable] = {}

    def __call__(self, variant: Variant, real: Tensor, samples: Tensor, step: Tensor) -> Outcome:
        """Run one step of `variant`.

        Raises:
            StepRefusedError: it does not compile; nothing was run.
        """
        if variant not in self._functions:
            self._functions[variant] = self._function(variant)
        try:
            with _tracing_autograd():
                return self._functions[variant](real, samples, step)
        except TorchDynamoException as error:
            raise StepRefusedError(f"torch.compile: {_brief(error)}") from error

    def forget(self) -> None:
        """Drop what was compiled: tensors that it knows were replaced."""
        self._functions.clear()

    def _function(self, variant: Variant) -> Traceable:
        function = self.whole.function(variant)
        if self.backend is None:
            return function
        try:
            return torch.compile(function, backend=self.backend, fullgraph=True, dynamic=False)
        except RuntimeError as error:  # such as a Python that is too new for it
            raise StepRefusedError(f"torch.compile: {_brief(error)}") from error


class CompiledStep:
    """Runs the compiled step. Results agree with `EagerStep` to rounding.

    The observer sees a step's gradients after its updates, and the weights after them.
    """

    mode = "compiled"

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def __call__(
        self, inputs: StepInput, number: int, observer: GradientObserver | None = None
    ) -> Mapping[str, Tensor]:
        """Run step `number` and return detached scalars to record, on the device."""
        whole = self.runner.whole
        variant, stale = whole.prepare(number)
        if stale:
            self.runner.forget()
        outcome = self.runner(variant, inputs.real, inputs.samples, inputs.step)
        whole.finish(variant)
        if observer is not None:
            whole.show(observer, variant, outcome)
        return outcome[0]

    def news(self) -> list[str]:
        """Return nothing: there is nothing to tell."""
        return []


@contextlib.contextmanager
def _tracing_autograd() -> Iterator[None]:
    """Let torch.compile take backward passes into its graph; `config.patch` would cost more."""
    config = torch._dynamo.config
    before = config.trace_autograd_ops
    config.trace_autograd_ops = True
    try:
        yield
    finally:
        config.trace_autograd_ops = before


def _brief(error: Exception) -> str:
    """Return the first line of a message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
