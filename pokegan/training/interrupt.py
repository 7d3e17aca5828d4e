"""Ctrl-C and SIGTERM, turned into a wish that the loop grants at the end of a step."""

import signal
import types
from collections.abc import Callable
from typing import Any


class Interruption:
    """While active, the first SIGINT or SIGTERM sets `signal`; a second one acts at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal: int | None = None
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
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)
