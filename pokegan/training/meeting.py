"""How the ranks of a job find each other in a key-value store that may be older than they are."""

import secrets
import time
from datetime import timedelta

from torch.distributed.distributed_c10d import Store

from pokegan.errors import RankError
from pokegan.training.launch import Launch

MEETING = timedelta(minutes=10)  # for the ranks of all hosts to start


def meet(store: Store, launch: Launch, session: int) -> tuple[str, bool]:
    """Agree on a prefix of the store's keys; return it, and whether the job was begun before.

    A store may outlive its ranks, with all of their keys. So each rank says hello under a name of
    its own, and rank 0 answers by that name until everyone who lives has a place.

    Raises:
        RankError: some rank did not start.
    """
    own = secrets.token_hex(8)
    store.set(f"pokegan/hello/{launch.rank}", f"{own} {launch.restarts}")
    end = time.monotonic() + MEETING.total_seconds()
    if not launch.is_main:
        _await(store, f"pokegan/welcome/{own}", end)
        prefix = str(store.get(f"pokegan/welcome/{own}").decode())
        store.set(f"{prefix}/here/{launch.rank}", "")
        return prefix, False
    prefix, restarts = f"pokegan/{own}", launch.restarts
    waited = set(range(1, launch.world))
    while waited:
        for rank in sorted(waited):
            if store.check([f"pokegan/hello/{rank}"]):
                name, count = store.get(f"pokegan/hello/{rank}").decode().split()
                store.set(f"pokegan/welcome/{name}", prefix)
                if store.check([f"{prefix}/here/{rank}"]):
                    waited.discard(rank)
                    restarts = max(restarts, int(count))
        if time.monotonic() > end:
            missing = ", ".join(map(str, sorted(waited)))
            raise RankError(f"of {launch.world} ranks these did not start: {missing}")
        time.sleep(0.02)
    rounds = store.add(f"pokegan/rounds/{session}", 1)
    return prefix, restarts > 0 or rounds > 1


def _await(store: Store, key: str, end: float) -> None:
    while not store.check([key]):
        if time.monotonic() > end:
            raise RankError("rank 0 did not start, or not in time")
        time.sleep(0.02)
