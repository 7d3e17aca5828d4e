"""Ranks that are threads of one process: `pokegan.peers.Peers` without a process group."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor


class Threads:
    """Ranks that are threads of this process; each gets `seat(rank)`."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.barrier = threading.Barrier(count)
        self.values: list[Tensor] = [torch.empty(0)] * count

    def exchange(self, rank: int, values: Tensor) -> Tensor:
        self.values[rank] = values.detach().clone()
        self.barrier.wait(20)
        everyone = torch.stack(self.values)
        self.barrier.wait(20)
        return everyone

    def run(self, work: Callable[["Seat"], Tensor]) -> list[Tensor]:
        with ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(work, [Seat(self, rank) for rank in range(self.count)]))


class Seat:
    def __init__(self, threads: Threads, rank: int) -> None:
        self.threads, self.rank, self.count = threads, rank, threads.count

    def gather(self, values: Tensor) -> Tensor:
        return self.threads.exchange(self.rank, values)

    def sum(self, values: Tensor) -> Tensor:
        return self.gather(values).sum(0)
