"""Mutated picture files through `prepare`, measured: time, memory, what became of each.

    python tests/data/fuzz_pictures.py --count 5000 --seed 0 --workers 2

Exit code 1 when a file is missing from the report, crashed a decoder, took over 10 s, or when a
process needed over 2 GB.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from awkward import Files
from mutations import bombs, mutated

from pokegan.data import Manifest, PrepareOptions, prepare
from pokegan.data.refusals import CRASHED, TOO_LONG, category
from pokegan.data.workers import WorkerPool

MOST_SECONDS = 10.0
MOST_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Fuzzed:
    """What came of a run.

    Attributes:
        written: names of all files.
        manifest: of the set that was made of them.
        seconds: that the whole took.
        slowest: seconds by the clock that one picture took in a worker, and its name.
        peak: bytes resident in the largest process, main (what it held before left out) or worker.
        peak_sum: bytes resident in all processes together.
    """

    written: set[str]
    manifest: Manifest
    seconds: float
    slowest: tuple[float, str]
    peak: int
    peak_sum: int

    def faults(self) -> list[str]:
        """Whatever must not be, one line each."""
        manifest = self.manifest
        rows = [*manifest.pictures, *manifest.duplicates, *manifest.skipped]
        found = [f"not in the report: {name}" for name in self.written - {r.name for r in rows}]
        for row in manifest.skipped:
            if category(row.reason) in (CRASHED, "failed") or not row.reason:
                found.append(f"{row.reason}: {row.name}")
        if len(rows) != len(self.written):
            found.append(f"{len(rows)} rows for {len(self.written)} files")
        if self.slowest[0] > MOST_SECONDS:
            found.append(f"took {self.slowest[0]:.1f} s: {self.slowest[1]}")
        if self.peak > MOST_BYTES:
            found.append(f"a process took {self.peak / 1e6:.0f} MB")
        return found


def write_files(folder: Path, count: int, seed: int, heavy: bool) -> set[str]:
    """Write the bombs and mutated files, `count` together; returns the names."""
    names = set()
    for i, (name, content) in enumerate(bombs(heavy)):
        names.add(f"bomb {i:03d} {name}")
        (folder / f"bomb {i:03d} {name}").write_bytes(content)
    for i in range(count - len(names)):
        name, content = mutated(seed, i)
        names.add(name)
        (folder / name).write_bytes(content)
    return names


def fuzz(folder: Path, count: int, seed: int, workers: int, thorough: bool = False) -> Fuzzed:
    """Write `count` files below `folder`, prepare them, and measure.

    A `thorough` run has the heavy bombs too, and prepares each file once more alone, by the clock.
    """
    (folder / "in").mkdir()
    written = write_files(folder / "in", count, seed, thorough)
    with _Memory() as memory:
        start = time.monotonic()
        images = prepare(Files(folder / "in"), PrepareOptions(32), folder / "out", workers)
        seconds = time.monotonic() - start
    slowest = max(_timed(folder / "in")) if thorough else (0.0, "not timed")
    return Fuzzed(written, images.manifest, seconds, slowest, memory.peak, memory.peak_sum)


def _timed(folder: Path) -> Iterator[tuple[float, str]]:
    """Each picture alone in one worker: seconds, with its second try where there is one."""
    with WorkerPool(PrepareOptions(32), 1) as pool:
        for entry in Files(folder).entries():
            start = time.monotonic()
            list(pool.map([entry]))
            yield time.monotonic() - start, entry.name


class _Memory(threading.Thread):
    """Watches what this process and its children hold in memory, 50 times a second (Linux).

    Of this process what it held before does not count: it may have done much else.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._before = _resident("self")
        self.peak = self.peak_sum = 0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.02):
            own = _resident("self") - self._before
            sizes = [own, *(_resident(process) for process in _children())]
            self.peak = max(self.peak, *sizes)
            self.peak_sum = max(self.peak_sum, sum(sizes))

    def __enter__(self) -> "_Memory":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def _children() -> Iterator[str]:
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # threads end
            yield from (task / "children").read_text().split()


def _resident(process: str) -> int:
    """Bytes of a process in memory; 0 when it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf(
            "SC_PAGESIZE"
        )
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="print every refusal")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = fuzz(Path(folder), args.count, args.seed, args.workers, thorough=True)
    slowest = f"{done.slowest[0]:.1f} s for {done.slowest[1]}"
    print(f"{len(done.written):,} files in {done.seconds:.1f} s; the slowest alone {slowest}")
    print(f"peak {done.peak / 1e6:.0f} MB in one process, {done.peak_sum / 1e6:.0f} MB in all")
    for reason, number in done.manifest.counts().items():
        print(f"{number:6,} {reason}")
    for row in done.manifest.skipped:
        if args.list or category(row.reason) in (TOO_LONG, "out of memory"):
            print(f"       {row.name}: {row.reason}")
    for fault in (faults := done.faults()):
        print(f"FAULT  {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
