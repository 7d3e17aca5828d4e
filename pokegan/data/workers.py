"""Entries prepared by worker processes, in order, surviving what pictures do to decoders.

A worker is a plain child process that runs `worker_process.serve` and talks over its standard
streams. It never imports the caller's main module: no `if __name__ == "__main__"` is needed, and no
torch is loaded.
A picture that kills its worker twice, or takes too long twice, costs one picture. When the parent
goes, however it goes, the workers read the end of their input and go too.

Entries travel in bunches; pixels do not travel at all where there is a `Store` to leave them in.
"""

import contextlib
import os
import pickle
import queue
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from pokegan.data.decoders import PILLOW, batch_size
from pokegan.data.entries import Entry
from pokegan.data.jobs import spawn, stop
from pokegan.data.options import PrepareOptions
from pokegan.data.pipes import receive, send
from pokegan.data.refusals import CRASHED, TOO_LONG
from pokegan.data.square import Refusal, Square
from pokegan.data.store import Kept, Store
from pokegan.data.thread_pool import Call, ThreadPool
from pokegan.data.worker_process import (
    READY,
    TIMER_SIGNALS,
    TRIES,
    WALL_FACTOR,
    Numbered,
    Result,
    Work,
    pieces,
)
from pokegan.errors import PokeganError

_PICTURES_PER_WORKER = 32  # fewer are not worth the start of another process
_BUNCH = 8  # entries that travel together: fewer wake the parent for each, more end unevenly
_LAST_BUNCH = 2
_BUNCHES_PER_WORKER = 6  # bounds the results that wait for their turn
_CODE = "from pokegan.data.worker_process import serve; serve()"
_BROKEN = (OSError, EOFError, pickle.UnpicklingError, ValueError)  # what a lost pipe can raise


def default_workers(pictures: int) -> int:
    """One worker per processor that this process may use, fewer for a handful of pictures."""
    affinity = getattr(os, "sched_getaffinity", None)
    processors = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(processors, pictures // _PICTURES_PER_WORKER))


def prepare_all(
    entries: Sequence[Entry], options: PrepareOptions, workers: int, store: Store | None = None
) -> Generator[Result, None, None]:
    """Prepare every entry and yield the results in the order of the entries.

    With `store` pixels and thumbnails go into its files, in the row of the entry's number, and what
    comes is `Kept` in the place of `Square`. With `workers` 0 the work is done in this process,
    without protection against pictures that crash or stall a decoder. Close the iterator to stop
    early. Raises OSError when the store cannot be written.
    """
    if workers == 0:
        with Work(options, store) as work:
            for piece in pieces(enumerate(entries), batch_size(options.decoder)):
                yield from work.do(piece, options.decoder)
        return
    with WorkerPool(options, workers, store) as pool:
        yield from pool.map(entries)


class WorkerPool:
    """Worker processes, each driven by a thread that waits for it.

    Raises PokeganError when a worker process cannot be started.
    """

    def __init__(self, options: PrepareOptions, workers: int, store: Store | None = None) -> None:
        self._threads = ThreadPool(workers)
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._workers = [_Worker(options, store) for _ in range(workers)]
        for worker in self._workers:
            self._idle.put(worker)
        self._options = options
        self._bunch = max(_BUNCH, batch_size(options.decoder))
        self._window = _BUNCHES_PER_WORKER * workers

    def map(self, entries: Sequence[Entry]) -> Iterator[Result]:
        """Yield the result of each entry in order, working a bounded stretch ahead."""
        pending: deque[Call[list[Result | _NotStored]]] = deque()
        for bunch in self._bunches(entries):
            pending.append(self._threads.submit(self._prepare, bunch))
            if len(pending) >= self._window:
                yield from map(_stored, pending.popleft().result())
        while pending:
            yield from map(_stored, pending.popleft().result())

    def _bunches(self, entries: Sequence[Entry]) -> Iterator[list[Numbered]]:
        """Cut the entries into bunches, the last ones small, so that all workers end together."""
        rows = enumerate(entries)
        last = self._bunch * len(self._workers)
        yield from pieces(islice(rows, max(0, len(entries) - last)), self._bunch)
        yield from pieces(rows, max(_LAST_BUNCH, batch_size(self._options.decoder)))

    def close(self) -> None:
        """Stop at once; what is under way is lost."""
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.close()
        self._threads.close()

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _prepare(self, bunch: list[Numbered]) -> "list[Result | _NotStored]":
        worker = self._idle.get()
        try:
            return worker.prepare(bunch)
        finally:
            self._idle.put(worker)


class _Worker:
    """One child process, started on first use and again after each death."""

    def __init__(self, options: PrepareOptions, store: Store | None) -> None:
        self._options = options
        self._store = store
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def prepare(self, bunch: list[Numbered]) -> "list[Result | _NotStored]":
        """Prepare entries; one that kills the process twice, or stalls it twice, is refused.

        Where the process dies with another decoder than Pillow, Pillow reads the rest of the bunch.
        """
        results: list[Result | _NotStored] = []
        decoder = asked = self._options.decoder
        failures = 0
        while len(results) < len(bunch):
            process = self._process or self._start(decoder)
            start = time.monotonic()
            try:
                send(process.stdin, (decoder, bunch[len(results) :]))
                while len(results) < len(bunch):
                    answer = receive(process.stdout)
                    result = _result(answer)
                    results.append(result if decoder == asked else _replaced(result))
                    start, failures = time.monotonic(), 0
            except _BROKEN:
                reason = self._post_mortem(process, time.monotonic() - start)
                self._stop()
                failures += decoder == PILLOW
                decoder = PILLOW
                if failures == TRIES or self._closed:
                    results.append(Refusal(None, reason))
                    failures = 0
        return results

    def _post_mortem(self, process: "subprocess.Popen[bytes]", seconds: float) -> str:
        """Why a process is no more, as the reason of a refusal."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)  # its pipes close a moment before it is gone
        limit = self._options.seconds_per_picture
        out_of_time = process.returncode in [-number for number in TIMER_SIGNALS]
        if out_of_time or seconds >= WALL_FACTOR * limit / TRIES:
            return f"{TOO_LONG}: over {limit:g} s"
        return CRASHED

    def kill(self) -> None:
        """Start the end of the process; `close` waits for it."""
        self._closed = True
        if process := self._process:
            process.kill()

    def close(self) -> None:
        self._closed = True
        self._stop()

    def _start(self, decoder: str) -> "subprocess.Popen[bytes]":
        if self._closed:
            raise PokeganError("the preparation was stopped")
        with tempfile.TemporaryFile() as complaints:
            process = spawn(_CODE, complaints)
            self._process = process
            try:
                send(process.stdin, (replace(self._options, decoder=decoder), self._store))
                if receive(process.stdout) == READY and not self._closed:
                    return process
            except _BROKEN:
                pass
            self._stop()
            complaints.seek(0)
            said = complaints.read().decode(errors="replace").strip().splitlines()
        raise PokeganError(
            f"a worker process could not start ({said[-1] if said else 'no message'}): "
            "prepare with workers=0"
        )

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            stop(process)


def _result(answer: object) -> "Result | _NotStored":
    if isinstance(answer, Square | Kept | Refusal):
        return answer
    if isinstance(answer, OSError):
        return _NotStored(answer)
    raise PokeganError(f"a worker process failed: {answer}")


def _replaced(result: "Result | _NotStored") -> "Result | _NotStored":
    """The result, marked as Pillow's in the place of another decoder."""
    return result._replace(replaced=True) if isinstance(result, Square | Kept) else result


def _stored(result: "Result | _NotStored") -> Result:
    """The result, but where the store could not be written the error of the system."""
    if isinstance(result, _NotStored):
        raise result.error
    return result


class _NotStored(NamedTuple):
    """The answer of a worker that could not write what it prepared."""

    error: OSError
