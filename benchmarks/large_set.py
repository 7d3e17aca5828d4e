"""From synthetic pictures to an epoch of batches, at several sizes: seconds and memory of each way.

    python benchmarks/large_set.py --counts 2000 20000 200000 --size 64 --out large

draws creatures as files, prepares them, writes them as shards, and reads one epoch by each loader
that is there: every step in a process of its own, whose memory is the sum over it and its children,
sampled 20 times a second (Linux only). `anon` leaves out pages of files, which the system takes
back when it needs them. Drawn files are used again when they are there already.
"""

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

LOADERS = {"resident": "set", "mapped": "set", "torch": "shards", "dali": "shards"}
_INTERVAL = 0.05  # s


@dataclass(frozen=True)
class Row:
    """One step: how many pictures, how long it took, and the most memory it had in MB."""

    step: str
    count: int
    seconds: float | None
    rss: float | None = None
    anon: float | None = None
    note: str = ""


def main() -> int:
    """Run the steps and print a Markdown table, or with --json one object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[2000, 20000, 200000])
    parser.add_argument("--size", type=int, default=64, help="px of the pictures (default: 64)")
    parser.add_argument("--batch", type=int, default=64, help="of an epoch's (default: 64)")
    parser.add_argument("--workers", type=int, help="processes (default: one per processor)")
    parser.add_argument("--loaders", nargs="*", choices=LOADERS, default=["mapped", "dali"])
    parser.add_argument("--out", type=Path, default=Path("large-set"), help="a folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--epoch", choices=LOADERS, help=argparse.SUPPRESS)  # the child's part
    parser.add_argument("--data", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.epoch:
        return read_epoch(args.epoch, args.data, args.size, args.batch)
    rows = []
    for count in args.counts:
        for row in run_steps(args, count):
            rows.append(row)
            print(f"{row.step} of {count:,}: {row.seconds or row.note}", file=sys.stderr)
    facts = _facts()
    if args.json:
        print(json.dumps({**facts, "size": args.size, "rows": [asdict(row) for row in rows]}))
    else:
        print(", ".join(f"{key} {value}" for key, value in facts.items()) + "\n")
        print(table(rows))
    return 0


def run_steps(args: argparse.Namespace, count: int) -> Iterator[Row]:
    """Draw, prepare, shard and read `count` pictures."""
    drawn, made, shards = (args.out / f"{name}-{count}" for name in ("drawn", "set", "shards"))
    many = [] if args.workers is None else ["--workers", str(args.workers)]
    size = ["--size", str(args.size)]
    if _files(drawn) == count:
        yield Row("demo", count, None, note="drawn before")
    else:
        yield _pokegan("demo", count, ["-n", str(count), *size, "--out", str(drawn), *many])
    for old in (made, shards):
        shutil.rmtree(old, ignore_errors=True)
    yield _pokegan("prepare", count, [str(drawn), *size, "--out", str(made), *many])
    yield _pokegan("shard", count, [str(drawn), "--out", str(shards), *many])
    for loader in args.loaders:
        data = made if LOADERS[loader] == "set" else shards
        flags = ["--epoch", loader, "--data", str(data), "--batch", str(args.batch), *size]
        yield _measured(f"epoch by {loader}", count, [sys.executable, __file__, *flags])


def read_epoch(loader: str, data: str, size: int, batch: int) -> int:
    """Read one epoch of batches, as training does; print its seconds, or why it cannot be."""
    from pokegan import recipes
    from pokegan.config import override
    from pokegan.data.options import PrepareOptions
    from pokegan.training import build
    from pokegan.training.hardware import choose_device, choose_precision

    changes = {"data.source": data, "data.size": size, "training.batch": batch}
    config = override(recipes.get("house-dcgan"), changes)
    options = PrepareOptions(size)
    if hasattr(config.data, "loader"):
        from pokegan.data.loaders import open_pictures

        config = override(config, {"data.loader": loader})
        pictures = open_pictures(data, options, loader)
    elif loader == "resident":
        from pokegan.data.sources import open_data

        pictures = open_data(data, options)
    else:
        print(json.dumps({"note": "no such loader here"}))
        return 0
    device = choose_device(config.training.device)
    dtype = choose_precision(config.training.precision, device)
    source = build.build_source(config, pictures, device, dtype, size)[0]
    source.batch(0, batch)  # what is made once is no part of the epoch
    start, total = time.perf_counter(), 0.0
    for first in range(batch, source.count, batch):
        total = source.batch(first, batch).images[0, 0, 0, 0]
    float(total)  # waits for the device
    print(json.dumps({"seconds": time.perf_counter() - start}))
    return 0


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| step | pictures | seconds | pictures/s | peak RSS, MB | of it anonymous, MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.seconds is None:
            figures = [row.note, "", "", ""]
        else:
            figures = [f"{row.seconds:.1f}", f"{row.count / row.seconds:,.0f}"]
            figures += [f"{value:,.0f}" for value in (row.rss, row.anon) if value is not None]
        lines.append("| " + " | ".join([row.step, f"{row.count:,}", *figures]) + " |")
    return "\n".join(lines)


def _pokegan(step: str, count: int, arguments: list[str]) -> Row:
    return _measured(step, count, [sys.executable, "-m", "pokegan", "data", step, *arguments])


def _measured(step: str, count: int, command: list[str]) -> Row:
    """Run a command and watch its memory; what it prints of seconds or a note counts.

    The disk first ends what the step before has left to it.
    """
    os.sync()
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        rss = anon = 0
        while process.poll() is None:
            now = [_memory(pid) for pid in _family(process.pid)]
            rss = max(rss, sum(both for both, _ in now))
            anon = max(anon, sum(own for _, own in now))
            time.sleep(_INTERVAL)
        seconds = time.perf_counter() - start
        said = process.stdout.read().strip().splitlines() if process.stdout else []
    if process.returncode:
        return Row(step, count, None, note=f"failed with exit code {process.returncode}")
    told = json.loads(said[-1]) if said and said[-1].startswith("{") else {}
    if "note" in told:
        return Row(step, count, None, note=told["note"])
    return Row(step, count, told.get("seconds", seconds), rss / 1e6, anon / 1e6)


def _family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:  # it has ended
                continue
    return found


def _memory(pid: int) -> tuple[int, int]:
    """Resident bytes of a process, and those of them that belong to no file."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    values = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith("kB")}
    return 1024 * int(values.get("VmRSS", 0)), 1024 * int(values.get("RssAnon", 0))


def _files(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def _facts() -> dict[str, str]:
    cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in cpus if "model name" in line), "")
    dali = importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali")
    return {
        "processor": model or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "python": platform.python_version(),
        "DALI": "yes" if dali else "no",
        "date": time.strftime("%Y-%m-%d"),
    }


if __name__ == "__main__":
    sys.exit(main())
