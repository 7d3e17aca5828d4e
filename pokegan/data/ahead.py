"""The next batches made in a background thread while the present one is used."""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from pokegan.data.thread_pool import Call, ThreadPool

T = TypeVar("T")


class Ahead(Generic[T]):
    """Calls `load(first, size)` for the requests that will come, before they come.

    One thread makes all calls, in the order of the requests, from the first request on until it
    is closed. An error of `load` is raised by the `get` whose request it was made for.

    Args:
        load: makes what `get` returns.
        stride: from the `first` of a request to that of the next, when nothing unusual happens.
        depth: requests that are made ahead.
        prepare_thread: called once in the thread.
    """

    def __init__(
        self,
        load: Callable[[int, int], T],
        stride: int,
        depth: int,
        prepare_thread: Callable[[], None] | None = None,
    ) -> None:
        self._load = load
        self._stride = stride
        self._depth = depth
        self._thread = ThreadPool(1, prepare_thread)
        self._pending: deque[tuple[int, int, Call[T]]] = deque()
        self._closed = False

    def get(self, first: int, size: int) -> T:
        """Return `load(first, size)`; what was made for other requests is dropped.

        Raises RuntimeError once it is closed.
        """
        if self._closed:
            raise RuntimeError("the source is closed")
        if not self._pending or self._pending[0][:2] != (first, size):
            self._drop()
            self._submit(first, size)
        wanted = self._pending.popleft()[2]
        while len(self._pending) < self._depth:
            last = self._pending[-1][0] if self._pending else first
            self._submit(last + self._stride, size)
        return wanted.result()

    def close(self) -> None:
        """Wait for the call under way, forget the others, end the thread."""
        self._closed = True
        self._drop()
        self._thread.close()

    def _submit(self, first: int, size: int) -> None:
        call = self._thread.submit(self._load, first, size)
        self._pending.append((first, size, call))

    def _drop(self) -> None:
        for _, _, call in self._pending:
            call.cancel()
        self._pending.clear()
