"""How a step is run: the fastest way that is wanted and works here, and the next one if not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pokegan.augment import AdaptiveAugment
from pokegan.networks.noise import CountedNoise
from pokegan.objectives.phases import Phase, StepInput
from pokegan.training.step import EagerStep, GradientObserver, Reduce, Step, StepRefusedError


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


def build_step(
    wanted: str,
    device: torch.device,
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    phases: Sequence[Phase],
    autocast: bool,
    noise: Sequence[CountedNoise] = (),
    adaptive: AdaptiveAugment | None = None,
    reduce: Reduce | None = None,
    split: bool = False,
) -> Step:
    """Return what runs the steps of a run; all but the first two are the args of `EagerStep`.

    Args:
        wanted: off for eager; on for compiled, and captured on CUDA; auto for on with CUDA, off
            without: on a processor compiling does not pay for itself.
        device: of everything.
    """
    arguments = (networks, optimizers, phases, autocast)
    rest = (noise, adaptive, reduce, split)
    eager = EagerStep(*arguments, device.type, *rest)
    if wanted == "off" or (wanted == "auto" and device.type != "cuda"):
        return eager

    # Imported late: torch.compile takes seconds to import.
    from pokegan.training.captured_step import CapturedStep, CudaRecorder
    from pokegan.training.compiled_step import CompiledStep, Runner
    from pokegan.training.whole_step import WholeStep

    try:
        whole = WholeStep(*arguments, device, *rest)
    except StepRefusedError as refusal:
        return FallingBack([_refused(refusal), Way(frozenset(), lambda: eager)])
    compiled, plain = Runner(whole), Runner(whole, None)
    ways = [
        Way(frozenset({"compile"}), lambda: CompiledStep(compiled)),
        Way(frozenset(), lambda: eager),
    ]
    if device.type == "cuda":
        recorder = CudaRecorder(device)
        ways = [
            Way(frozenset({"compile", "capture"}), lambda: CapturedStep(compiled, recorder)),
            Way(frozenset({"capture"}), lambda: CapturedStep(plain, recorder)),
            *ways,
        ]
    return FallingBack(ways)


def _refused(refusal: StepRefusedError) -> Way:
    def make() -> Step:
        raise refusal

    return Way(frozenset(), make)
