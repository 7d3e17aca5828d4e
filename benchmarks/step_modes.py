"""Every mode's step against the eager one: losses, weights and time over some steps.

    python benchmarks/step_modes.py                             # 50 steps of four recipes
    python benchmarks/step_modes.py --batch 8 --recipes hpml aegan
    python benchmarks/step_modes.py --batch 8 --precision fp64  # slow on a processor
    python benchmarks/step_modes.py --device cuda --precision bf16 --batch 64 --json modes.json

Recorded and compiled on a processor; on a GPU compiled and captured. All modes start from one
state, that of an eager run after --warm-up steps, and see the same pictures in the same order. At
the very start Adam divides every gradient by its own size, so that rounding alone decides the sign
of the smallest ones, and any two roundings part. `control` is how far an eager run parts whose
weights were changed by a rounding: what no other order of sums can be better than. In fp32 a mode
fails whose losses differ by more than 1e-5 and more than three times as much as the control's, or
whose weights differ by more than 1e-4 and three times the control's, relatively (--tolerance scales
the two constants). In fp64 the control's counts for nothing: networks in float64, which no run has,
make the rounding nine digits smaller and leave what else a mode may do differently. tf32 and bf16
are measured and not judged. A step that fell back to another mode fails in every precision. The
time of a step is the median over the steps after the first half, modes alternating.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from measuring import hardware
from step_builds import (
    MODES,
    FellBackError,
    apart,
    build_in,
    copy_state,
    difference,
    nudge,
    require,
)

from pokegan import recipes
from pokegan.config import RunConfig, override
from pokegan.data.options import PrepareOptions
from pokegan.data.packed import PackedImages
from pokegan.data.sources import open_data
from pokegan.objectives.phases import StepInput
from pokegan.training.build import Parts
from pokegan.training.step import StepRefusedError

RECIPES = ("hpml", "gan-pokemon-sngan:hinge", "gan-pokemon-dcgan:wgan-gp", "aegan")
LOSSES, WEIGHTS = 1e-5, 1e-4
FLOAT64 = "fp64"  # networks in float64, which no run has
FLOAT32_ROUNDING, FLOAT64_ROUNDING = 1e-7, 2e-16  # of a weight
ROUNDING = 3.0  # so many times the control's distance is still rounding


def configured(name: str, args: argparse.Namespace) -> RunConfig:
    recipe, _, loss = name.partition(":")
    precision = "fp32" if args.precision == FLOAT64 else args.precision
    changes = {"training.device": args.device, "training.precision": precision}
    changes |= {"data.source": args.data} if args.data else {"data.source": "demo"}
    changes |= {"objective.loss": loss, "objective.label_smoothing": 0.0} if loss else {}
    changes |= {"training.batch": args.batch} if args.batch else {}
    return override(recipes.get(recipe), changes)


def timed_step(parts: Parts, batch: int, number: int) -> tuple[dict[str, torch.Tensor], float]:
    real = parts.source.batch(number * batch, batch)
    step = torch.full((), number, dtype=torch.int64, device=parts.device)
    weight = next(parts.networks["discriminator"].parameters())
    images = real.images.double() if weight.dtype == torch.float64 else real.images
    wait(parts.device)
    start = time.perf_counter()
    recorded = parts.step(StepInput(images, real.samples, step), number)
    wait(parts.device)
    seconds = time.perf_counter() - start
    return {name: value.double().cpu() for name, value in recorded.items()}, seconds


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run every mode of a recipe; return a row for each but the eager one."""
    config = configured(name, args)
    size = config.data.size
    packed = PackedImages.open(args.data) if args.data else open_data("demo", PrepareOptions(size))
    batch = config.training.batch
    wanted = MODES[args.device]
    wide = args.precision == FLOAT64
    runs = {one: build_in(one, config, packed, wide) for one in wanted}
    runs["control"] = build_in("eager", config, packed, wide)
    for number in range(args.warm_up):
        timed_step(runs["eager"], batch, number)
    for one in (*wanted[1:], "control"):
        copy_state(runs["eager"], runs[one])
    nudge(runs["control"], FLOAT64_ROUNDING if wide else FLOAT32_ROUNDING)
    times: dict[str, list[float]] = {one: [] for one in runs}
    worst = dict.fromkeys(runs, 0.0)
    for number in range(args.warm_up, args.warm_up + args.steps):
        losses = {}
        for one in wanted if number % 2 else reversed(wanted):
            losses[one], seconds = timed_step(runs[one], batch, number)
            times[one].append(seconds)
        losses["control"], _ = timed_step(runs["control"], batch, number)
        for one, found in losses.items():
            worst[one] = max(worst[one], difference(losses["eager"], found, args.floor))
    weights = {one: apart(runs["eager"], parts) for one, parts in runs.items()}
    late = {one: statistics.median(times[one][args.steps // 2 :]) for one in wanted}
    rows = []
    for mode in wanted[1:]:
        row = {
            "recipe": name,
            "size": size,
            "batch": batch,
            "precision": args.precision,
            "mode": mode,
            "losses": worst[mode],
            "control_losses": worst["control"],
            "weights": weights[mode],
            "control_weights": weights["control"],
            "eager_ms": 1e3 * late["eager"],
            "ms": 1e3 * late[mode],
            "images_per_second": batch / late[mode],
            "first_step_seconds": times[mode][0],
        }
        row["verdict"] = verdict(row, args.tolerance)
        try:
            require(mode, runs[mode])
        except FellBackError as error:
            row |= {"verdict": "FELL BACK", "reason": str(error)}
        rows.append(row)
    return rows


def verdict(row: dict[str, Any], tolerance: float) -> str:
    """Return whether a mode agrees with the eager one: in fp64, and but for rounding in fp32."""
    if row["precision"] not in ("fp32", FLOAT64):
        return ""
    losses, weights = tolerance * LOSSES, tolerance * WEIGHTS
    if row["precision"] == "fp32":
        losses = max(losses, ROUNDING * row["control_losses"])
        weights = max(weights, ROUNDING * row["control_weights"])
    good = row["losses"] <= losses and row["weights"] <= weights
    return "agrees" if good else "DIFFERS"


def show(row: dict[str, Any]) -> None:
    print(
        f"{row['recipe']:<28} {row['size']:>4} px  batch {row['batch']:<4} {row['mode']:<9} "
        f"losses {row['losses']:.1e} (control {row['control_losses']:.1e})  "
        f"weights {row['weights']:.1e} (control {row['control_weights']:.1e})  "
        f"eager {row['eager_ms']:.2f} ms  {row['eager_ms'] / row['ms']:.2f}x  "
        f"first step {row['first_step_seconds']:.0f} s  {row['verdict']}",
        flush=True,
    )
    if "reason" in row:
        print(f"  {row['reason']}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", nargs="+", default=RECIPES, metavar="NAME[:LOSS]")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--warm-up", type=int, default=200, help="eager steps before")
    parser.add_argument("--batch", type=int, default=0, help="images; the recipe's")
    parser.add_argument("--data", type=Path, help="a packed set; the demo set")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "tf32", "bf16", FLOAT64))
    parser.add_argument("--tolerance", type=float, default=1.0)
    parser.add_argument("--floor", type=float, default=1e-3, help="losses nearer to 0 count as it")
    parser.add_argument("--json", type=Path, help="a file for the rows, and what they stand on")
    args = parser.parse_args()
    facts = hardware()
    print(", ".join(f"{key} {value}" for key, value in facts.items()) + f"; {args.precision}")
    rows: list[dict[str, Any]] = []
    refused = 0
    for name in args.recipes:
        try:
            rows += compare(name, args)
        except StepRefusedError as error:
            print(f"{name:<28} REFUSED: {error}", flush=True)
            refused += 1
            continue
        for row in rows:
            if row["recipe"] == name:
                show(row)
        if args.json is not None:  # what comes later may fail
            content = {"machine": facts, "argv": sys.argv[1:], "rows": rows}
            args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 1 if refused or any(row["verdict"] not in ("", "agrees") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
