"""A step recorded on a processor: its operators again, without autograd or Python between them."""

from collections import Counter

from torch import Tensor

from pokegan.objectives.phases import StepInput
from pokegan.training.operator_graph import Repeat, record
from pokegan.training.step import StepRefusedError
from pokegan.training.whole_step import Due, Outcome, WholeStep, WholeSteps

WARM_UP = 2  # steps of each kind before its recording: convolutions are timed in the first one

Kind = tuple[Due, tuple[object, ...]]  # phases and layouts of batches: what one recording holds for


class RecordedStep(WholeSteps):
    """Runs the first steps of each kind as they are, records one, and repeats it from then on.

    All of them are steps of the training. Results have the bits of the whole step's, and so, as
    long as PyTorch's autograd runs the same operators for both, of `EagerStep`'s.

    Args:
        whole: the step, on the CPU.
    """

    mode = "recorded"

    def __init__(self, whole: WholeStep) -> None:
        super().__init__(whole)
        self._branches = whole.branches()
        self._warm: Counter[Kind] = Counter()
        self._recorded: dict[Kind, Repeat | str] = {}

    def run(self, due: Due, inputs: StepInput) -> Outcome:
        """Run the phases `due`.

        Raises:
            StepRefusedError: a step of this kind cannot be recorded, which the last one showed.
        """
        tensors = (inputs.real, inputs.samples, inputs.step)
        if self._branches != self.whole.branches():
            self.forget()  # what was recorded takes another way, and will not be needed again
            self._branches = self.whole.branches()
        kind = (due, tuple(map(_layout, tensors)))
        known = self._recorded.get(kind)
        if isinstance(known, Repeat):
            again: Outcome = known(*tensors)
            return again
        if known is not None:
            raise StepRefusedError("record", known)
        function = self.whole.function(due)
        if self._warm[kind] < WARM_UP:
            self._warm[kind] += 1
            return function(*tensors)
        outcome: Outcome
        outcome, self._recorded[kind] = record(function, tensors)
        return outcome

    def forget(self) -> None:
        """Drop what was recorded."""
        self._warm.clear()
        self._recorded.clear()


def _layout(tensor: Tensor) -> tuple[object, ...]:
    return tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset()
