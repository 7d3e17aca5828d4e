"""How the ranks of a job begin together, and how they end: with one of them telling why."""

import contextlib
import itertools
import os
import socket
import sys
import time
from collections.abc import Iterator

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from pokegan.errors import PeerError, RankError
from pokegan.training.distributed import Ranks, exit_code
from pokegan.training.launch import Launch
from pokegan.training.meeting import MEETING, meet
from pokegan.training.watch import FAILED, Watch, describe

_PRECEDENCE_SECONDS = 0.5  # for the rank whose fault it is, or rank 0, to tell first
_LOST = ("connection", "gloo", "nccl", "broken pipe", "socket", "timed out")
_sessions = itertools.count()


@contextlib.contextmanager
def joined(launch: Launch) -> Iterator[Ranks]:
    """Yield the ranks of this job, who can speak by `Ranks.from_main` and meet by `connect`.

    When the body fails, one rank tells why: rank 0 if it fails too, else the first one. That
    exception goes on, or its line is printed where the process is not its host's first; on all
    other ranks it becomes PeerError. All ranks end.

    Args:
        launch: who this process is.
    """
    if launch.world == 1:
        yield Ranks(launch, session=next(_sessions), restarted=launch.restarts > 0)
        return
    ranks, watch = _join(launch)
    try:
        yield ranks
        ranks.leave()
    except PeerError:
        raise
    except BaseException as error:
        _fail(watch, ranks.rank, launch.speaks, error)
        raise
    finally:
        watch.close()
    if dist.is_initialized():
        dist.destroy_process_group()


def _join(launch: Launch) -> tuple[Ranks, Watch]:
    session = next(_sessions)
    store, rank, world = next(rendezvous("env://", timeout=MEETING))
    prefix, restarted = meet(store, launch, session)
    who = f"process {os.getpid()} on {socket.gethostname()}"
    watch = Watch(PrefixStore(prefix, store.clone()), rank, world, who)
    watch.start()
    return Ranks(launch, PrefixStore(prefix, store), watch, session, restarted), watch


def _fail(watch: Watch, rank: int, speaks: bool, error: BaseException) -> None:
    """Let one rank tell what is wrong; raise PeerError on the others.

    Raises:
        PeerError: another rank tells it, or this one has.
        RankError: a rank, or the job's store, is gone and could not tell.
    """
    try:
        error, first = _told_first(watch, rank, error)
    except dist.DistError:
        raise RankError("the job's store is gone: torchrun on the host of rank 0 ended") from error
    code = exit_code(error)
    if not first:
        raise PeerError(code) from error
    if speaks:
        raise error
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"pokegan: error: rank {rank}: {text}", file=sys.stderr, flush=True)
    raise PeerError(code) from error


def _told_first(watch: Watch, rank: int, error: BaseException) -> tuple[BaseException, bool]:
    """Return what is wrong, which may be a rank that is gone, and whether this rank tells it."""
    lost = isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _LOST)
    _await_failure(watch, rank, 0.0 if rank == 0 and not lost else _PRECEDENCE_SECONDS)
    if lost:
        silent = watch.silent()
        if silent:
            error = RankError(
                f"in step {watch.step}: {describe(silent, watch.beats())}: gone; continue with "
                "pokegan train --resume, or start with torchrun --max-restarts"
            )
    return error, watch.claim(exit_code(error))


def _await_failure(watch: Watch, rank: int, seconds: float) -> None:
    """Raise PeerError when another rank has told, or tells within so many seconds, why it fails."""
    end = time.monotonic() + seconds
    while True:
        if watch.store.check([FAILED]):
            code, first = map(int, watch.store.get(FAILED).decode().split())
            if first == rank:
                return
            raise PeerError(code)
        if time.monotonic() >= end:
            return
        time.sleep(0.05)
