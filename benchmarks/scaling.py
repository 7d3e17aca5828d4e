"""How a recipe's training scales over ranks: the table of HPML-PokeGans, and what it left out.

    python benchmarks/scaling.py --counts 1 2 4 8 --epochs 100 --out scaling
    python benchmarks/scaling.py --counts 1 2 --epochs 2 --weak --recipe house-dcgan --out scaling

Runs torchrun once for each count, on this machine. Writes scaling.md, scaling.json, which
`benchmarks/scaling_model.py` reads, and for each count a graph of device compute and one of memory
over the first 200 s (NVML of nvidia-ml-py on GPUs; else psutil), and leaves the runs beside them.

Strong scaling divides the recipe's batch over the ranks, weak scaling gives each rank as much. The
time is that of the training loop: what is prepared before and drawn after is not in it. Images/s is
the rate after the first record of stats.jsonl, so what is done once, such as compiling, is left
out: `Before 1st record(s)`, a part of the time. Efficiency is that rate over so many times the rate
of the smallest count, a rank. Losses are the smallest means over a log interval. A GPU's use, from
the first record on, and memory are its own; several ones' use is a mean, their memory a sum.
Without GPUs they are the job's share of all cores, and what its processes hold. There the ranks
share the cores, which one rank uses all of: `--one-core` gives the job as many cores as ranks, to
see what a rank more brings. (OMP_NUM_THREADS=1 does not: torchrun sets it itself for several ranks,
so pokegan takes it as not set and divides all cores.) On GPUs, where a step takes a millisecond,
records are rare, and grids and checkpoints are left to the start and the end, so that writing them
is not what is measured.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

GRAPH_SECONDS = 200
SAMPLE_SECONDS = 0.5
HEADER = (
    "GPU Type",
    "#GPUs",
    "#Epochs",
    "Training Time(s)",
    "Min. Generator Loss",
    "Min. Discriminator Loss",
    "Images/s",
    "Efficiency",
    "Device use",
    "Memory (GiB)",
    "Before 1st record(s)",
)
RECORDS = {"cpu": 5, "cuda": 200}  # steps from one to the next
NEVER = str(10**9)  # epochs, steps
Reading = tuple[list[float], list[float]]  # use in [0, 100] and GiB, of each device
Sample = tuple[float, list[float], list[float]]  # the same after so many seconds


@dataclass
class Result:
    """One row of the table, and what the graphs show."""

    device: str
    ranks: int
    recipe: str
    size: int
    precision: str
    batch: int
    epochs: float
    seconds: float
    generator_loss: float
    discriminator_loss: float
    images_per_second: float
    efficiency: float
    use_percent: float
    memory_gib: float
    command: str
    samples: list[Sample]
    seconds_before: float = 0.0  # the first record


def main() -> int:
    """Measure every count, then write table, JSON and graphs."""
    args = parse()
    device = device_of(args.device)
    if device == "cuda" and max(args.counts) > gpu_count():
        sys.exit(f"--counts {max(args.counts)}: this machine has {gpu_count()} GPUs")
    args.out.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    for count in sorted(set(args.counts)):
        result = measure(args, count, device)
        results.append(result)
        result.efficiency = efficiency(result, results[0])
        graphs(result, args.out)
        write(args, results)
        print(row(result), flush=True)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8], metavar="N")
    parser.add_argument("--epochs", type=float, default=100, help="of every run (default: 100)")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--strong", dest="scaling", action="store_const", const="strong")
    kind.add_argument("--weak", dest="scaling", action="store_const", const="weak")
    parser.add_argument("--recipe", default="hpml")
    parser.add_argument("--data", default="demo")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--one-core", action="store_true", help="of every rank, by taskset")
    parser.add_argument("--log-every", type=int, metavar="N", help="steps (5; on GPUs 200)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("rest", nargs="*", help="after --: more arguments of pokegan train")
    parser.set_defaults(scaling="strong")
    args = parser.parse_args()
    if min(args.counts) < 1:
        parser.error("--counts: numbers of 1 and more are wanted")
    if args.one_core and max(args.counts) > len(os.sched_getaffinity(0)):
        parser.error(f"--one-core: {len(os.sched_getaffinity(0))} cores are here")
    return args


def measure(args: argparse.Namespace, count: int, device: str) -> Result:
    """Train on `count` ranks and read what the run has recorded."""
    folder = args.out / f"ranks-{count}-{datetime.datetime.now():%H%M%S}"
    cores = pinned(count) if args.one_core else []
    command = training(args, count, device, folder)
    read = readings(device, count)  # may refuse, so before anything runs
    job = subprocess.Popen([*cores, sys.executable, *command])
    try:
        meter = Meter(lambda: read(job.pid), folder / "stats.jsonl")
        meter.start()
        code = job.wait()
        meter.end()
    finally:
        job.terminate()  # does nothing to one that has ended
        job.wait()
    if code:
        sys.exit(f"{count} ranks: torchrun ended with exit code {code}")
    records = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    config = json.loads((folder / "config.json").read_text())
    begun, ended = records[0]["seconds"], records[-1]["seconds"]
    during = between(meter.samples, 0.0, ended)
    return Result(
        device=device_name(device),
        ranks=count,
        recipe=args.recipe,
        size=config["data"]["size"],
        precision=config["training"]["precision"],
        batch=config["training"]["batch"],
        epochs=records[-1]["epoch"],
        seconds=ended,
        generator_loss=least(records, "loss/generator"),
        discriminator_loss=least(records, "loss/discriminator"),
        images_per_second=rate(records),
        efficiency=1.0,
        use_percent=mean(one for _, use, _ in between(during, begun, ended) for one in use),
        memory_gib=max((sum(memory) for _, _, memory in during), default=0.0),
        command=" ".join([*cores, "python", *command]),
        samples=during,
        seconds_before=begun,
    )


def pinned(cores: int) -> list[str]:
    """Return what starts a program on so many of the cores that this one may use."""
    chosen = sorted(os.sched_getaffinity(0))[:cores]
    return ["taskset", "--cpu-list", ",".join(map(str, chosen))]


def training(args: argparse.Namespace, count: int, device: str, folder: Path) -> list[str]:
    """Return what Python is called with to train on `count` ranks of this machine."""
    train = ["-m", "pokegan", "train", args.recipe, "--data", args.data, "--device", device]
    train += ["--epochs", f"{args.epochs:g}", "--scaling", args.scaling, "--out", str(folder)]
    train += ["--log-every", str(args.log_every or RECORDS[device]), "--no-plots"]
    if device == "cuda":
        train += ["--sample-every", NEVER, "--checkpoint-every", NEVER]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    return [*torchrun, "--nproc-per-node", str(count), *train, *args.rest]


def between(samples: Sequence[Sample], begin: float, end: float) -> list[Sample]:
    """Return the samples of that time; all of them where there is none."""
    return [one for one in samples if begin <= one[0] <= end] or list(samples)


def least(records: list[dict[str, Any]], name: str) -> float:
    return min(record[name] for record in records if record.get(name) is not None)


def rate(records: list[dict[str, Any]]) -> float:
    """Return images a second between the first and the last record."""
    first, last = records[0], records[-1]
    seconds = last["seconds"] - first["seconds"]
    if seconds <= 0:
        return float(1000 * last["kimg"] / last["seconds"])
    return float(1000 * (last["kimg"] - first["kimg"]) / seconds)


def efficiency(result: Result, base: Result) -> float:
    return result.images_per_second / base.images_per_second * base.ranks / result.ranks


class Meter(threading.Thread):
    """Samples the devices from when training has begun until `end`."""

    def __init__(self, read: Callable[[], Reading], begun: Path) -> None:
        super().__init__(daemon=True)
        self.read = read
        self.begun = begun
        self.samples: list[Sample] = []
        self._end = threading.Event()

    def run(self) -> None:
        """Take a sample every half second."""
        start: float | None = None
        while not self._end.wait(SAMPLE_SECONDS):
            if start is None and self.begun.exists():
                start = time.monotonic()
                self.read()  # use is told since the last call
            elif start is not None:
                self.samples.append((time.monotonic() - start, *self.read()))

    def end(self) -> None:
        """Take no more."""
        self._end.set()
        self.join()


def readings(device: str, count: int) -> Callable[[int], Reading]:
    """Return what reads use and memory now: of every GPU, or of the job's processes together.

    It is given the process that has started the others.
    """
    if device == "cuda":
        try:
            import pynvml
        except ImportError:
            sys.exit("the use of a GPU is read by NVML: pip install nvidia-ml-py")
        import torch

        pynvml.nvmlInit()
        # By name: NVML counts GPUs that CUDA_VISIBLE_DEVICES hides, and in another order.
        names = [torch.cuda.get_device_properties(index).uuid for index in range(count)]
        gpus = [pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{name}") for name in names]
        return lambda _: (
            [float(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu) for gpu in gpus],
            [pynvml.nvmlDeviceGetMemoryInfo(gpu).used / 2**30 for gpu in gpus],
        )
    try:
        import psutil
    except ImportError:
        sys.exit("the use of the processor is read by psutil: pip install psutil")
    known: dict[int, Any] = {}  # psutil tells use since the last call of the same object

    def read(parent: int) -> Reading:
        use = memory = 0.0
        try:
            for process in psutil.Process(parent).children(recursive=True):
                process = known.setdefault(process.pid, process)
                use += process.cpu_percent()
                memory += process.memory_info().rss / 2**30
        except psutil.NoSuchProcess:
            pass
        return [use / (psutil.cpu_count() or 1)], [memory]

    return read


def graphs(result: Result, folder: Path) -> None:
    """Draw compute and memory of every device over the first 200 s, a picture each."""
    shown = [sample for sample in result.samples if sample[0] <= GRAPH_SECONDS]
    if not shown:
        print(f"{result.ranks} ranks: the run was too short for graphs", file=sys.stderr)
        return
    seconds = [at for at, _, _ in shown]
    compute = [use for _, use, _ in shown]
    memory = [held for _, _, held in shown]
    name = f"ranks-{result.ranks}"
    draw(result, seconds, compute, "compute in use (%)", 100.0, folder / f"{name}-compute.png")
    draw(result, seconds, memory, "memory in use (GiB)", None, folder / f"{name}-memory.png")


def draw(
    result: Result,
    seconds: Sequence[float],
    values: Sequence[Sequence[float]],
    label: str,
    most: float | None,
    path: Path,
) -> None:
    """Draw a line a device of `values`, [time][device]."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4))
    for index in range(len(values[0])):
        axes.plot(seconds, [one[index] for one in values], label=f"device {index}", linewidth=1.2)
    highest = max(max(one) for one in values)
    axes.set_ylim(0, max(most or 0.0, highest) * 1.05 or 1.0)
    axes.set_xlim(0, min(GRAPH_SECONDS, max(1.0, seconds[-1])))
    axes.set(ylabel=label, xlabel="seconds of training")
    axes.grid(alpha=0.3)
    if len(values[0]) > 1:
        axes.legend(loc="lower right", ncols=4)
    ranks = "1 rank" if result.ranks == 1 else f"{result.ranks} ranks"
    what = f"{result.recipe}, {result.size} px, batch {result.batch}"
    axes.set_title(f"{what}, {ranks} on {result.device}", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def write(args: argparse.Namespace, results: Sequence[Result]) -> None:
    """Write what there is so far, so that a count that fails loses nothing."""
    facts = machine()
    first = results[0]
    lines = [
        f"# {args.recipe} over ranks, {args.scaling} scaling",
        "",
        f"Measured at {first.size} px, {first.precision}, batch {first.batch} on {first.ranks}.",
        "",
        "| " + " | ".join(HEADER) + " |",
        "|" + "---|" * len(HEADER),
        *(row(result) for result in results),
        "",
        ", ".join(f"{key} {value}" for key, value in facts.items()),
        "",
        *(f"- `{result.command}`: global batch {result.batch}" for result in results),
    ]
    (args.out / "scaling.md").write_text("\n".join(lines) + "\n")
    content = {"scaling": args.scaling, "machine": facts}
    rows = [asdict(result) for result in results]
    text = json.dumps({**content, "results": rows}, indent=1)
    (args.out / "scaling.json").write_text(text + "\n")


def row(result: Result) -> str:
    cells = (
        result.device,
        str(result.ranks),
        f"{result.epochs:g}",
        f"{result.seconds:.2f}",
        f"{result.generator_loss:.6f}",
        f"{result.discriminator_loss:.6f}",
        f"{result.images_per_second:,.0f}",
        f"{100 * result.efficiency:.0f} %",
        f"{result.use_percent:.0f} %",
        f"{result.memory_gib:.2f}",
        f"{result.seconds_before:.2f}",
    )
    return "| " + " | ".join(cells) + " |"


def machine() -> dict[str, str]:
    """Name what was measured on, and when."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": str(cores),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": f"{datetime.datetime.now(datetime.timezone.utc):%F}",
    }


def mean(values: Any) -> float:
    listed = list(values)
    return statistics.fmean(listed) if listed else 0.0


def device_of(name: str) -> str:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda: torch sees no CUDA GPU here")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def gpu_count() -> int:
    import torch

    return torch.cuda.device_count()


def device_name(device: str) -> str:
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name(0)
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
