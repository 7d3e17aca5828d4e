"""What every benchmark shares: paired rounds, and facts about the machine beside each figure.

Two functions are timed in turns, A B A B, in one process, and the median of the ratios is what
counts: the machine's mood falls on both alike. `POKEGAN_BENCH_ROUNDS` sets the count of pairs.
"""

import os
import statistics
import time
from collections.abc import Callable

import pytest
from measuring import hardware, wait

ROUNDS = int(os.environ.get("POKEGAN_BENCH_ROUNDS", "12"))
Pair = Callable[..., float]
_summaries: list[str] = []


@pytest.fixture
def pair(benchmark, request) -> Pair:
    """Time `ours` against `theirs` in turns; return the median ratio theirs / ours.

    A call of either does `amount` of `unit`; a timing is of `calls` calls, to the end of what they
    gave to a GPU. Where ours takes milliseconds and theirs a second, one of ours tells how long its
    threads take to wake up: `times` as many of ours are timed together, and their mean counts.
    """

    def run(
        ours: Callable[[], None],
        theirs: Callable[[], None],
        amount: float,
        unit: str = "images",
        calls: int = 1,
        times: int = 1,
    ) -> float:
        benchmark.group = request.node.name
        ours, theirs = _whole(ours, calls * times), _whole(theirs, calls)
        for function in (ours, theirs, ours, theirs):
            function()
        their_seconds: list[float] = []

        def time_theirs() -> None:
            start = time.perf_counter()
            theirs()
            their_seconds.append(time.perf_counter() - start)

        benchmark.pedantic(ours, setup=time_theirs, rounds=ROUNDS, iterations=1)
        our_seconds = [seconds / times for seconds in benchmark.stats.stats.data]
        ratio = statistics.median(b / a for a, b in zip(our_seconds, their_seconds, strict=True))
        done = amount * calls
        rates = {
            f"{unit}_per_second": done / statistics.median(our_seconds),
            f"other_{unit}_per_second": done / statistics.median(their_seconds),
            "ratio": ratio,
        }
        benchmark.extra_info.update(rates | {"calls": calls, "times": times} | hardware())
        _summaries.append(
            f"{request.node.name}: {rates[f'{unit}_per_second']:,.0f} {unit}/s against "
            f"{rates[f'other_{unit}_per_second']:,.0f}, median ratio {ratio:.2f} "
            f"of {len(our_seconds)} pairs"
        )
        return ratio

    return run


@pytest.fixture
def tell() -> Callable[[str], None]:
    """Add a line to what is printed at the end."""
    return _summaries.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the ratios, and where they were measured."""
    if _summaries:
        terminalreporter.section("paired ratios")
        for line in _summaries:
            terminalreporter.write_line(line)
        facts = ", ".join(f"{key} {value}" for key, value in hardware().items())
        terminalreporter.write_line(facts)


def _whole(function: Callable[[], None], calls: int) -> Callable[[], None]:
    """Return what calls `function` so often and waits for the device at the end."""

    def run() -> None:
        for _ in range(calls):
            function()
        wait()

    return run
