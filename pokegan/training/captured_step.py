"""A step captured as a whole in a CUDA graph: replayed with no Python between its kernels.

The graph reads from buffers that stay where they are: pictures, sample indices, the step's number,
learning rates, weights and the optimisers' state. Random numbers are counted from the step's
number, which lives on the device, so every replay draws fresh ones.
"""

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from pokegan.objectives.phases import StepInput
from pokegan.training.compiled_step import CompiledStep, Runner
from pokegan.training.step import StepRefusedError
from pokegan.training.whole_step import Due, Outcome

WARM_UP = 2  # steps of each kind before its capture: they compile it and choose its kernels

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

    def forget(self) -> None:
        """Give up the memory of all that was recorded, which nobody will repeat any more."""
        ...


class CudaRecorder:
    """Records CUDA graphs that share a memory pool, on a stream of their own.

    Args:
        device: of all that is recorded.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's
        self.pool = torch.cuda.graph_pool_handle()
        self._graphs: list[torch.cuda.CUDAGraph] = []

    def warm_up(self, run: Run) -> Outcome:
        """Run `run` on the stream on which it will be captured."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            outcome = run()
        torch.cuda.current_stream().wait_stream(self.stream)
        return outcome

    def record(self, run: Run) -> tuple[Replay, Outcome]:
        """Capture `run`, which does nothing yet; its replay runs on the current stream."""
        graph = torch.cuda.CUDAGraph()
        before = torch.cuda.current_stream(self.stream.device)
        try:
            with torch.cuda.graph(
                graph, self.pool, self.stream, capture_error_mode="thread_local"
            ):  # another thread may be loading pictures
                outcome = run()
        except RuntimeError as error:
            self._recover(before)
            raise StepRefusedError("capture", first_line(error)) from error
        except StepRefusedError:  # by what runs it, such as a compiler
            self.forget()
            raise
        self._graphs.append(graph)
        return graph.replay, outcome

    def forget(self) -> None:
        """Give up all graphs; begin a new pool: the old one's tensors may still be held.

        NCCL ends a group only when no graph has its kernels any more.
        """
        for graph in self._graphs:
            graph.reset()
        self._graphs.clear()
        self.pool = torch.cuda.graph_pool_handle()

    def _recover(self, before: torch.cuda.Stream) -> None:
        """Undo what the end of a capture leaves undone where it fails itself, as after an error."""
        torch.cuda.set_stream(before)
        with contextlib.suppress(RuntimeError):  # the capture had ended in order
            torch._C._cuda_endAllocateToPool(self.stream.device_index, self.pool)
        self.forget()


def first_line(error: BaseException) -> str:
    """Return what went wrong first: an error within a capture makes its end fail, too."""
    while error.__context__ is not None:
        error = error.__context__
    return (str(error).splitlines() or ["no reason given"])[0]


class CapturedStep(CompiledStep):
    """Runs the first steps of each kind as they are, captures it, and replays it from then on.

    Steps that warm up are steps of the training: no weight is changed for the capture's sake.

    Args:
        runner: runs the whole step, compiled or not.
        recorder: on CUDA a `CudaRecorder`.
    """

    def __init__(self, runner: Runner, recorder: Recorder) -> None:
        super().__init__(runner)
        self.mode = "captured" if runner.backend is not None else "captured, not compiled"
        self.recorder = recorder
        self._buffers: tuple[Tensor, Tensor, Tensor] | None = None
        self._branches = self.whole.branches()
        self._warm: Counter[Due] = Counter()
        self._recorded: dict[Due, tuple[Replay, Outcome]] = {}

    def run(self, due: Due, inputs: StepInput) -> Outcome:
        """Run the phases `due` on buffers that every step of theirs reads."""
        if self.runner.backend is None and self._branches != self.whole.branches():
            self.forget()  # what was captured takes another way, and will not be needed again
            self._branches = self.whole.branches()
        buffers = self._filled((inputs.real, inputs.samples, inputs.step))

        def run() -> Outcome:
            return self.runner(due, *buffers)

        if due not in self._recorded:
            if self._warm[due] < WARM_UP:
                self._warm[due] += 1
                return self.recorder.warm_up(run)
            self._recorded[due] = self.recorder.record(run)
        replay, outcome = self._recorded[due]
        replay()
        return outcome

    def forget(self) -> None:
        """Drop what was compiled and captured."""
        super().forget()
        self._warm.clear()
        self._recorded.clear()
        self.recorder.forget()

    def _filled(self, given: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        if self._buffers is None:
            self._buffers = (given[0].clone(), given[1].clone(), given[2].clone())
        else:
            for buffer, tensor in zip(self._buffers, given, strict=True):
                buffer.copy_(tensor)
        return self._buffers
