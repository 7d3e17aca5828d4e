"""Entries prepared by worker processes, in order, surviving what pictures do to decoders.

A worker is a plain child process that runs `serve` and talks over its standard streams. It never
imports the caller's main module: no `if __name__ == "__main__"` is needed, and no torch is loaded.
A picture that kills its worker twice, or takes too long twice, costs one picture. When the parent
goes, however it goes, the workers read the end of their input and go too.
"""

import contextlib
import faulthandler
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from types import TracebackType
from typing import IO

from pokegan.data.decoders import PILLOW, batch_size, warm_up
from pokegan.data.entries import Entry
from pokegan.data.options import PrepareOptions
from pokegan.data.refusals import CRASHED, TOO_LONG
from pokegan.data.square import Refusal, Square, prepare_entries
from pokegan.errors import PokeganError

MEMORY_LIMIT = 3 << 29  # bytes; enough for 64 million pixels of every kind

_PICTURES_PER_WORKER = 32  # fewer are not worth the start of another process
_QUEUED_PER_WORKER = 8  # bounds the results that wait for their turn
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
    entries: Iterable[Entry], options: PrepareOptions, workers: int
) -> Generator[Square | Refusal, None, None]:
    """Prepare every entry and yield the results in the order of the entries.

    With `workers` 0 the work is done in this process, without protection against pictures that
    crash or stall a decoder. Close the iterator to stop early.
    """
    if workers == 0:
        for batch in _batches(entries, options):
            yield from prepare_entries(batch, options)
        return
    with WorkerPool(options, workers) as pool:
        yield from pool.map(entries)


def _batches(entries: Iterable[Entry], options: PrepareOptions) -> Iterator[tuple[Entry, ...]]:
    """The entries in pieces of what the decoder likes to have at once."""
    rest = iter(entries)
    while batch := tuple(islice(rest, batch_size(options.decoder))):
        yield batch


class WorkerPool:
    """Worker processes, each driven by a thread that waits for it.

    Raises PokeganError when a worker process cannot be started.
    """

    def __init__(self, options: PrepareOptions, workers: int) -> None:
        self._options = options
        self._threads = ThreadPoolExecutor(workers, "pokegan-prepare")
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._workers = [_Worker(options) for _ in range(workers)]
        for worker in self._workers:
            self._idle.put(worker)
        self._window = max(2, _QUEUED_PER_WORKER // batch_size(options.decoder)) * workers

    def map(self, entries: Iterable[Entry]) -> Iterator[Square | Refusal]:
        """Yield the result of each entry in order, working a bounded stretch ahead."""
        pending: deque[Future[list[Square | Refusal]]] = deque()
        for batch in _batches(entries, self._options):
            pending.append(self._threads.submit(self._prepare, batch))
            if len(pending) >= self._window:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()

    def close(self) -> None:
        """Stop at once; what is under way is lost."""
        for worker in self._workers:
            worker.close()
        self._threads.shutdown(cancel_futures=True)

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _prepare(self, batch: tuple[Entry, ...]) -> list[Square | Refusal]:
        worker = self._idle.get()
        try:
            return worker.prepare(batch)
        finally:
            self._idle.put(worker)


class _Worker:
    """One child process, started on first use and again after each death."""

    def __init__(self, options: PrepareOptions) -> None:
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def prepare(self, batch: tuple[Entry, ...]) -> list[Square | Refusal]:
        """Prepare a batch; an entry that kills the process twice, or stalls it twice, is refused.

        Where the process dies with another decoder than Pillow, Pillow reads the batch one by one.
        """
        decoder = self._options.decoder
        if decoder == PILLOW:
            return [self._by_pillow(entry) for entry in batch]
        answer = self._ask(batch, decoder)
        if not isinstance(answer, str):
            return answer
        results = [self._by_pillow(entry) for entry in batch]
        return [r._replace(replaced=True) if isinstance(r, Square) else r for r in results]

    def _by_pillow(self, entry: Entry) -> Square | Refusal:
        reason = CRASHED
        for _ in range(2):
            answer = self._ask((entry,), PILLOW)
            if not isinstance(answer, str):
                return answer[0]
            reason = answer
            if self._closed:
                break
        return Refusal(None, reason)

    def _ask(self, batch: tuple[Entry, ...], decoder: str) -> list[Square | Refusal] | str:
        """What the process makes of a batch; where it dies, why, as the reason of a refusal."""
        process = self._process or self._start(decoder)
        start = time.monotonic()
        try:
            _send(process.stdin, (batch, decoder))
            return _results(_receive(process.stdout))
        except _BROKEN:
            reason = self._post_mortem(process, time.monotonic() - start)
            self._stop()
            return reason

    def _post_mortem(self, process: "subprocess.Popen[bytes]", seconds: float) -> str:
        """Why a process is no more, as the reason of a refusal."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)  # its pipes close a moment before it is gone
        limit = self._options.seconds_per_picture
        out_of_time = _TIMER_SIGNAL is not None and process.returncode == -_TIMER_SIGNAL
        if out_of_time or seconds >= _WALL_FACTOR * limit:
            return f"{TOO_LONG}: over {limit:g} s"
        return CRASHED

    def close(self) -> None:
        self._closed = True
        self._stop()

    def _start(self, decoder: str) -> "subprocess.Popen[bytes]":
        if self._closed:
            raise PokeganError("the preparation was stopped")
        with tempfile.TemporaryFile() as complaints:
            process = _spawn(complaints)
            self._process = process
            try:
                _send(process.stdin, replace(self._options, decoder=decoder))
                if _receive(process.stdout) == _READY and not self._closed:
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
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()


def _spawn(complaints: IO[bytes]) -> "subprocess.Popen[bytes]":
    code = f"import sys; sys.path[:] = {sys.path!r}\n{_CODE}"
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        env={**os.environ, **single},
    )


def _send(pipe: IO[bytes] | None, value: object) -> None:
    assert pipe is not None
    pickle.dump(value, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def _receive(pipe: IO[bytes] | None) -> object:
    assert pipe is not None
    return pickle.load(pipe)


def _results(answer: object) -> list[Square | Refusal]:
    if isinstance(answer, list):
        return answer
    raise PokeganError(f"a worker process failed: {answer}")


def serve() -> None:
    """The life of a worker process: options first, then batches, each answered, until the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    if _TIMER_SIGNAL is not None:
        signal.signal(_TIMER_SIGNAL, signal.SIG_DFL)
    requests, answers = _private_streams()
    _limit_memory(MEMORY_LIMIT)
    options: PrepareOptions = pickle.load(requests)
    warm_up(options.decoder)
    _send(answers, _READY)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            batch, decoder = pickle.load(requests)
            with _time_limit(len(batch) * options.seconds_per_picture):
                answer = prepare_entries(batch, replace(options, decoder=decoder))
            _send(answers, answer)


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


def _private_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Standard input and output for our own use; what a library prints goes to standard error."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return requests, answers


def _limit_memory(limit: int) -> None:
    """Let what one picture allocates fail beyond `limit` bytes, where the system can do that."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
