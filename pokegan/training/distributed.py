"""The ranks of a run under torchrun: their process group, and what they tell each other.

One process a device. Each rank has an equal share of every batch and the same weights; gradients
are averaged by one all-reduce of one flat tensor a network and update.
"""

import contextlib
import io
import itertools
import os
import signal
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store

from pokegan.errors import ConfigError, PeerError, PokeganError, RankError
from pokegan.ops.python_operator import python_operator
from pokegan.training.launch import Launch
from pokegan.training.operator_graph import always_run
from pokegan.training.watch import Watch

Result = TypeVar("Result")
_MARGIN = timedelta(seconds=60)  # the watch speaks first, and names the rank
_numbers = itertools.count()
_by_number: "weakref.WeakValueDictionary[int, Ranks]" = weakref.WeakValueDictionary()


class Ranks:
    """The ranks of a run, as one of them sees them; `pokegan.peers.Peers` for layers and losses.

    Without a store there is one rank and nothing to exchange. All ranks make the same calls in the
    same order.

    Args:
        launch: who this process is.
        store: shared by all ranks; None for one rank.
        watch: keeps them together; None for one rank.
        session: how many runs this process has begun before.
        restarted: whether this job was begun before; only rank 0 is sure to know.
    """

    def __init__(
        self,
        launch: Launch | None = None,
        store: Store | None = None,
        watch: Watch | None = None,
        session: int = 0,
        restarted: bool = False,
    ) -> None:
        self.launch = launch or Launch()
        self.store = store
        self.watch = watch
        self.session = session
        self.restarted = restarted
        self._turns = itertools.count()
        self._cuda = False
        self._number = next(_numbers)
        _by_number[self._number] = self

    @property
    def rank(self) -> int:
        """Return which rank this is, from 0."""
        return self.launch.rank if self.several else 0

    @property
    def count(self) -> int:
        """Return how many ranks there are."""
        return self.launch.world if self.several else 1

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.watch is not None

    @property
    def backend(self) -> str:
        """Return what the ranks exchange gradients by."""
        return "NCCL" if self._cuda else "gloo"

    @property
    def hosts(self) -> str:
        """Return how many hosts the ranks are on, in words."""
        assert self.watch is not None
        count = len({beat.who.split(" on ")[1] for beat in self.watch.beats()})
        return f"{count} host{'s' if count > 1 else ''}"

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone writes."""
        return self.rank == 0

    def connect(self, device: torch.device, timeout: float) -> None:
        """Take this rank's device, and make the process group on it.

        Args:
            device: cpu (gloo) or cuda (NCCL; each rank has the GPU of its local rank).
            timeout: seconds without progress after which the rank that is stuck is named.

        Raises:
            ConfigError: there is no GPU for this rank, or the process has a group already.
        """
        use_device(self.launch, device)
        if self.store is None or self.watch is None:
            return
        if dist.is_initialized():
            raise ConfigError("a process group exists already; under torchrun pokegan makes it")
        self.watch.timeout = timeout
        self._cuda = device.type == "cuda"
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if self._cuda else "gloo",
            store=PrefixStore("group", self.store),
            rank=self.rank,
            world_size=self.count,
            timeout=timedelta(seconds=timeout) + _MARGIN,
            device_id=torch.device("cuda", torch.cuda.current_device()) if self._cuda else None,
        )

    def share(self, first: int, batch: int) -> tuple[int, int]:
        """Return (first, count) of this rank's samples among `batch` from `first` on."""
        own = batch // self.count
        return first + self.rank * own, own

    def gather(self, values: Tensor) -> Tensor:
        """Return [count, ...], the [...] values of every rank in their order; no gradient."""
        if not self.several:
            return values[None]
        if torch.compiler.is_compiling():  # which knows collectives by itself
            return self.gather_now(values.detach())
        gathered: Tensor = torch.ops.pokegan.gather_over_ranks(values.detach(), self._number)
        return gathered

    def gather_now(self, values: Tensor) -> Tensor:
        """Do what `gather` does, of several ranks, seen by torch as what it is made of."""
        self._count_call()
        own = values.reshape(-1)
        everyone = own.new_empty(self.count * own.numel())
        dist.all_gather_into_tensor(everyone, own)
        return everyone.view(self.count, *values.shape)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of the values of all ranks, the same bits on each; no gradient."""
        if not self.several or torch.compiler.is_compiling():
            return self.sum_now(values.detach())
        summed: Tensor = torch.ops.pokegan.sum_over_ranks(values.detach(), self._number)
        return summed

    def sum_now(self, values: Tensor) -> Tensor:
        """Do what `sum` does, seen by torch as what it is made of."""
        summed = values.clone(memory_format=torch.contiguous_format)
        if self.several:
            self._count_call()
            dist.all_reduce(summed)
        return summed

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of the values of all ranks, elementwise, the same bits on each."""
        return self.sum(values) / self.count

    @torch.no_grad()
    def reduce(self, name: str, gradients: Sequence[Tensor]) -> None:
        """Replace a network's gradients by their means over the ranks, in one all-reduce.

        Args:
            name: of the network; all ranks reduce the same one.
            gradients: dense, of one dtype; as many on every rank, in the same layouts.
        """
        if not gradients or not self.several:
            return
        self._count_call()
        flat = torch.cat([_flat(gradient) for gradient in gradients])
        dist.all_reduce(flat)
        flat.mul_(1 / self.count)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        means = [_shaped(part, gradient) for part, gradient in zip(parts, gradients, strict=True)]
        torch._foreach_copy_(list(gradients), means)

    def enter(self, step: int, asked: int | None) -> int | None:
        """Begin `step`, or return the signal by which all ranks stop before it.

        Args:
            step: counted from 0.
            asked: the signal by which this rank was asked to stop, or None.
        """
        return asked if self.watch is None else self.watch.enter(step, asked)

    def fails(self, error: BaseException) -> None:
        """Tell the other ranks that this one fails, before what it does last: they end meanwhile.

        `joined` tells why, once `error` comes to it.
        """
        if self.watch is not None:
            self.watch.claim(exit_code(error))

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Expect progress of every rank while the body runs."""
        with self._expecting(True):
            yield

    @contextlib.contextmanager
    def _expecting(self, progress: bool) -> Iterator[None]:
        if self.watch is None:
            yield
            return
        before, self.watch.armed = self.watch.armed, progress
        try:
            yield
        finally:
            self.watch.armed = before

    def on_main(self, work: Callable[[], object]) -> None:
        """Do `work` on rank 0; the others wait for it, for any time and in no exchange."""

        def done() -> str:
            work()
            return ""

        with self._expecting(False):
            if self.store is not None:
                self.from_main(done)
            elif self.is_main:
                work()

    def from_main(self, make: Callable[[], str]) -> str:
        """Return what `make` returns on rank 0; the others wait for it, for any time."""
        if self.store is None:
            return make()
        key = f"main/{next(self._turns)}"
        if self.is_main:
            text = make()
            self.store.set(key, text)
            return text
        return self._get(key)

    def await_all(self) -> None:
        """Wait on rank 0 until every rank is here; the others go on to where they wait for it."""
        if self.store is None:
            return
        turn = next(self._turns)
        self.store.set(f"here/{turn}/{self.rank}", "")
        if self.is_main:
            for rank in range(self.count):
                self._get(f"here/{turn}/{rank}")

    def in_turn(self, work: Callable[[], Result]) -> Result:
        """Return what `work` gives here: rank 0 goes first, then one rank of each other host.

        So what the first one puts into a cache, the others find there.
        """
        if self.store is None:
            return work()
        turn, leader = next(self._turns), self.rank - self.launch.local_rank
        if not self.is_main:
            self._get(f"turn/{turn}/0")
        if self.launch.local_rank:
            self._get(f"turn/{turn}/{leader}")
        done = work()
        if self.rank == leader:
            self.store.set(f"turn/{turn}/{self.rank}", "done")
        return done

    def load(self, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the state that `read` gives on rank 0; the others need no file for it."""
        if self.store is None:
            return read()
        data = io.BytesIO()
        if self.is_main:
            state = read()
            torch.save(state, data)
        size = int(self.from_main(lambda: str(data.getbuffer().nbytes)))
        if self.is_main:
            content = torch.frombuffer(data.getbuffer(), dtype=torch.uint8)
        else:
            content = torch.empty(size, dtype=torch.uint8)
        dist.broadcast(content, 0)
        if self.is_main:
            return state
        received: dict[str, Any] = torch.load(
            io.BytesIO(content.numpy().tobytes()), map_location="cpu", weights_only=True
        )
        return received

    def _get(self, key: str) -> str:
        """Wait for a key of the store, until it is there or a rank has failed."""
        assert self.store is not None
        assert self.watch is not None
        while not self.store.check([key]):
            if self.watch.failed is not None:
                raise PeerError(self.watch.failed)
            time.sleep(0.02)
        return str(self.store.get(key).decode())

    def _count_call(self) -> None:
        if self.watch is not None and not torch.compiler.is_compiling():
            self.watch.calls += 1

    def leave(self) -> None:
        """End together: no rank goes while another one still writes, or needs the store."""
        assert self.store is not None
        turn = next(self._turns)
        self.store.set(f"left/{turn}/{self.rank}", "")
        for rank in range(self.count) if self.is_main else (0,):
            self._get(f"left/{turn}/{rank}")
        self.store.set(f"gone/{turn}/{self.rank}", "")
        if self.is_main:
            for rank in range(self.count):
                self._get(f"gone/{turn}/{rank}")


# As operators their Python runs in every step, also in one that is recorded, and on every rank,
# even where nobody reads what they give.


def _gather_over_ranks(values: Tensor, number: int) -> Tensor:
    """`Ranks.gather` of the ranks with that number."""
    return _by_number[number].gather_now(values)


def _sum_over_ranks(values: Tensor, number: int) -> Tensor:
    """`Ranks.sum` of the ranks with that number."""
    return _by_number[number].sum_now(values)


def _gathered_shape(values: Tensor, number: int) -> Tensor:
    return values.new_empty((_by_number[number].count, *values.shape))


def _summed_shape(values: Tensor, number: int) -> Tensor:
    return torch.empty_like(values, memory_format=torch.contiguous_format)


always_run(python_operator(_gather_over_ranks, "gather_over_ranks", _gathered_shape))
always_run(python_operator(_sum_over_ranks, "sum_over_ranks", _summed_shape))


def use_device(launch: Launch, device: torch.device) -> None:
    """Take this rank's GPU, and its part of the processor's cores.

    torchrun sets OMP_NUM_THREADS to 1 where it is not set; any other number is the user's.

    Raises:
        ConfigError: the host has fewer GPUs than ranks.
    """
    if device.type == "cuda" and launch.local_world > 1:
        have = torch.cuda.device_count()
        if launch.local_rank >= have:
            raise ConfigError(
                f"--device cuda: {launch.local_world} ranks on this host have {have} GPUs; start "
                f"torchrun with --nproc-per-node {have}"
            )
        torch.cuda.set_device(launch.local_rank)
    if launch.local_world > 1 and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        torch.set_num_threads(max(1, (cores or 1) // launch.local_world))


def exit_code(error: BaseException) -> int:
    """Return the exit code that the command line gives for `error`."""
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    mendable = isinstance(error, (PokeganError, OSError, MemoryError))
    return 2 if mendable and not isinstance(error, RankError) else 1


def _flat(tensor: Tensor) -> Tensor:
    """Return a tensor as one row, channels last where they are last in memory: a view."""
    if tensor.dim() == 4 and not tensor.is_contiguous():
        return tensor.permute(0, 2, 3, 1).reshape(-1)
    return tensor.reshape(-1)


def _shaped(row: Tensor, like: Tensor) -> Tensor:
    """Return what `_flat` made a row in the shape of `like`."""
    if like.dim() == 4 and not like.is_contiguous():
        n, c, h, w = like.shape
        return row.view(n, h, w, c).permute(0, 3, 1, 2)
    return row.view(like.shape)
