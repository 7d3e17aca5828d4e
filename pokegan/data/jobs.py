"""A function applied to many small descriptions of work by child processes, results in order.

The children are plain Python processes that import the function by its name: no main module of the
caller is run again, and none outlives its parent by more than the job it is at.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import IO, Any, Generic, TypeVar, cast

import pokegan
from pokegan.data.pipes import private_streams, receive, send
from pokegan.data.thread_pool import Call, ThreadPool
from pokegan.errors import PokeganError

Job = TypeVar("Job")
Answer = TypeVar("Answer")

_CODE = "from pokegan.data.jobs import serve; serve()"
_HEAD = """
import sys
sys.path[:] = {path!r}
try:
    import PIL, pokegan
except ImportError:
    import site
    site.main()
"""
_KEPT = 32 << 20  # bytes that are freed and not given back; the most that glibc takes
_AHEAD = 2  # jobs a process that wait for their turn
_BROKEN = (OSError, EOFError, pickle.UnpicklingError)


def in_order(
    function: Callable[[Job], Answer], jobs: Iterable[Job], workers: int
) -> Generator[Answer, None, None]:
    """Yield `function(job)` for each job, in order, worked out by `workers` processes.

    `function` is a module's own, jobs and answers can be pickled. With `workers` 0 the work is done
    in this process. What the function raises is raised here. Close the iterator to stop early; jobs
    under way are lost. Raises PokeganError when a process cannot be started or dies.
    """
    if workers == 0:
        yield from map(function, jobs)
        return
    with contextlib.ExitStack() as stack:
        threads = ThreadPool(workers)
        stack.callback(threads.close)
        idle: queue.SimpleQueue[_Child[Job, Answer]] = queue.SimpleQueue()
        for _ in range(workers):
            child = _Child(function)
            stack.callback(child.stop)
            idle.put(child)
        pending: deque[Call[Answer]] = deque()
        for job in jobs:
            pending.append(threads.submit(_run, idle, job))
            if len(pending) >= (1 + _AHEAD) * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def spawn(code: str, complaints: IO[bytes] | None = None) -> "subprocess.Popen[bytes]":
    """Start `code` in a Python process with this one's module path and one thread a library.

    Its memory stays its own (glibc): the next picture needs as much, and pages that the system has
    to give and clear again for each are a twentieth of the work.
    What `site` does at the start of Python takes as long as Python's own start, and longer beside
    packages that are installed to be edited. It is left out where the path alone finds everything.
    """
    home = str(Path(pokegan.__file__).resolve().parent.parent)
    head = _HEAD.format(path=[*sys.path, home])
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    kept = dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), str(_KEPT))
    return subprocess.Popen(
        [sys.executable, "-S", "-c", head + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        env={**kept, **os.environ, **single},
    )


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a process at once and close its pipes."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()


def serve() -> None:
    """The life of a child: the function first, then jobs, each answered, until the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    requests, answers = private_streams()
    with contextlib.suppress(EOFError, BrokenPipeError):
        function = pickle.load(requests)
        while True:
            job = pickle.load(requests)
            try:
                answer = (True, function(job))
            except Exception as error:
                answer = (False, error)
            send(answers, answer)


class _Child(Generic[Job, Answer]):
    """One process; it starts at once and imports while the parent goes on."""

    def __init__(self, function: Callable[[Job], Answer]) -> None:
        self._process = spawn(_CODE)
        with contextlib.suppress(BrokenPipeError):  # the first job will tell
            send(self._process.stdin, function)

    def run(self, job: Job) -> Answer:
        try:
            send(self._process.stdin, job)
            done, answer = cast("tuple[bool, Any]", receive(self._process.stdout))
        except _BROKEN as error:
            raise PokeganError("a worker process died: try again, or with --workers 0") from error
        if not done:
            raise answer
        return cast(Answer, answer)

    def stop(self) -> None:
        stop(self._process)


def _run(idle: "queue.SimpleQueue[_Child[Job, Answer]]", job: Job) -> Answer:
    child = idle.get()
    try:
        return child.run(job)
    finally:
        idle.put(child)
