"""What every benchmark shares: paired rounds, and facts about the machine beside each figure.

Two functions are timed in turns, A B A B, in one process, and the median of the ratios is what
counts: the machine's mood falls on both alike. `POKEGAN_BENCH_ROUNDS` sets the count of pairs.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROUNDS = int(os.environ.get("POKEGAN_BENCH_ROUNDS", "12"))
Pair = Callable[..., float]
_summaries: list[str] = []


def hardware() -> dict[str, str]:
    """Name what was measured on."""
    from pokegan.training.hardware import bfloat16_units

    return {
        "processor": _processor(),
        "threads": str(torch.get_num_threads()),
        "bfloat16": bfloat16_units() or "none",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


@pytest.fixture
def pair(benchmark, request) -> Pair:
    """Time `ours` against `theirs` in turns; return the median ratio theirs / ours.

    A call of either does `amount` of `unit`.
    """

    def run(
        ours: Callable[[], None],
        theirs: Callable[[], None],
        amount: float,
        unit: str = "images",
    ) -> float:
        benchmark.group = request.node.name
        for function in (ours, theirs, ours, theirs):
            function()
        their_seconds: list[float] = []

        def time_theirs() -> None:
            start = time.perf_counter()
            theirs()
            their_seconds.append(time.perf_counter() - start)

        benchmark.pedantic(ours, setup=time_theirs, rounds=ROUNDS, iterations=1)
        our_seconds = list(benchmark.stats.stats.data)
        ratio = statistics.median(b / a for a, b in zip(our_seconds, their_seconds, strict=True))
        rates = {
            f"{unit}_per_second": amount / statistics.median(our_seconds),
            f"other_{unit}_per_second": amount / statistics.median(their_seconds),
            "ratio": ratio,
        }
        benchmark.extra_info.update(rates | hardware())
        _summaries.append(
            f"{request.node.name}: {rates[f'{unit}_per_second']:,.0f} {unit}/s against "
            f"{rates[f'other_{unit}_per_second']:,.0f}, median ratio {ratio:.2f} "
            f"of {len(our_seconds)} pairs"
        )
        return ratio

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the ratios, and where they were measured."""
    if _summaries:
        terminalreporter.section("paired ratios")
        for line in _summaries:
            terminalreporter.write_line(line)
        facts = ", ".join(f"{key} {value}" for key, value in hardware().items())
        terminalreporter.write_line(facts)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()
