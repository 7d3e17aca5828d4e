"""Entries prepared by worker processes, in order, surviving what pictures do to decoders.

A worker is a plain child process that runs `serve` and talks over its standard streams. It never
imports the caller's main module: no `if __name__ == "__main__"` is needed, and no torch is loaded.
A picture that kills its worker twice, or takes too long twice, costs one picture. When the parent
goes, however it goes, the workers read the end of their input and go too.

Entries travel in bunches; pixels do not travel at all where there is a `Store` to leave them in.
"""

import contextlib
import faulthandler
import os
import pickle
import queue
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import NamedTuple, TypeAlias

from pokegan.data.decoders import PILLOW, batch_size, warm_up
from pokegan.data.entries import Entry
from pokegan.data.jobs import private_streams, receive, send, spawn, stop
from pokegan.data.options import PrepareOptions
from pokegan.data.refusals import CRASHED, TOO_LONG
from pokegan.data.square import Refusal, Square, prepare_entries
from pokegan.data.store import Kept, Rows, Store
from pokegan.data.thread_pool import Call, ThreadPool
from pokegan.errors import PokeganError

Result: TypeAlias = Square | Kept | Refusal
Numbered: TypeAlias = tuple[int, Entry]

MEMORY_LIMIT = 3 << 29  # bytes; enough for 64 million pixels of every kind

_PICTURES_PER_WORKER = 32  # fewer are not worth the start of another process
_BUNCH = 16  # entries that travel together: fewer wake the parent for each, more end unevenly
_BUNCHES_PER_WORKER = 3  # bounds the results that wait for their turn
_TRIES = 2
_WALL_FACTOR = 12  # seconds by the clock for each second of work, for machines that are busy
_TIMER_SIGNAL = getattr(signal, "SIGPROF", None)  # its default action ends the process
_READY = "ready"
_CODE = "from pokegan.data.workers import serve; serve()"
_BROKEN = (OSError, EOFError, pickle.UnpicklingError, ValueError)  # what a lost pipe can raise


def default_workers(pictures: int) -> int:
    """One worker per processor that this process may use, fewer for a handful of pictures."""
    affinity = getattr(os, "sched_getaffinity", None)
    processors = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(processors, pictures // _PICTURES_PER_WORKER))


def prepare_all(
    entries: Iterable[Entry], options: PrepareOptions, workers: int, store: Store | None = None
) -> Generator[Result, None, None]:
    """Prepare every entry and yield the results in the order of the entries.

    With `store` pixels and thumbnails go into its files, in the row of the entry's number, and what
    comes is `Kept` in the place of `Square`. With `workers` 0 the work is done in this process,
    without protection against pictures that crash or stall a decoder. Close the iterator to stop
    early. Raises OSError when the store cannot be written.
    """
    if workers == 0:
        with _Work(options, store) as work:
            for piece in _pieces(enumerate(entries), batch_size(options.decoder)):
                yield from work.do(piece, options.decoder)
        return
    with WorkerPool(options, workers, store) as pool:
        yield from pool.map(entries)


def _pieces(entries: Iterable[Numbered], size: int) -> Iterator[list[Numbered]]:
    rest = iter(entries)
    while piece := list(islice(rest, size)):
        yield piece


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
        self._window = _BUNCHES_PER_WORKER * workers

    def map(self, entries: Iterable[Entry]) -> Iterator[Result]:
        """Yield the result of each entry in order, working a bounded stretch ahead."""
        pending: deque[Call[list[Result | _NotStored]]] = deque()
        rows = enumerate(entries)
        for bunch in _pieces(rows, _BUNCH):
            pending.append(self._threads.submit(self._prepare, bunch))
            if len(pending) >= self._window:
                yield from map(_stored, pending.popleft().result())
        while pending:
            yield from map(_stored, pending.popleft().result())

    def close(self) -> None:
        """Stop at once; what is under way is lost."""
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
                if failures == _TRIES or self._closed:
                    results.append(Refusal(None, reason))
                    failures = 0
        return results

    def _post_mortem(self, process: "subprocess.Popen[bytes]", seconds: float) -> str:
        """Why a process is no more, as the reason of a refusal."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)  # its pipes close a moment before it is gone
        limit = self._options.seconds_per_picture
        out_of_time = _TIMER_SIGNAL is not None and process.returncode == -_TIMER_SIGNAL
        if out_of_time or seconds >= _WALL_FACTOR * limit / _TRIES:
            return f"{TOO_LONG}: over {limit:g} s"
        return CRASHED

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
                if receive(process.stdout) == _READY and not self._closed:
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


class _Work(contextlib.ExitStack):
    """What is done to each entry: prepare it and, where there is a store, leave pixels there."""

    def __init__(self, options: PrepareOptions, store: Store | None) -> None:
        super().__init__()
        self._options = options
        self._rows = self.enter_context(Rows(store)) if store else None

    def do(self, piece: list[Numbered], decoder: str) -> Iterator[Result]:
        """Prepare a piece of `batch_size` entries; OSError where one cannot be stored."""
        options = replace(self._options, decoder=decoder)
        results = prepare_entries([entry for _, entry in piece], options)
        for (row, _), result in zip(piece, results, strict=True):
            if self._rows is None or isinstance(result, Refusal):
                yield result
            else:
                yield self._rows.keep(row, result)

    def answers(self, piece: list[Numbered], decoder: str) -> list[Result | OSError]:
        """The same; in the place of what could not be stored, and of all after it, the error."""
        answers: list[Result | OSError] = []
        try:
            for result in self.do(piece, decoder):
                answers.append(result)
        except OSError as error:
            answers += [error] * (len(piece) - len(answers))
        return answers


def serve() -> None:
    """The life of a worker process: options first, then bunches of entries, each entry answered."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    if _TIMER_SIGNAL is not None:
        signal.signal(_TIMER_SIGNAL, signal.SIG_DFL)
    requests, answers = private_streams()
    _limit_memory(MEMORY_LIMIT)
    options, store = pickle.load(requests)
    warm_up(options.decoder)
    with _Work(options, store) as work:
        send(answers, _READY)
        with contextlib.suppress(EOFError, BrokenPipeError):
            while True:
                decoder, bunch = pickle.load(requests)
                for piece in _pieces(bunch, batch_size(decoder)):
                    with _time_limit(len(piece) * options.seconds_per_picture / _TRIES):
                        done = work.answers(piece, decoder)
                    for answer in done:
                        send(answers, answer)


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """End the process after `seconds` of work, or many more by the clock, even in the decoder's C.

    Work is what the processor did for us: a busy or a suspended machine does not count.
    """
    faulthandler.dump_traceback_later(_WALL_FACTOR * seconds, exit=True)
    timer = getattr(signal, "setitimer", None)
    if timer is not None:
        timer(signal.ITIMER_PROF, seconds)
    yield
    if timer is not None:
        timer(signal.ITIMER_PROF, 0)
    faulthandler.cancel_dump_traceback_later()


def _limit_memory(limit: int) -> None:
    """Let what one picture allocates fail beyond `limit` bytes, where the system can do that."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
