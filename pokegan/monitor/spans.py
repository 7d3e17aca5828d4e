"""Named spans of a run, for whoever looks at where its time goes: a profiler, or nobody.

With nobody a span is one comparison. Spans are around what Python does; what is compiled or
captured as a whole has none inside.
"""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class Watcher(Protocol):
    """Who is told of the steps and spans of a run."""

    def begin(self, step: int) -> None:
        """Hear that `step`, counted from 0, begins."""
        ...

    def span(self, name: str) -> AbstractContextManager[object]:
        """Return what is entered and left with the span; spans of a thread are nested."""
        ...


_NOTHING = contextlib.nullcontext()
_watcher: Watcher | None = None


def span(name: str) -> AbstractContextManager[object]:
    """Return the span called `name`, to be the context of a `with` statement."""
    return _NOTHING if _watcher is None else _watcher.span(name)


def begin(step: int) -> None:
    """Tell that `step`, counted from 0, begins."""
    if _watcher is not None:
        _watcher.begin(step)


@contextlib.contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Tell `watcher` of all that runs in this process while the body does.

    Raises:
        RuntimeError: another one is told already.
    """
    global _watcher
    if _watcher is not None:
        raise RuntimeError("the spans of this process are watched already")
    _watcher = watcher
    try:
        yield
    finally:
        _watcher = None
