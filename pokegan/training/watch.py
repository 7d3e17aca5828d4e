"""A thread beside the loop that keeps the ranks of a run together, over the job's key-value store.

Every rank tells where it is about once a second. So a rank that waits for too long knows whom for,
a failure on one rank ends all of them at once, and a wish to stop becomes one step at which all
stop. The training step itself is not touched: the loop only writes a few numbers of its own.
"""

import math
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from torch.distributed.distributed_c10d import Store

from pokegan.errors import PeerError

POLL_SECONDS = 0.2
BEAT_SECONDS = 1.0
FROZEN_BEATS = 3  # a rank that tells nothing for so long is stopped or gone
GRACE_SECONDS = 5.0  # for a rank to come back from what it waits for, once another has failed
FAILED = "failed"
STOP = "stop"


@dataclass(frozen=True)
class Beat:
    """What a rank tells: a count of its messages, where it is, and who it is."""

    number: int
    step: int
    calls: int
    who: str

    @property
    def place(self) -> tuple[int, int]:
        """How far the rank has come: in a later step, or in a later call within it."""
        return self.step, self.calls


class Watch(threading.Thread):
    """Tells and listens until it is closed.

    Args:
        store: shared by all ranks, used by this thread alone.
        rank: this one.
        count: of all.
        who: host and process, for messages.

    Attributes:
        step: steps begun; the loop's own number, written by `enter`.
        calls: collectives begun, written by `Ranks`.
        armed: whether progress is expected.
        timeout: seconds after which a rank that makes no progress is told to be stuck.
        failed: the exit code with which another rank has failed, or None.
    """

    def __init__(self, store: Store, rank: int, count: int, who: str) -> None:
        super().__init__(name="watch", daemon=True)
        self.store = store
        self.rank = rank
        self.count = count
        self.who = who
        self.timeout = math.inf
        self.step = 0
        self.calls = 0
        self.armed = False
        self.failed: int | None = None
        self.asked: int | None = None
        self._condition = threading.Condition()
        self._told = False  # this rank's step is out: no further one is entered without a limit
        self._limit: int | None = None
        self._signal = 0
        self._closing = threading.Event()
        self._beats = 0
        self._failed_at = 0.0
        self._tell()

    def enter(self, step: int, signal: int | None) -> int | None:
        """Begin `step`, or return the signal by which all ranks stop before it.

        Args:
            step: counted from 0.
            signal: what this rank was asked to stop by, or None.

        Raises:
            PeerError: another rank has failed meanwhile.
        """
        if signal is not None:
            self.asked = signal
        with self._condition:
            while self._told and self._limit is None:
                self._condition.wait(POLL_SECONDS)
                if self.failed is not None:
                    raise PeerError(self.failed)
            if self._limit is not None and step >= self._limit:
                return self._signal
            self.step = step + 1
            return None

    def claim(self, code: int) -> bool:
        """Tell that this rank fails with exit code `code`; return whether it is the first."""
        own = f"{code} {self.rank}"
        return bool(self.store.compare_set(FAILED, "", own).decode() == own)

    def beats(self) -> list[Beat]:
        """Return what every rank has told last."""
        return [self._beat(rank) for rank in range(self.count)]

    def silent(self) -> list[int]:
        """Return the ranks that tell nothing; takes some seconds to find out.

        This one goes on telling, for others may be asking the same.
        """
        before = self.beats()
        for _ in range(FROZEN_BEATS):
            time.sleep(BEAT_SECONDS)
            self._tell()
        pairs = zip(before, self.beats(), strict=True)
        return [rank for rank, (a, b) in enumerate(pairs) if a.number == b.number]

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self.join()

    def run(self) -> None:
        """Tell and listen."""
        place, changed, told = (-1, -1), time.monotonic(), 0.0
        while not self._closing.wait(POLL_SECONDS):
            try:
                now = time.monotonic()
                if now - told >= BEAT_SECONDS:
                    self._tell()
                    told = now
                self._listen(now)
                if (self.step, self.calls) != place or not self.armed:
                    place, changed = (self.step, self.calls), now
                elif now - changed > self.timeout:
                    self._end(self._stuck())
                    changed = now
            except RuntimeError:  # the store is gone, and with it the rank or agent that kept it
                if not self._closing.wait(GRACE_SECONDS):
                    self._forsaken()

    def _tell(self) -> None:
        self._beats += 1
        self.store.set(_key(self.rank), f"{self._beats} {self.step} {self.calls} {self.who}")

    def _beat(self, rank: int) -> Beat:
        number, step, calls, who = self.store.get(_key(rank)).decode().split(" ", 3)
        return Beat(int(number), int(step), int(calls), who)

    def _listen(self, now: float) -> None:
        if self.failed is None and self.store.check([FAILED]):
            code, rank = self.store.get(FAILED).decode().split()
            if int(rank) != self.rank:
                self.failed, self._failed_at = int(code), now
        if self.failed is not None and now - self._failed_at > GRACE_SECONDS:
            os._exit(self.failed)  # the loop waits for a rank that will not come
        if self.asked is not None and not self._told:
            self.store.compare_set(STOP, "", str(int(self.asked)))
        if self._limit is None and self.store.check([STOP]):
            self._agree()

    def _agree(self) -> None:
        """Tell which step this rank has begun; the last one that any has begun is the end.

        Until all have told, no rank enters another step: one that is behind goes on to the end, and
        none can be ahead of it.
        """
        with self._condition:
            if not self._told:
                self._told = True
                self.store.set(f"{STOP}/{self.rank}", str(self.step))
        keys = [f"{STOP}/{rank}" for rank in range(self.count)]
        if self.store.check(keys):
            with self._condition:
                self._signal = int(self.store.get(STOP))
                self._limit = max(int(self.store.get(key)) for key in keys)
                self._condition.notify_all()

    def _stuck(self) -> str:
        """Say who keeps the others waiting."""
        silent, beats = self.silent(), self.beats()
        places = [beat.place for beat in beats]
        behind = [rank for rank, place in enumerate(places) if place == min(places)]
        ranks = silent or (behind if len(behind) < self.count else [])
        where = f"no progress for {self.timeout:g} s (--rank-timeout) in step {max(places)[0]}"
        if not ranks:
            return f"{where}: all ranks wait in the same exchange; see the network between them"
        names = describe(ranks, beats)
        why = "stopped or gone" if silent else "behind the others"
        return f"{where}: {names}: {why}; continue with pokegan train --resume"

    def _end(self, message: str) -> None:
        """End this process, which cannot come back from what it waits for."""
        if self.claim(1):
            print(f"pokegan: error: {message}", file=sys.stderr, flush=True)
        os._exit(1)

    def _forsaken(self) -> None:
        """End this process, which waits without a store; tell so, unless a rank has told why."""
        if self.failed is None:
            print(
                f"pokegan: error: rank {self.rank}: the job's store is gone: torchrun on the host "
                "of rank 0 ended",
                file=sys.stderr,
                flush=True,
            )
        os._exit(1)


def describe(ranks: Sequence[int], beats: Sequence[Beat]) -> str:
    """Name ranks as in `rank 3 (process 77 on HOST)`."""
    names = [f"rank {rank} ({beats[rank].who})" for rank in ranks]
    return " and ".join(names)


def _key(rank: int) -> str:
    return f"beat/{rank}"
