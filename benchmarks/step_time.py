"""The time of a training step on paper: compute, launches, and exchanges between ranks.

    step = compute + launches + gradients + norms

An exchange takes alpha + bytes / beta (Hockney's model); over N ranks in a ring an all-reduce has
2 (N - 1) hops and sends 2 (N - 1) / N of its bytes over every link, an all-gather half of that
(Thakur, Rabenseifner, Gropp 2005, sections 4.1 and 4.5). Compute is a roofline (Williams, Waterman,
Patterson 2009) over the operators one by one. Seconds, bytes, and bytes or operations a second.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from step_cost import ADAM_ELEMENTS, StepCost

HOST = 8  # GPUs of a host
BFLOAT16 = 2  # bytes of an element
LAUNCH = 1e-6  # seconds between two kernels of a CUDA graph: an assumption
LINKS = 0.8  # share of a link's rate that is reached: an assumption
EFFICIENCY = {"low": 0.2, "middle": 0.4, "high": 0.7}  # of both peak rates: an assumption
PAYS = 1.5  # times as many pictures a second by twice as many GPUs


@dataclass(frozen=True)
class Path:
    """A way to send between ranks.

    Attributes:
        start: seconds before anything moves.
        hop: seconds from one rank to the next within a host.
        far_hop: seconds from one host to the next.
        rate: bytes a second out of a rank.
        far_rate: bytes a second out of a host.
        tree: a tree, and not a ring; for all-reduces alone.
    """

    start: float
    hop: float
    far_hop: float
    rate: float
    far_rate: float
    tree: bool = False

    def all_reduce(self, size: float, ranks: int, hosts: int = 1) -> float:
        """Return the seconds in which `size` bytes of every rank become their sum."""
        if ranks == 1:
            return 0.0
        rate = self._rate(hosts)
        if self.tree:  # a chain in each host, a binary tree over them; up, and down again
            hops = (ranks // hosts - 1) * self.hop + math.log2(hosts) * self.far_hop
            return self.start + 2 * hops + 2 * size / rate
        steps, far = 2 * (ranks - 1), 2 * (hosts - 1)
        return self._hops(steps, far) + steps / ranks * size / rate

    def all_gather(self, size: float, ranks: int, hosts: int = 1) -> float:
        """Return the seconds in which every rank gets the `size` bytes of every rank."""
        if ranks == 1:
            return 0.0
        return self._hops(ranks - 1, hosts - 1) + (ranks - 1) * size / self._rate(hosts)

    def _hops(self, steps: int, far: int) -> float:
        return self.start + (steps - far) * self.hop + far * self.far_hop

    def _rate(self, hosts: int) -> float:
        return self.rate if hosts == 1 else min(self.rate, self.far_rate)


@dataclass(frozen=True)
class Machine:
    """What ranks run on.

    Attributes:
        name: of it.
        flops: bfloat16 operations a second, dense.
        memory: bytes a second of a rank's own memory.
        paths: of which the fastest is taken.
        source: of these figures.
    """

    name: str
    flops: float
    memory: float
    paths: tuple[Path, ...]
    source: str


def nccl(
    rate: float, far_rate: float, hop_ll: float, hop_simple: float, tree: float
) -> Sequence[Path]:
    """Return NCCL's ways by the latencies of its own tuning table, given those within a host.

    LL has a quarter of the rate, in that table; LL128 is left out.
    """
    rate, far_rate = LINKS * rate, LINKS * far_rate
    return (
        Path(3.6e-6, hop_ll, 2.7e-6, rate / 4, far_rate / 4),  # LL
        Path(8.4e-6, hop_simple, 9.6e-6, rate, far_rate),
        Path(4.4e-6, tree, 5.0e-6, rate / 4, far_rate / 4, tree=True),
    )


NCCL = "latencies: NCCL, src/graph/tuning.cc (baseLat, hwLat), commit 01afd20"
MACHINES = (
    Machine(
        "H200 SXM",
        989e12,
        4.8e12,
        tuple(nccl(450e9, 400e9, 0.47e-6, 3.4e-6, 0.52e-6)),
        "NVIDIA H200 datasheet: bf16 1,979 TFLOPS with sparsity, so 989 dense; 4.8 TB/s; NVLink "
        "900 GB/s, 450 each way. DGX H200: 8 x 400 Gb/s InfiniBand a host, 400 GB/s each way",
    ),
    Machine(
        "A100 SXM 80 GB",
        312e12,
        2.039e12,
        tuple(nccl(300e9, 200e9, 0.47e-6, 3.4e-6, 0.52e-6)),
        "NVIDIA A100 datasheet: bf16 312 TFLOPS dense; 2,039 GB/s; NVLink 600 GB/s, 300 each way. "
        "DGX A100: 8 x 200 Gb/s InfiniBand a host, 200 GB/s each way",
    ),
    Machine(
        "A100 PCIe 80 GB",
        312e12,
        1.935e12,
        tuple(nccl(32e9, 25e9, 1.0e-6, 5.7e-6, 1.0e-6)),
        "NVIDIA A100 datasheet: bf16 312 TFLOPS dense; 1,935 GB/s; PCIe 4.0 x16 64 GB/s, 32 each "
        "way. One 200 Gb/s InfiniBand port a host, 25 GB/s each way: an assumption",
    ),
)


@dataclass(frozen=True)
class StepTime:
    """Where the seconds of a step go.

    Attributes:
        compute: of the operators.
        launches: between them.
        gradients: the all-reduces of gradients.
        norms: the exchanges of batch norm over all ranks.
    """

    compute: float
    launches: float
    gradients: float
    norms: float

    @property
    def total(self) -> float:
        """Return the sum: nothing runs beside anything else, as it is today."""
        return self.compute + self.launches + self.gradients + self.norms

    @property
    def overlapped(self) -> float:
        """Return what no overlap of gradients' all-reduce with compute can be under."""
        return max(self.compute, self.gradients) + self.launches + self.norms


def compute(cost: StepCost, pictures: float, machine: Machine, efficiency: float) -> float:
    """Return the seconds of the operators: the slower of arithmetic and memory, one by one."""
    seconds = 0.0
    for operator in cost.operators:
        flops, elements = operator.at(pictures)
        seconds += max(flops / machine.flops, BFLOAT16 * elements / machine.memory)
    return seconds / efficiency


def floor(cost: StepCost, pictures: float, machine: Machine) -> tuple[float, float]:
    """Return the seconds of a step's arithmetic, and of the fewest bytes that it must move.

    These are what products and convolutions read and write, once, and the updates of the weights:
    all else can be fused into them. A cache that keeps maps from one to the next may save more.
    """
    flops, moved = 0.0, float(ADAM_ELEMENTS * sum(cost.gradients))
    for operator in cost.operators:
        arithmetic, elements = operator.at(pictures)
        flops += arithmetic
        moved += BFLOAT16 * elements if arithmetic else 0.0
    return flops / machine.flops, moved / machine.memory


def gradient_exchange(cost: StepCost, ranks: int, paths: Sequence[Path], hosts: int = 1) -> float:
    """Return the seconds of a step's all-reduces of gradients."""
    return sum(min(p.all_reduce(size, ranks, hosts) for p in paths) for size in cost.gradients)


def norm_exchange(cost: StepCost, ranks: int, paths: Sequence[Path], hosts: int = 1) -> float:
    """Return the seconds of the exchanges of batch norm over all ranks."""
    rings = [path for path in paths if not path.tree]
    gathers = sum(min(p.all_gather(size, ranks, hosts) for p in rings) for size in cost.gathers)
    return gathers + sum(min(p.all_reduce(n, ranks, hosts) for p in paths) for n in cost.sums)


def step_time(
    cost: StepCost,
    pictures: float,
    ranks: int,
    machine: Machine,
    efficiency: float,
    shared_norms: bool = True,
) -> StepTime:
    """Return the time of a step.

    Args:
        cost: of the step.
        pictures: of each rank.
        ranks: hosts are full, 8 each, before there is another one.
        machine: of each rank.
        efficiency: share of its peak rates that compute reaches, in (0, 1].
        shared_norms: batch norm is over all ranks.
    """
    hosts = -(-ranks // HOST)
    return StepTime(
        compute(cost, pictures, machine, efficiency),
        LAUNCH * len(cost.operators),
        gradient_exchange(cost, ranks, machine.paths, hosts),
        norm_exchange(cost, ranks, machine.paths, hosts) if shared_norms else 0.0,
    )


def pays_up_to(counts: Sequence[int], rates: Sequence[float]) -> int:
    """Return the last count of which each doubling before it brought `PAYS` times the rate."""
    last = counts[0]
    for count, before, rate in zip(counts[1:], rates[:-1], rates[1:], strict=True):
        if rate < PAYS * before:
            break
        last = count
    return last
