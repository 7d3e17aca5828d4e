"""Interrupts a body after each step of Python code in turn, as the handler of a signal may.

    python interrupted.py pool|jobs EVERY

After every interruption, also one in its own `close`, what the body had opened must close within
`_PATIENCE` seconds; else the stacks of all threads go to standard error and the exit code is 1.
Prints how many were tried.
"""

import contextlib
import faulthandler
import sys
from collections.abc import Callable
from math import sqrt
from types import FrameType
from typing import Any

from pokegan.data.jobs import in_order
from pokegan.data.thread_pool import ThreadPool

_PATIENCE = 20  # s
_WITHIN = ("pokegan/data/", "concurrent/futures/", "threading.py", "queue.py", "contextlib.py")


opened: list[ThreadPool] = []


class Interrupted(BaseException):
    """What the handler raises."""


def pool() -> None:
    """Some calls in threads."""
    with contextlib.closing(ThreadPool(2)) as threads:
        opened.append(threads)
        calls = [threads.submit(sqrt, number) for number in range(4)]
        assert [call.result() for call in calls] == [sqrt(number) for number in range(4)]


def jobs() -> None:
    """Some jobs in a process."""
    assert list(in_order(sqrt, range(4), 1)) == [sqrt(number) for number in range(4)]


def interrupted_at(step: int, body: Callable[[], None]) -> bool:
    """Whether `body` had as many steps; it was interrupted after that one then."""
    steps = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps
        if not any(part in frame.f_code.co_filename for part in _WITHIN):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            steps += 1
            if steps == step:
                raise Interrupted
        return trace

    faulthandler.dump_traceback_later(_PATIENCE, exit=True)
    try:
        sys.settrace(trace)
        body()
    except Interrupted:
        return True
    finally:
        sys.settrace(None)
        while opened:
            opened.pop().close()
        faulthandler.cancel_dump_traceback_later()
    return steps >= step


if __name__ == "__main__":
    body, every = {"pool": pool, "jobs": jobs}[sys.argv[1]], int(sys.argv[2])
    step = 1
    while interrupted_at(step, body):
        step += every
    print(len(range(1, step, every)))
