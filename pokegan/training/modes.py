"""How a step is run: the fastest way that is wanted and works here, and the next one if not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from pokegan.networks.batch_norm import batch_norms
from pokegan.objectives.phases import StepInput
from pokegan.training.recorded_step import RecordedStep
from pokegan.training.step import EagerStep, GradientObserver, Step, StepParts, StepRefusedError
from pokegan.training.whole_step import WholeStep


@dataclass(frozen=True)
class Way:
    """A way to run a step.

    Attributes:
        needs: what it stands on, of `StepRefusedError.part`.
        make: builds it.
    """

    needs: frozenset[str]
    make: Callable[[], Step]


class FallingBack:
    """Runs steps the first way that works; tells when one does not, and why.

    Args:
        ways: the best first; the last one needs nothing.
    """

    def __init__(self, ways: Sequence[Way]) -> None:
        self._ways = list(ways)
        self._news: list[str] = []
        self._step = self._made()

    @property
    def mode(self) -> str:
        """The mode in use."""
        return self._step.mode

    def __call__(
        self, inputs: StepInput, number: int, observer: GradientObserver | None = None
    ) -> Mapping[str, Tensor]:
        """Run step `number` and return detached scalars to record, on the device."""
        while True:
            try:
                return self._step(inputs, number, observer)
            except StepRefusedError as refusal:
                inputs.shared.clear()
                self._step = self._next(refusal)

    def news(self) -> list[str]:
        """Return what people should know since the last call."""
        news, self._news = [*self._news, *self._step.news()], []
        return news

    def close(self) -> None:
        """Give up what was made for further steps; there are none."""
        self._step.close()

    def _made(self) -> Step:
        try:
            return self._ways[0].make()
        except StepRefusedError as refusal:
            return self._next(refusal)

    def _next(self, refusal: StepRefusedError) -> Step:
        del self._ways[0]
        self._ways = [way for way in self._ways if refusal.part not in way.needs]
        step = self._made()
        self._news.append(f"{refusal.part}: {refusal.reason}; steps go on {step.mode}")
        return step


def build_step(wanted: str, parts: StepParts) -> Step:
    """Return what runs the steps of a run.

    Args:
        wanted: off for eager; on for compiled, and captured on CUDA; auto for on with CUDA,
            recorded on a processor, where compiling does not pay for itself.
        parts: what the step is made of.
    """
    eager = EagerStep(parts)
    if wanted == "off":
        return eager
    last = [Way(frozenset(), lambda: eager)]
    try:
        whole = WholeStep(parts)
    except StepRefusedError as refusal:
        return FallingBack([_refused(refusal), *last])
    if parts.device.type == "cpu":
        last.insert(0, Way(frozenset({"record"}), lambda: RecordedStep(whole)))
    cuda = parts.device.type == "cuda"
    if wanted == "auto" and not cuda:
        return FallingBack(last)

    # Imported late: torch.compile takes seconds to import.
    from pokegan.training.captured_step import CapturedStep, CudaRecorder
    from pokegan.training.compiled_step import CompiledStep, Runner

    compiled, plain = Runner(whole), Runner(whole, None)
    ways = [Way(frozenset({"compile"}), lambda: CompiledStep(compiled)), *last]
    if cuda:
        recorder = CudaRecorder(parts.device)
        ways = [
            Way(frozenset({"compile", "capture"}), lambda: CapturedStep(compiled, recorder)),
            Way(frozenset({"capture"}), lambda: CapturedStep(plain, recorder)),
            *ways,
        ]
    if _differentiates_ranks_twice(parts):
        ways.insert(0, _refused(StepRefusedError("compile", _TWICE)))
    return FallingBack(ways)


# A compiler traces the backward pass of a norm's talk without a gradient of its own.
_TWICE = (
    "a penalty on gradients (R1, R2) through batch norm over several ranks would come out wrong"
)


def _differentiates_ranks_twice(parts: StepParts) -> bool:
    """Return whether a loss has gradients that pass through batch norms over several ranks."""
    penalised = {name for phase in parts.phases if phase.second_order for name in phase.updates}
    norms = (norm for name in penalised for norm in batch_norms(parts.networks[name]))
    return any(norm.peers is not None for norm in norms)


def _refused(refusal: StepRefusedError) -> Way:
    def make() -> Step:
        raise refusal

    return Way(frozenset(), make)
