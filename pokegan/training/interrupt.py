"""Ctrl-C and SIGTERM, turned into a wish that the loop grants at the end of a step."""

import signal
import types
from collections.abc import Callable
from typing import Any


class Interruption:
    """While active, the first SIGINT or SIGTERM sets `signal`; a second one acts at once.

    Args:
        forwarded: signals come through torchrun, which sends on to its ranks what they may have got
            already from whoever signals all processes: a SIGTERM after the first signal does
            nothing then. torchrun ends those that take too long.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, forwarded: bool = False) -> None:
        self.signal: int | None = None
        self._forwarded = forwarded
        self._before: dict[int, Callable[[int, types.FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> "Interruption":
        try:
            for number in self.SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        except ValueError:  # not in the main thread: signals are not ours to handle
            self._restore()
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        if self.signal is None:
            self.signal = number
            self._restore(keep=signal.SIGTERM if self._forwarded else None)

    def _restore(self, keep: int | None = None) -> None:
        for number in [number for number in self._before if number != keep]:
            signal.signal(number, self._before.pop(number))
