"""What a worker process of `workers.py` runs: entries in, squares or refusals out.

It imports only what preparing pictures by Pillow takes, since a process that starts late has its
pictures late; other decoders load when they are asked for.
"""

import contextlib
import pickle
import queue
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TypeAlias

from pokegan.data.decoders import batch_size, warm_up
from pokegan.data.entries import Entry
from pokegan.data.options import PrepareOptions
from pokegan.data.pipes import private_streams, send
from pokegan.data.square import Refusal, Square, prepare_entries, read_ahead
from pokegan.data.store import Kept, Rows, Store

Result: TypeAlias = Square | Kept | Refusal
Numbered: TypeAlias = tuple[int, Entry]

MEMORY_LIMIT = 3 << 29  # bytes; enough for 64 million pixels of every kind
TRIES = 2
WALL_FACTOR = 12  # seconds by the clock for each second of work, for machines that are busy
_TIMED = hasattr(signal, "setitimer")
TIMER_SIGNALS = (signal.SIGPROF, signal.SIGALRM) if _TIMED else ()  # by default they end a process
READY = "ready"


def pieces(entries: Iterable[Numbered], size: int) -> Iterator[list[Numbered]]:
    """Cut entries into lists of `size`, the last one shorter."""
    rest = iter(entries)
    while piece := list(islice(rest, size)):
        yield piece


class Work(contextlib.ExitStack):
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
    for number in TIMER_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    requests, answers = private_streams()
    _limit_memory(MEMORY_LIMIT)
    options, store = pickle.load(requests)
    warm_up(options.decoder)
    if options.plain_background or options.min_foreground:  # numpy is no picture's fault either
        import pokegan.data.background  # noqa: F401  # loads numpy
    wanted = _asking()
    with Work(options, store) as work:
        send(answers, READY)
        with contextlib.suppress(EOFError, BrokenPipeError):
            while True:
                decoder, bunch = pickle.load(requests)
                wanted.put(bunch)
                for piece in pieces(bunch, batch_size(decoder)):
                    with _time_limit(len(piece) * options.seconds_per_picture / TRIES):
                        done = work.answers(piece, decoder)
                    for answer in done:
                        send(answers, answer)


def _asking() -> "queue.SimpleQueue[list[Numbered]]":
    """Start a thread that asks the system for the files of bunches, and return where to put these.

    Where a disk does not answer the thread waits, beyond any limit; who reads the file is limited.
    """
    wanted: queue.SimpleQueue[list[Numbered]] = queue.SimpleQueue()

    def ask() -> None:
        while True:
            for _, entry in wanted.get():
                read_ahead(entry)

    threading.Thread(target=ask, daemon=True).start()
    return wanted


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """End the process after `seconds` of work, or many more by the clock, even in the decoder's C.

    Work is what the processor did for us: a busy or a suspended machine does not count.
    """
    if not _TIMED:
        import faulthandler  # its thread takes 50 us a picture, where two timers take 3

        faulthandler.dump_traceback_later(WALL_FACTOR * seconds, exit=True)
        yield
        faulthandler.cancel_dump_traceback_later()
        return
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, WALL_FACTOR * seconds)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)


def _limit_memory(limit: int) -> None:
    """Let what one picture allocates fail beyond `limit` bytes, where the system can do that."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
