"""A step captured as a whole in a CUDA graph: replayed with no Python between its kernels.

The graph reads from buffers that stay where they are: pictures, sample indices, the step's number,
learning rates, weights and the optimisers' state. Random numbers are counted from the step's
number, which lives on the device, so every replay draws fresh ones.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from pokegan.objectives.phases import StepInput
from pokegan.training.compiled_step import Runner
from pokegan.training.step import GradientObserver, StepRefusedError
from pokegan.training.whole_step import Outcome, Variant

WARM_UP = (
    2  # steps of a variant that are run before it is captured: they compile and choose kernels
)

Run = Callable[[], Outcome]
Replay = Callable[[], None]


class Recorder(Protocol):
    """Records what a function does on the device."""

    def warm_up(self, run: Run) -> Outcome:
        """Run `run` as it will be recorded."""
        ...

    def record(self, run: Run) -> tuple[Replay, Outcome]:
        """Record `run` without running it; return what repeats it, and where its outcome will be.

        Raises:
            StepRefusedError: it cannot be recorded.
        """
        ...


class CudaRecorder:
    """Records in CUDA graphs that share a memory pool, on a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's
        self.pool = torch.cuda.graph_pool_handle()

    def warm_up(self, run: Run) -> Outcome:
        """Run `run` on the stream on which it will be captured."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            outcome = run()
        torch.cuda.current_stream().wait_stream(self.stream)
        return outcome

    def record(self, run: Run) -> tuple[Replay, Outcome]:
        """Capture `run`; see `Recorder`."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                outcome = run()
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise StepRefusedError(
                f"capture: {(str(error).splitlines() or ['failed'])[0]}"
            ) from error
        return graph.replay, outcome


class CapturedStep:
    """Runs a few steps of each variant as they are, captures it, and replays it from then on.

    A step that is captured is also done: warming up costs no step and changes no result. Results
    agree with the runner's own.

    Args:
        runner: runs the step, compiled or not.
        recorder: on CUDA a `CudaRecorder`.
    """

    def __init__(self, runner: Runner, recorder: Recorder) -> None:
        self.runner = runner
        self.recorder = recorder
        self.mode = "captured" if runner.backend is not None else "captured, not compiled"
        self._buffers: tuple[Tensor, Tensor, Tensor] | None = None
        self._warm: Counter[Variant] = Counter()
        self._recorded: dict[Variant, tuple[Replay, Outcome]] = {}

    def __call__(
        self, inputs: StepInput, number: int, observer: GradientObserver | None = None
    ) -> Mapping[str, Tensor]:
        """Run step `number` and return detached scalars to record, on the device."""
        whole = self.runner.whole
        variant, stale = whole.prepare(number)
        if stale:
            self.runner.forget()
            self._warm.clear()
            self._recorded.clear()
        buffers = self._filled(inputs)
        outcome = self._run(variant, lambda: self.runner(variant, *buffers))
        whole.finish(variant)
        if observer is not None:
            whole.show(observer, variant, outcome)
        return outcome[0]

    def news(self) -> list[str]:
        """Return nothing: there is nothing to tell."""
        return []

    def _run(self, variant: Variant, run: Run) -> Outcome:
        if variant not in self._recorded:
            if self._warm[variant] < WARM_UP:
                self._warm[variant] += 1
                return self.recorder.warm_up(run)
            self._recorded[variant] = self.recorder.record(run)
        replay, outcome = self._recorded[variant]
        replay()
        return outcome

    def _filled(self, inputs: StepInput) -> tuple[Tensor, Tensor, Tensor]:
        given = (inputs.real, inputs.samples, inputs.step)
        if self._buffers is None:
            self._buffers = (given[0].clone(), given[1].clone(), given[2].clone())
        for buffer, tensor in zip(self._buffers, given, strict=True):
            buffer.copy_(tensor)
        return self._buffers
