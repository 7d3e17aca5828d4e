"""Calls in threads: results, errors, cancellation, and that no interruption leaves a lock held."""

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from pokegan.data.ahead import Ahead
from pokegan.data.thread_pool import ThreadPool


def test_results_and_errors_are_those_of_the_calls() -> None:
    pool = ThreadPool(3)
    calls = [pool.submit(divmod, 7, divisor) for divisor in (2, 0, 3)]
    assert calls[0].result() == calls[0].result() == (3, 1)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            calls[1].result()
    assert calls[2].result() == (2, 1)
    pool.close()
    pool.close()


def test_one_thread_makes_the_calls_in_order() -> None:
    made: list[int] = []
    pool = ThreadPool(1)
    for call in [pool.submit(made.append, number) for number in range(100)]:
        call.result()
    pool.close()
    assert made == list(range(100))


def test_as_many_calls_at_a_time_as_threads() -> None:
    pool = ThreadPool(3)
    together = threading.Barrier(3)  # passed by three at a time alone
    calls = [pool.submit(together.wait, 30) for _ in range(6)]
    assert sorted(call.result() for call in calls) == [0, 0, 1, 1, 2, 2]
    pool.close()


def test_close_waits_for_the_call_under_way_and_cancels_the_others() -> None:
    pool, begun, done = ThreadPool(1), threading.Event(), []

    def slow() -> None:
        begun.set()
        time.sleep(0.2)
        done.append(True)

    first, second, third = pool.submit(slow), pool.submit(slow), pool.submit(slow)
    begun.wait(30)
    second.cancel()
    pool.close()
    assert done == [True]
    assert first.result() is None
    for call in (second, third):
        with pytest.raises(CancelledError):
            call.result()


def test_a_closed_pool_cancels_what_it_is_asked_for() -> None:
    pool = ThreadPool(1)
    pool.close()
    with pytest.raises(CancelledError):
        pool.submit(len, "").result()
    ahead = Ahead(lambda first, size: first, 1, 2)
    assert ahead.get(3, 1) == 3
    ahead.close()
    with pytest.raises(RuntimeError, match="the source is closed"):
        ahead.get(4, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_has_no_threads_and_ends() -> None:
    code = """
import os
from concurrent.futures import CancelledError
from pokegan.data.ahead import Ahead
from pokegan.data.thread_pool import ThreadPool
pool = ThreadPool(2)
pool.submit(len, "").result()
child = os.fork()
if child == 0:
    try:
        pool.submit(len, "").result()
    except CancelledError:
        raise SystemExit(7) from None
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), pool.submit(len, "abc").result())
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "7 3\n"), ended.stderr


def test_at_the_end_a_call_may_wait_for_one_of_another_pool() -> None:
    """Whichever pool is closed first: the call that comes too late is cancelled."""
    code = """
import time
from pokegan.data.ahead import Ahead
from pokegan.data.thread_pool import ThreadPool
first, second = ThreadPool(1), ThreadPool(1)
def late(other):
    time.sleep(0.3)
    other.submit(len, "").result()
calls = [first.submit(late, second), second.submit(late, first)]
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_each_thread_is_prepared_and_its_failure_is_every_calls() -> None:
    prepared: list[int] = []
    pool = ThreadPool(2, lambda: prepared.append(threading.get_ident()))
    pool.submit(len, "").result()
    pool.close()
    assert len(set(prepared)) == 2
    failing = ThreadPool(1, lambda: [].pop())
    for _ in range(2):
        with pytest.raises(IndexError):
            failing.submit(len, "").result()
    failing.close()


def test_a_forgotten_owner_goes_and_its_thread_ends() -> None:
    class Owner:
        def __init__(self) -> None:
            self.pool = ThreadPool(1, self.prepare)
            self.ended = self.pool._ended

        def prepare(self) -> None:
            self.prepared = True

    owner = Owner()
    owner.pool.submit(len, "").result()
    ended, seen = owner.ended, weakref.ref(owner)
    del owner
    gc.collect()
    assert seen() is None
    assert ended.get(timeout=30) is None


def test_the_interpreter_ends_after_the_call_under_way() -> None:
    """A daemon thread that is in C++ by then would be torn out of it: `terminate called`."""
    code = """
import os, time, torch
from pokegan.data.ahead import Ahead
from pokegan.data.thread_pool import ThreadPool
def busy():
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        torch.arange(200_000).sort(descending=True)
    os.write(1, b"done\\n")  # in one piece; `print` writes the end of the line by itself
pool = ThreadPool(2)
calls = [pool.submit(busy) for _ in range(2)]
time.sleep(0.1)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\ndone\n", "")


@pytest.mark.parametrize(("body", "every", "least"), [("pool", 1, 300), ("jobs", 60, 15)])
def test_an_interruption_anywhere_leaves_what_can_be_closed(
    body: str, every: int, least: int
) -> None:
    """With `concurrent.futures` in its place this hangs: a lock stays held, `shutdown` waits."""
    script = Path(__file__).with_name("interrupted.py")
    tried = subprocess.run(
        [sys.executable, str(script), body, str(every)], capture_output=True, text=True, timeout=300
    )
    assert tried.returncode == 0, tried.stderr
    assert int(tried.stdout) > least
