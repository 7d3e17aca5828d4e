"""`pokegan train` with a profiler that watches the spans of a window of steps.

    python benchmarks/profile_steps.py --tool torch --from-step 20 --steps 10 --out profile -- hpml
    torchrun --nproc-per-node 2 benchmarks/profile_steps.py --tool torch --out profile -- hpml

`benchmarks/profile.sh` calls it and chooses the tool. Of several ranks the first is profiled.
Shares are of wall time on the host: what a GPU has still to do counts where the host waits for it.
"""

import argparse
import bisect
import contextlib
import gzip
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from pokegan.cli.main import main as pokegan
from pokegan.files import write_text
from pokegan.monitor.spans import watched_by
from pokegan.training.launch import Launch

OPERATORS = 40  # rows of the table


class Window:
    """Watches from the step `first` until it is closed.

    Args:
        first: counted from 0.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self.open = False
        self.seconds = 0.0
        self.names: set[str] = set()

    def begin(self, step: int) -> None:
        """Open the window when its first step begins."""
        if step == self.first:
            self.start()
            self.open = True
            self.seconds = -time.perf_counter()

    def span(self, name: str) -> AbstractContextManager[object]:
        """Return the tool's own range of that name, in the window."""
        if not self.open:
            return contextlib.nullcontext()
        self.names.add(name)
        return self.range(name)

    def close(self) -> None:
        """End the window, if it was ever open."""
        if self.open:
            self.open = False
            self.seconds += time.perf_counter()
            self.stop()

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def range(self, name: str) -> AbstractContextManager[object]:
        raise NotImplementedError


class NvtxWindow(Window):
    """NVTX ranges, and the calls of the CUDA profiler's interface that nsys waits for."""

    def start(self) -> None:
        torch.cuda.synchronize()
        torch.cuda.profiler.start()

    def stop(self) -> None:
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()

    def range(self, name: str) -> AbstractContextManager[object]:
        return torch.cuda.nvtx.range(name)


class TorchWindow(Window):
    """torch.profiler, of processor and GPU."""

    def __init__(self, first: int) -> None:
        super().__init__(first)
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self.profiler = profile(activities=activities)

    def start(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # what came before is not the window's
        self.profiler.start()

    def stop(self) -> None:
        self.profiler.stop()

    def range(self, name: str) -> AbstractContextManager[object]:
        return record_function(name)


def main() -> int:
    """Train, write what the tool leaves, and return the exit code of the training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", choices=("torch", "nvtx"), default="torch")
    parser.add_argument("--from-step", type=int, default=20, help="steps before the window")
    parser.add_argument("--steps", type=int, default=10, help="steps in it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("rest", nargs="*", help="after --: arguments of pokegan train")
    args = parser.parse_args()
    if args.from_step < 0 or args.steps < 1:
        parser.error("--from-step counts from 0, --steps from 1")
    if args.tool == "nvtx" and not torch.cuda.is_available():
        print("profile: error: nsys needs a CUDA GPU; use --tool torch", file=sys.stderr)
        return 2
    total = str(args.from_step + args.steps)
    eager = [] if torch.cuda.is_available() else ["--compile", "off"]
    command = ["train", *eager, *args.rest, "--steps", total, "--out", str(args.out / "run")]
    if not Launch.from_environment().is_main:
        return pokegan(command)
    window = (TorchWindow if args.tool == "torch" else NvtxWindow)(args.from_step)
    with watched_by(window):
        code = pokegan(command)
        window.close()
    if code == 0 and isinstance(window, TorchWindow):
        write_tables(window, args.steps, args.out)
    return code


def write_tables(window: TorchWindow, steps: int, out: Path) -> None:
    """Write the trace and both tables; print the shares and where all of it is."""
    trace = out / "trace.json.gz"
    window.profiler.export_chrome_trace(str(trace))
    with gzip.open(trace, "rt") as file:
        events = json.load(file)["traceEvents"]
    table = shares(events, window.names, window.seconds, steps)
    write_text(out / "shares.txt", table)
    write_text(out / "operators.txt", operators(events, steps))
    print(f"\n{table}\nprofile   {trace}, {out / 'shares.txt'}, {out / 'operators.txt'}")


def shares(events: Sequence[dict[str, Any]], names: set[str], seconds: float, steps: int) -> str:
    """Return a table of the spans, each under the one that it is in.

    Args:
        events: of a Chrome trace.
        names: of the spans.
        seconds: of the window.
        steps: in the window.
    """
    spent: dict[tuple[str, ...], float] = defaultdict(float)
    calls: dict[tuple[str, ...], int] = defaultdict(int)
    within: list[tuple[float, str]] = []  # end and name of the spans that are open
    ours = [one for one in events if one.get("cat") == "user_annotation" and one["name"] in names]
    for event in sorted(ours, key=lambda one: (one["ts"], -one["dur"])):
        while within and within[-1][0] <= event["ts"]:
            within.pop()
        within.append((event["ts"] + event["dur"], event["name"]))
        path = tuple(name for _, name in within)
        spent[path] += event["dur"] / 1e3
        calls[path] += 1
    whole = 1e3 * seconds
    rows = [("span", "calls", "ms", "ms a step", "share")]
    for path in sorted(
        spent, key=lambda one: [(-spent[one[: i + 1]], one[i]) for i in range(len(one))]
    ):
        rows.append(_row("  " * (len(path) - 1) + path[-1], calls[path], spent[path], whole, steps))
    other = whole - sum(value for path, value in spent.items() if len(path) == 1)
    rows.append(_row("other", 0, other, whole, steps))
    rows.append(_row(f"{steps} steps and the end of the run", 0, whole, whole, steps))
    return _aligned(rows)


def _row(name: str, calls: int, ms: float, whole: float, steps: int) -> tuple[str, ...]:
    return name, str(calls or ""), f"{ms:.2f}", f"{ms / steps:.3f}", f"{100 * ms / whole:.1f} %"


def operators(events: Sequence[dict[str, Any]], steps: int) -> str:
    """Return a table of the operators within the steps by the time that is their own.

    On a GPU that of its kernels in the window, which run when their step may be over.

    Args:
        events: of a Chrome trace.
        steps: in the window.
    """
    kernels = [one for one in events if one.get("cat") == "kernel"]
    spent: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for name, own in _own_times(_in_steps(events)) if not kernels else _durations(kernels):
        spent[name] += own
        calls[name] += 1
    whole = sum(spent.values()) or 1.0
    rows = [("kernel" if kernels else "operator", "calls a step", "own ms a step", "share")]
    for name in sorted(spent, key=lambda one: -spent[one])[:OPERATORS]:
        ms = spent[name] / 1e3 / steps
        share = f"{100 * spent[name] / whole:.1f} %"
        rows.append((name[:90], f"{calls[name] / steps:.1f}", f"{ms:.3f}", share))
    rows.append(("all", "", f"{whole / 1e3 / steps:.3f}", "100.0 %"))
    return _aligned(rows)


def _in_steps(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the operators that began within a step, in the order of their threads and times."""
    steps = sorted(
        (one["ts"], one["ts"] + one["dur"])
        for one in events
        if one.get("cat") == "user_annotation" and one["name"] == "step"
    )
    found = []
    for one in events:
        place = bisect.bisect_right(steps, (one.get("ts", 0.0), math.inf)) - 1
        if one.get("cat") == "cpu_op" and place >= 0 and one["ts"] < steps[place][1]:
            found.append(one)
    return sorted(found, key=lambda one: (one["tid"], one["ts"], -one["dur"]))


def _own_times(operators: Sequence[dict[str, Any]]) -> list[tuple[str, float]]:
    """Return name and microseconds of each operator, without those of the ones it calls."""
    own = [float(one["dur"]) for one in operators]
    within: list[int] = []  # the operators that are open
    for place, one in enumerate(operators):
        while within and not _holds(operators[within[-1]], one):
            within.pop()
        if within:
            own[within[-1]] -= one["dur"]
        within.append(place)
    return [(one["name"], time) for one, time in zip(operators, own, strict=True)]


def _holds(outer: dict[str, Any], inner: dict[str, Any]) -> bool:
    end = outer["ts"] + outer["dur"]
    return bool(outer["tid"] == inner["tid"] and inner["ts"] < end)


def _durations(events: Sequence[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(one["name"], float(one["dur"])) for one in events]


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
