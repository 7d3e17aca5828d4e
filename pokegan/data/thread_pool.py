"""Threads that make calls, which a signal may interrupt their owner at without a lock left held.

`concurrent.futures` has locks in Python code: an exception that a signal's handler raises between
the taking of one and its `try` leaves it taken, and the shutdown waits for ever. Here all that the
owner and the threads share is `queue.SimpleQueue`, whose operations are single steps.
"""

import _thread
import atexit
import contextlib
import os
import queue
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Call(Generic[T]):
    """A call that was asked for; `result` waits for what it returned or raised."""

    def __init__(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> None:
        self._function = function
        self._arguments = arguments
        self._cancelled = False
        self._answer: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def cancel(self) -> None:
        """Do not make the call, if it has not begun; `result` raises CancelledError then."""
        self._cancelled = True

    def result(self) -> T:
        """Return what the function returned, or raise what it raised."""
        answer = self._answer.get()
        self._answer.put(answer)  # for who asks again
        value, error = answer
        try:
            if error is not None:
                raise error
            return value  # type: ignore[return-value]  # None only where T is
        finally:
            del answer, error  # a traceback that holds this frame would keep all of it alive

    def make(self, hindered: BaseException | None = None) -> None:
        """Make the call; where the thread is `hindered` by an error, that is the answer."""
        try:
            if self._cancelled:
                raise CancelledError
            if hindered is not None:
                raise hindered
            answer = (self._function(*self._arguments), None)
        except BaseException as error:
            self._answer.put((None, error))
        else:
            self._answer.put(answer)


_pools: "weakref.WeakSet[ThreadPool]" = weakref.WeakSet()


class ThreadPool:
    """Threads that take calls in the order in which they were asked for.

    A pool that is forgotten ends its threads. At the interpreter's end all pools are closed: a
    thread that it overtakes in C++ would abort the process.

    Args:
        threads: how many.
        prepare_thread: called once in each; what it raises is raised for every call.
    """

    def __init__(self, threads: int, prepare_thread: Callable[[], None] | None = None) -> None:
        self._closed = False
        self._calls: queue.SimpleQueue[Call[Any] | None] = queue.SimpleQueue()
        self._alive: list[None] = []  # an element a thread
        self._ended: queue.SimpleQueue[None] = queue.SimpleQueue()  # wakes who waits for that
        _pools.add(self)
        for _ in range(threads):
            own = (self._calls, self._alive, self._ended, [prepare_thread])
            _thread.start_new_thread(_work, own)
            self._alive.append(None)  # after it: `close` waits for no thread that there is not

    def submit(self, function: Callable[..., T], *arguments: Any) -> Call[T]:
        """Ask for `function(*arguments)`, of any thread; in a closed pool it is cancelled."""
        call = Call(function, arguments)
        self._calls.put(call)
        if self._closed:
            self._cancel()
        return call

    def close(self) -> None:
        """Cancel the calls that have not begun and wait for those under way."""
        self._cancel()
        while self._alive:
            with contextlib.suppress(queue.Empty):
                self._ended.get(timeout=0.05)

    def _cancel(self) -> None:
        self._closed = True
        with contextlib.suppress(queue.Empty):
            while True:
                call = self._calls.get_nowait()
                if call is not None:
                    call.cancel()
                    call.make()
        self._calls.put(None)

    def _forget_threads(self) -> None:
        self._closed = True
        self._alive.clear()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # interrupted before it had calls
            self._calls.put(None)


def close_before_what_is_loaded() -> None:
    """At the interpreter's end, close the pools before the libraries of now end their parts."""
    atexit.unregister(_close_all)
    atexit.register(_close_all)


@atexit.register
def _close_all() -> None:
    pools = list(_pools)
    for pool in pools:
        pool._cancel()  # first: a call of one may wait for one of another
    for pool in pools:
        pool.close()


def _forget_all() -> None:
    """In a process that was forked, where no thread came along."""
    for pool in list(_pools):
        pool._forget_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _work(
    calls: "queue.SimpleQueue[Call[Any] | None]",
    alive: list[None],
    ended: "queue.SimpleQueue[None]",
    preparations: list[Callable[[], None] | None],
) -> None:
    """The life of a thread; it empties `preparations`, so as to keep nobody alive."""
    hindered: BaseException | None = None
    prepare = preparations.pop()
    try:
        if prepare is not None:
            prepare()
    except BaseException as error:
        hindered = error.with_traceback(None)
    del prepare
    while (call := calls.get()) is not None:
        call.make(hindered)
        del call  # before the wait for the next: nothing of it stays alive
    calls.put(None)  # for the other threads
    with contextlib.suppress(IndexError):  # the owner was interrupted before it counted us
        alive.pop()
    ended.put(None)
