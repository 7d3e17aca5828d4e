"""A step compiled as a whole by torch.compile: one graph for every combination of due phases."""

import contextlib
from collections.abc import Iterator

import torch
import torch._dynamo
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from pokegan.objectives.phases import StepInput
from pokegan.training.step import StepRefusedError
from pokegan.training.whole_step import Due, Outcome, Traceable, WholeStep, WholeSteps


class Runner:
    """Runs a whole step, each combination of phases compiled when it is first due.

    Args:
        whole: the step.
        backend: of torch.compile; None runs the step as it is.
    """

    def __init__(self, whole: WholeStep, backend: str | None = "inductor") -> None:
        self.whole = whole
        self.backend = backend
        self._functions: dict[Due, Traceable] = {}

    def __call__(self, due: Due, real: Tensor, samples: Tensor, step: Tensor) -> Outcome:
        """Run one step of the phases `due`, in this thread alone.

        Of a GPU's backward passes autograd would make another thread, which knows nothing of what
        is being traced, and for which cuDNN chooses its algorithms once more.

        Raises:
            StepRefusedError: it does not compile; nothing was run.
        """
        if due not in self._functions:
            self._functions[due] = self._function(due)
        try:
            with _tracing_autograd(), torch.autograd.set_multithreading_enabled(False):
                return self._functions[due](real, samples, step)
        except TorchDynamoException as error:
            raise StepRefusedError("compile", _brief(error)) from error

    def forget(self) -> None:
        """Drop what was compiled: tensors that it knows were replaced."""
        self._functions.clear()

    def _function(self, due: Due) -> Traceable:
        function = self.whole.function(due)
        if self.backend is None:
            return function
        try:
            return torch.compile(function, backend=self.backend, fullgraph=True, dynamic=False)
        except RuntimeError as error:  # such as a Python that is too new for it
            raise StepRefusedError("compile", _brief(error)) from error


class CompiledStep(WholeSteps):
    """Runs the compiled step. Results agree with those of `EagerStep` to rounding.

    Args:
        runner: runs the whole step.
    """

    mode = "compiled"

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner.whole)
        self.runner = runner

    def run(self, due: Due, inputs: StepInput) -> Outcome:
        """Run the phases `due`."""
        return self.runner(due, inputs.real, inputs.samples, inputs.step)

    def forget(self) -> None:
        """Drop what was compiled."""
        self.runner.forget()


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
