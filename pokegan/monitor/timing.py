"""Where the time of a run goes: wall seconds by part of the loop."""

import contextlib
import time
from collections.abc import Callable, Iterator

from pokegan.monitor.spans import span


class Timing:
    """Adds up wall time by the name of a part; a part inside another one counts for itself only.

    A device works on after a launch returns: what it still has to do is counted in the part that
    waits for it. Every part is a span for whoever watches (`monitor/spans.py`).
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._open: list[str] = []
        self._seconds: dict[str, float] = {}
        self._totals: dict[str, float] = {}
        self._since = self._mark = clock()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of the `with` body as `name`, also when it raises."""
        self._charge()
        self._open.append(name)
        try:
            with span(name):
                yield
        finally:
            self._charge()
            self._open.pop()

    def snapshot_and_reset(self) -> dict[str, float]:
        """Return each part's share of the wall time since the last call, and start anew.

        The shares are in [0, 1] and add up to 1 with `other`, the time that belongs to no part.
        Empty when no time has passed. A part that is open is counted up to now, and then from now.
        """
        self._charge()
        seconds, wall = self._seconds, self._mark - self._since
        self._seconds, self._since = {}, self._mark
        other = max(0.0, wall - sum(seconds.values()))
        for name, spent in [*seconds.items(), ("other", other)]:
            self._totals[name] = self._totals.get(name, 0.0) + spent
        if wall <= 0:
            return {}
        return {name: spent / wall for name, spent in seconds.items()} | {"other": other / wall}

    def total(self) -> dict[str, float]:
        """Return the seconds of each part since the start, and `other`; start a snapshot anew."""
        self.snapshot_and_reset()
        return dict(self._totals)

    def _charge(self) -> None:
        """Give the time since the last call to the innermost open part."""
        now = self._clock()
        if self._open:
            name = self._open[-1]
            self._seconds[name] = self._seconds.get(name, 0.0) + now - self._mark
        self._mark = now
