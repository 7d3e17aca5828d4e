"""The plan of a run that grows: which size, learning rate and fade at which step. Pure logic.

Stages and their cycles as in PokeGAN's progressive script; the fade as in ProGAN (arXiv
1710.10196, section 2). Knows no network, no device, no file.
"""

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pokegan.errors import ConfigError

_FORM = "SIZE:LRxEPOCHS,LRxEPOCHS;SIZE:... such as 16:5e-4x100,2e-4x200;32:5e-4x100"


@dataclass(frozen=True)
class Cycle:
    """A stretch of constant learning rate.

    Attributes:
        lr: learning rate, in (0, 10].
        epochs: passes over the pictures, positive; the share of the run that the cycle gets.
    """

    lr: float
    epochs: float


@dataclass(frozen=True)
class Stage:
    """A stretch of constant picture size.

    Attributes:
        size: side of the pictures, px.
        cycles: in order, at least one.
    """

    size: int
    cycles: tuple[Cycle, ...]

    @property
    def epochs(self) -> float:
        """The sum of the cycles' epochs."""
        return math.fsum(cycle.epochs for cycle in self.cycles)


def parse_stages(text: str, size: int | None = None) -> tuple[Stage, ...]:
    """Read stages such as `16:5e-4x100,2e-4x200;32:5e-4x100`: learning rates x epochs for a size.

    Args:
        text: SIZE:LRxEPOCHS,LRxEPOCHS;SIZE:..., with spaces around the parts as one likes. There
            are no stages in an empty one.
        size: what the last stage's size must be (`--size`), px; None for any.

    Raises:
        ConfigError: the text has another form, a size is not twice the one before or the last is
            not `size`, a learning rate is not in (0, 10], or epochs are not positive.
    """
    if not text.strip():
        return ()
    stages = tuple(_stage(text, part) for part in text.split(";"))
    for one, two in itertools.pairwise(stages):
        if two.size != 2 * one.size:
            raise ConfigError(
                f"--stages {text}: after {one.size} px comes {2 * one.size} px, not {two.size} px"
            )
    if size is not None and stages[-1].size != size:
        raise ConfigError(
            f"--stages {text}: the last stage has {stages[-1].size} px, but --size is {size}"
        )
    return stages


def epochs(stages: Iterable[Stage]) -> float:
    """Return the epochs of all stages: a run's length where no other is given."""
    return math.fsum(cycle.epochs for stage in stages for cycle in stage.cycles)


class StagePlan:
    """A run's steps, divided over stages and their cycles in proportion to their epochs.

    Stage ends are rounded to whole steps, so that a stage is at most a step off its share and the
    sum is exact; where that leaves a stage empty it takes a step from its neighbours. With fewer
    steps than stages some are empty: `last(index) < first(index)`. Cycles divide a stage alike.

    A step beyond the plan belongs to the last cycle of the last stage, with its fade over: so a
    run may go on for longer than it was planned, under the plan that it was begun with.

    Args:
        stages: at least one.
        total_steps: of the run as planned, at least 0.

    Raises:
        ConfigError: there is no stage.
    """

    def __init__(self, stages: Sequence[Stage], total_steps: int) -> None:
        if not stages:
            raise ConfigError(f"--stages: at least one stage is wanted, {_FORM}")
        self.stages = tuple(stages)
        self.total_steps = total_steps
        ends = _ends([_exact_epochs(stage.cycles) for stage in stages], total_steps)
        self._starts = (0, *ends[:-1])
        self._ends = ends
        self._cycle_ends = tuple(
            _ends([_exact_epochs([cycle]) for cycle in stage.cycles], end - start)
            for stage, start, end in zip(stages, self._starts, ends, strict=True)
        )

    def stage_at(self, step: int) -> int:
        """Return the index of the stage that `step`, counted from 0, belongs to."""
        return min(bisect_right(self._ends, step), len(self.stages) - 1)

    def first(self, index: int) -> int:
        """Return the first step of stage `index`."""
        return self._starts[index]

    def last(self, index: int) -> int:
        """Return the last step of stage `index`."""
        return self._ends[index] - 1

    def lr_at(self, step: int) -> float:
        """Return the learning rate of `step`."""
        index = self.stage_at(step)
        cycles = self.stages[index].cycles
        place = bisect_right(self._cycle_ends[index], step - self._starts[index])
        return cycles[min(place, len(cycles) - 1)].lr

    def alpha_at(self, step: int, fade_share: float = 0.5) -> float:
        """Return the new layers' part at `step`, in [0, 1].

        It rises linearly from 0 at the stage's first step and is 1 after `fade_share` of the
        stage's steps; in the first stage, which follows none, it is always 1.

        Raises:
            ConfigError: `fade_share` is not in [0, 1].
        """
        if not 0 <= fade_share <= 1:
            raise ConfigError(f"--fade {fade_share}: a number in [0, 1] is wanted")
        index = self.stage_at(step)
        fading = fade_share * (self._ends[index] - self._starts[index])
        done = step - self._starts[index]
        return 1.0 if index == 0 or done >= fading else done / fading


def _stage(text: str, part: str) -> Stage:
    """Read one stage, such as `16:5e-4x100,2e-4x200`, of `text`."""
    size, colon, cycles = part.partition(":")
    if not colon or not size.strip().isdecimal() or not int(size):
        raise ConfigError(f"--stages {text}: {part.strip()!r} is no stage; write {_FORM}")
    return Stage(int(size), tuple(_cycle(text, cycle) for cycle in cycles.split(",")))


def _cycle(text: str, part: str) -> Cycle:
    """Read one cycle, such as `5e-4x100`, of `text`."""
    try:
        lr, length = (float(number) for number in part.split("x"))
    except ValueError:
        raise ConfigError(f"--stages {text}: {part.strip()!r} is no cycle; write {_FORM}") from None
    if not 0 < lr <= 10:
        raise ConfigError(f"--stages {text}: the learning rate {lr:g} is not in (0, 10]")
    if not (length > 0 and math.isfinite(length)):
        raise ConfigError(f"--stages {text}: {length:g} epochs; a positive number is wanted")
    return Cycle(lr, length)


def _exact_epochs(cycles: Iterable[Cycle]) -> Fraction:
    return sum((Fraction(cycle.epochs) for cycle in cycles), Fraction(0))


def _ends(weights: Sequence[Fraction], total: int) -> tuple[int, ...]:
    """Divide `total` steps by `weights`; return where each part ends, the last at `total`."""
    whole = sum(weights, Fraction(0))
    ends = [round(total * sum_ / whole) for sum_ in itertools.accumulate(weights)]
    if total < len(ends):
        return tuple(ends)
    for place, end in enumerate(ends):
        least = ends[place - 1] + 1 if place else 1
        most = total - (len(ends) - 1 - place)
        ends[place] = min(max(end, least), most)
    return tuple(ends)
