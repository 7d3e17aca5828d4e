"""How training scales, on paper: fitted to what was measured here, predicted for GPUs.

    OMP_NUM_THREADS=1 python benchmarks/scaling_model.py STRONG/scaling.json WEAK/scaling.json \\
        --into docs/scaling.md
    python benchmarks/scaling_model.py            # what needs no measurement: GPUs by their papers

The JSON files are those of `benchmarks/scaling.py`. Given any, all-reduces and all-gathers of two
ranks over gloo are timed by size on the loopback device, alpha and beta are fitted to the first,
and then the compute of a step to the files. The model is in `step_time.py`, what a step consists of
in `step_cost.py`. Prints Markdown; --into writes it between the marks of that file.
"""

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path as File
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing
from step_cost import StepCost, step_cost
from step_time import (
    EFFICIENCY,
    LAUNCH,
    LINKS,
    MACHINES,
    NCCL,
    Machine,
    Path,
    gradient_exchange,
    norm_exchange,
    pays_up_to,
    step_time,
)

from pokegan.errors import PokeganError
from pokegan.files import write_text

COUNTS = (1, 2, 4, 8, 16, 32, 64)
SIZES = tuple(64 * 4**power for power in range(10))  # bytes: 64 B to 16 MiB
ROUNDS = 15
Timed = dict[str, list[tuple[int, float]]]  # by exchange: bytes of a rank, seconds


def main() -> int:
    """Measure, fit, predict; print or fill in the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="*", type=File, help="scaling.json files")
    parser.add_argument("--recipes", nargs="+", default=["hpml", "dcgan-deep"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 128, 256], metavar="PX")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each exchange")
    parser.add_argument("--into", type=File, help="a file with marks to write between")
    args = parser.parse_args()
    try:
        texts = {"predicted": predicted(args.recipes, args.sizes)}
        if args.results:
            texts["measured"] = measured(read_results(args.results), args.rounds)
        if args.into is not None:
            write_text(args.into, filled(args.into.read_text(encoding="utf-8"), texts))
            return 0
    except (PokeganError, OSError, RuntimeError, ValueError) as error:
        print(f"scaling_model: error: {' '.join(str(error).split())[:300]}", file=sys.stderr)
        return 2
    print("\n\n".join(texts[name] for name in sorted(texts)))
    return 0


def read_results(paths: Sequence[File]) -> list[dict[str, Any]]:
    """Return the runs that `benchmarks/scaling.py` measured, each with its kind of scaling.

    Raises:
        ValueError: a file is not one of its own.
    """
    found = []
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            for row in content["results"]:
                row["step"] = row["batch"] / row["images_per_second"]
                found.append({**row, "scaling": content["scaling"], **content["machine"]})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a scaling.json of benchmarks/scaling.py") from error
    return found


def time_exchanges(rounds: int) -> Timed:
    """Return the median seconds of exchanges of every size between two ranks, gloo, loopback."""
    with tempfile.TemporaryDirectory() as folder:
        out = File(folder) / "times.json"
        torch.multiprocessing.spawn(_exchange, (folder, str(out), rounds), nprocs=2)
        found: Timed = json.loads(out.read_text())
    return found


def _exchange(rank: int, folder: str, out: str, rounds: int) -> None:
    """Be one of the two ranks."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found: Timed = {"all_reduce": [], "all_gather": []}
    for size in SIZES:
        own, both = torch.zeros(size // 4), torch.zeros(size // 2)
        calls = {
            "all_reduce": lambda own=own: dist.all_reduce(own),
            "all_gather": lambda own=own, both=both: dist.all_gather_into_tensor(both, own),
        }
        for name, call in calls.items():
            seconds = []
            for _ in range(rounds + 2):
                dist.barrier()
                start = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - start)
            found[name].append((size, statistics.median(seconds[2:])))
    if rank == 0:
        File(out).write_text(json.dumps(found))
    dist.destroy_process_group()


def fit_line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return (a, b), neither negative, of y = a + b x with the least squares of relative errors."""
    x, y = np.array(points, dtype=float).T
    matrix = np.stack([1 / y, x / y], axis=1)
    a, b = np.linalg.lstsq(matrix, np.ones(len(y)), rcond=None)[0]
    if a < 0 or b < 0 or len(points) == 1:
        column = 1 if a < 0 or len(points) == 1 else 0
        only = matrix[:, column]
        value = float(only.sum() / (only @ only))
        a, b = (0.0, value) if column else (value, 0.0)
    return float(a), float(b)


def fit_path(points: Sequence[tuple[float, float]]) -> Path:
    """Return the ring whose all-reduces of two ranks, bytes and seconds, are nearest to these."""
    both_hops, per_byte = fit_line(points)
    rate = 1 / per_byte if per_byte > 0 else float("inf")
    return Path(0.0, both_hops / 2, both_hops / 2, rate, rate)


def measured(results: Sequence[dict[str, Any]], rounds: int) -> str:
    """Return the part of the page that tells of this machine, in Markdown."""
    timed = time_exchanges(rounds)
    path = fit_path(timed["all_reduce"])
    first = results[0]
    lines = [
        f"{first['device']}, {first['cores']} cores, OMP_NUM_THREADS={first['OMP_NUM_THREADS']}, "
        f"torch {first['torch']}, Python {platform.python_version()}, "
        f"{datetime.datetime.now(datetime.timezone.utc):%F}; gloo over the loopback device, "
        f"medians of {rounds}. Fitted to the all-reduces: alpha = {1e6 * path.hop:.0f} µs a hop, "
        f"beta = {path.rate / 1e9:.2f} GB/s. The all-gathers test it.",
        "",
        "| bytes of a rank | all-reduce, measured (µs) | model (µs) | all-gather, measured (µs) | "
        "model (µs) |",
        "|---:|---:|---:|---:|---:|",
    ]
    for (size, reduce), (_, gather) in zip(timed["all_reduce"], timed["all_gather"], strict=True):
        model = path.all_reduce(size, 2), path.all_gather(size, 2)
        cells = (1e6 * value for value in (reduce, model[0], gather, model[1]))
        lines.append(f"| {size:,} | " + " | ".join(f"{cell:,.0f}" for cell in cells) + " |")
    for recipe, size in sorted({(one["recipe"], one["size"]) for one in results}):
        own = [one for one in results if (one["recipe"], one["size"]) == (recipe, size)]
        lines += ["", *_steps(own, step_cost(recipe, size), path)]
    lines += ["", *_runs(results)]
    return "\n".join(lines)


def _steps(results: Sequence[dict[str, Any]], cost: StepCost, path: Path) -> list[str]:
    """Return how well overhead and seconds a picture explain the steps of one recipe."""
    exchange = [
        gradient_exchange(cost, one["ranks"], [path]) + norm_exchange(cost, one["ranks"], [path])
        for one in results
    ]
    points = [
        (one["batch"] / one["ranks"], max(one["step"] - spent, 1e-9))
        for one, spent in zip(results, exchange, strict=True)
    ]
    fixed, each = fit_line(points)
    rate = f" ({cost.flops_per_picture / each / 1e9:,.0f} GFLOPS a rank)" if each else ""
    lines = [
        f"{cost.recipe}, {cost.size} px, {results[0]['precision']}: {1e3 * fixed:.1f} ms a step "
        f"and {1e3 * each:.3f} ms a picture, fitted{rate}.",
        "",
        "| scaling | ranks | batch | step, measured (ms) | model (ms) | of it exchanges (ms) | "
        "error |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for one, (pictures, _), spent in zip(results, points, exchange, strict=True):
        model = fixed + each * pictures + spent
        lines.append(
            f"| {one['scaling']} | {one['ranks']} | {one['batch']} | {1e3 * one['step']:.1f} | "
            f"{1e3 * model:.1f} | {1e3 * spent:.1f} | {100 * (model / one['step'] - 1):+.0f} % |"
        )
    return lines


def _runs(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of HPML-PokeGans, as `benchmarks/scaling.py` measured it."""
    lines = [
        "| GPU Type | #GPUs | #Epochs | Training Time(s) | Min. Generator Loss | "
        "Min. Discriminator Loss | scaling | images/s | efficiency | device use | memory (GiB) |",
        "|---|---:|---:|---:|---:|---:|---|---:|---:|---:|---:|",
    ]
    for one in results:
        lines.append(
            f"| {one['device']} | {one['ranks']} | {one['epochs']:g} | {one['seconds']:.2f} | "
            f"{one['generator_loss']:.6f} | {one['discriminator_loss']:.6f} | {one['scaling']} | "
            f"{one['images_per_second']:,.0f} | {100 * one['efficiency']:.0f} % | "
            f"{one['use_percent']:.0f} % | {one['memory_gib']:.2f} |"
        )
    return lines


def predicted(recipes: Sequence[str], sizes: Sequence[int]) -> str:
    """Return the part of the page that tells of GPUs, in Markdown."""
    costs = [step_cost(recipe, size) for recipe in recipes for size in sizes]
    lines = [f"Counted on the networks, torch {version()}:", "", *_costs(costs)]
    lines += ["", "Assumed of the machines:", ""]
    lines += [f"- {machine.name}: {machine.source}." for machine in MACHINES]
    lines += [
        f"- All: {NCCL}; links at {LINKS:.0%} of their rate; {1e6 * LAUNCH:g} µs between two "
        f"kernels of a CUDA graph; compute at {_range(EFFICIENCY.values(), 100)} % of both peak "
        f"rates, {100 * EFFICIENCY['middle']:.0f} % where no range is given."
    ]
    for scaling in ("strong", "weak"):
        for machine in MACHINES:
            lines += ["", f"**{machine.name}, {scaling} scaling, predicted**", ""]
            lines += _rates(costs, machine, scaling)
    lines += ["", f"**{MACHINES[0].name}, where a step goes, strong scaling, predicted**", ""]
    return "\n".join([*lines, *_parts(costs, MACHINES[0])])


def version() -> str:
    """Return torch's version, by which the operators of a step may differ."""
    return str(torch.__version__).partition("+")[0]


def _costs(costs: Sequence[StepCost]) -> list[str]:
    lines = [
        "| recipe | px | batch | parameters (million) | GFLOP a picture | "
        "million elements a picture | operators | gradients (MB) | batch norm exchanges |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for cost in costs:
        lines.append(
            f"| {cost.recipe} | {cost.size} | {cost.batch} | "
            f"{sum(cost.parameters.values()) / 1e6:.2f} | {cost.flops_per_picture / 1e9:.2f} | "
            f"{cost.elements_per_picture / 1e6:.1f} | {len(cost.operators)} | "
            f"{sum(cost.gradients) / 1e6:.1f} | {len(cost.gathers) + len(cost.sums)} |"
        )
    return lines


def _pictures(cost: StepCost, ranks: int, scaling: str) -> float:
    return cost.batch if scaling == "weak" else cost.batch / ranks


def _rate(
    cost: StepCost,
    ranks: int,
    machine: Machine,
    scaling: str,
    efficiency: float,
    norms: bool = True,
) -> float:
    """Return pictures a second."""
    pictures = _pictures(cost, ranks, scaling)
    return pictures * ranks / step_time(cost, pictures, ranks, machine, efficiency, norms).total


def _rates(costs: Sequence[StepCost], machine: Machine, scaling: str) -> list[str]:
    heads = [f"{count}" for count in COUNTS]
    lines = [
        f"| recipe, px | {' | '.join(heads)} | range at 1 | pays up to | without sync |",
        "|---|" + "---:|" * (len(COUNTS) + 3),
    ]
    for cost in costs:
        rates = {
            name: [_rate(cost, count, machine, scaling, value) for count in COUNTS]
            for name, value in EFFICIENCY.items()
        }
        middle = rates["middle"]
        cells = [
            f"{_brief(rate)} ({100 * rate / middle[0] / count:.0f} %)"
            for count, rate in zip(COUNTS, middle, strict=True)
        ]
        ends = [pays_up_to(COUNTS, one) for one in rates.values()]
        alone = [
            pays_up_to(
                COUNTS, [_rate(cost, count, machine, scaling, value, False) for count in COUNTS]
            )
            for value in EFFICIENCY.values()
        ]
        span = f"{_brief(rates['low'][0])} to {_brief(rates['high'][0])}"
        lines.append(
            f"| {cost.recipe}, {cost.size} | {' | '.join(cells)} | {span} | {_range(ends)} | "
            f"{_range(alone)} |"
        )
    return lines


def _parts(costs: Sequence[StepCost], machine: Machine) -> list[str]:
    lines = [
        "| recipe, px | GPUs | compute (ms) | launches (ms) | gradients (ms) | batch norm (ms) | "
        "step (ms) | with overlap, at best (ms) | gain |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for cost in costs:
        for ranks in (1, 8, 64):
            pictures = _pictures(cost, ranks, "strong")
            step = step_time(cost, pictures, ranks, machine, EFFICIENCY["middle"])
            times = (step.compute, step.launches, step.gradients, step.norms, step.total)
            cells = " | ".join(f"{1e3 * value:.3f}" for value in (*times, step.overlapped))
            gain = 100 * (step.total / step.overlapped - 1)
            lines.append(f"| {cost.recipe}, {cost.size} | {ranks} | {cells} | {gain:.0f} % |")
    return lines


def _brief(rate: float) -> str:
    """Return three digits of a rate."""
    value, unit = rate, ""
    for larger in (" k", " M"):
        if value >= 999.5:
            value, unit = value / 1e3, larger
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}{unit}"


def _range(values: Any, factor: float = 1) -> str:
    listed = [round(factor * one) for one in values]
    low, high = min(listed), max(listed)
    return f"{low}" if low == high else f"{low} to {high}"


def filled(text: str, texts: dict[str, str]) -> str:
    """Return `text` with each of `texts` between its marks.

    Raises:
        ValueError: a mark is missing.
    """
    for name, content in texts.items():
        begin, end = f"<!-- {name}: scaling_model.py -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"({re.escape(begin)}\n).*?({re.escape(end)})", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"--into: the file lacks the marks {begin} and {end}")
        text = pattern.sub(lambda found, new=content: f"{found[1]}\n{new}\n\n{found[2]}", text)
    return text


if __name__ == "__main__":
    sys.exit(main())
