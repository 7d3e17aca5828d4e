"""Every mode's step against the eager one: losses, weights and time over some steps.

    python benchmarks/step_modes.py                             # 50 steps of four recipes
    python benchmarks/step_modes.py --batch 8 --recipes hpml aegan
    python benchmarks/step_modes.py --device cuda --precision bf16 --batch 64

All modes start from one state, that of an eager run after --warm-up steps, and see the same
pictures in the same order. At the very start Adam divides every gradient by its own size, so that
rounding alone decides the sign of the smallest ones, and any two roundings part. In fp32 a mode
fails whose losses differ by more than 1e-5 or whose weights differ by more than 1e-4, relatively
(--tolerance scales both; other precisions are measured and not judged). `control` is how far an
eager run parts whose weights were changed by 1e-7: what no rounding can be better than. The time
of a step is the median over the steps after the first half, modes alternating.
"""

import argparse
import copy
import statistics
import sys
import time
from pathlib import Path

import torch

from pokegan import recipes
from pokegan.config import RunConfig, override
from pokegan.data.options import PrepareOptions
from pokegan.data.packed import PackedImages
from pokegan.data.sources import open_data
from pokegan.objectives.phases import StepInput
from pokegan.training.build import Parts, build

RECIPES = ("hpml", "gan-pokemon-sngan:hinge", "gan-pokemon-dcgan:wgan-gp", "aegan")
LOSSES, WEIGHTS = 1e-5, 1e-4


def configured(name: str, args: argparse.Namespace) -> RunConfig:
    recipe, _, loss = name.partition(":")
    changes = {"training.device": args.device, "training.precision": args.precision}
    changes |= {"data.source": args.data} if args.data else {"data.source": "demo"}
    changes |= {"objective.loss": loss, "objective.label_smoothing": 0.0} if loss else {}
    changes |= {"training.batch": args.batch} if args.batch else {}
    return override(recipes.get(recipe), changes)


def timed_step(parts: Parts, batch: int, number: int) -> tuple[dict[str, torch.Tensor], float]:
    real = parts.source.batch(number * batch, batch)
    step = torch.full((), number, dtype=torch.int64, device=parts.device)
    wait(parts.device)
    start = time.perf_counter()
    recorded = parts.step(StepInput(real.images, real.samples, step), number)
    wait(parts.device)
    kept = {k: v.double().cpu() for k, v in recorded.items() if k.startswith("loss/")}
    return kept, time.perf_counter() - start


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def copy_state(one: Parts, other: Parts) -> None:
    for name, network in one.networks.items():
        other.networks[name].load_state_dict(network.state_dict())
        state = copy.deepcopy(one.optimizers[name].state_dict())
        other.optimizers[name].load_state_dict(state)
    if one.adaptive is not None and other.adaptive is not None:
        other.adaptive.load_state_dict(one.adaptive.state_dict())


@torch.no_grad()
def nudge(parts: Parts) -> None:
    random = torch.Generator().manual_seed(0)
    for network in parts.networks.values():
        for weight in network.parameters():
            noise = torch.randn(weight.shape, generator=random).to(weight)
            weight.mul_(1 + 1e-7 * noise)


def apart(one: Parts, other: Parts) -> float:
    """The largest distance between the weights of two networks over their length."""
    worst = 0.0
    for name, network in one.networks.items():
        a, b = (
            torch.cat([p.detach().double().flatten() for p in net.parameters()])
            for net in (network, other.networks[name])
        )
        worst = max(worst, float((a - b).norm() / a.norm()))
    return worst


def compare(name: str, args: argparse.Namespace) -> bool:
    config = configured(name, args)
    size = config.data.size
    packed = PackedImages.open(args.data) if args.data else open_data("demo", PrepareOptions(size))
    batch = config.training.batch
    wanted = ("off", "on")
    modes = {one: build(override(config, {"training.compile": one}), packed) for one in wanted}
    control = build(override(config, {"training.compile": "off"}), packed)
    for number in range(args.warm_up):
        timed_step(modes["off"], batch, number)
    copy_state(modes["off"], modes["on"])
    copy_state(modes["off"], control)
    nudge(control)
    times: dict[str, list[float]] = {one: [] for one in wanted}
    worst, first = 0.0, 0.0
    for number in range(args.warm_up, args.warm_up + args.steps):
        losses = {}
        for one in wanted if number % 2 else reversed(wanted):
            losses[one], seconds = timed_step(modes[one], batch, number)
            times[one].append(seconds)
        timed_step(control, batch, number)
        first = first or times["on"][0]
        for key, value in losses["off"].items():
            difference = float((losses["on"][key] - value).abs())
            worst = max(worst, difference / max(float(value.abs()), args.floor))
    weights = apart(modes["off"], modes["on"])
    late = {one: statistics.median(times[one][args.steps // 2 :]) for one in wanted}
    judged = config.training.precision == "fp32"
    good = worst <= args.tolerance * LOSSES and weights <= args.tolerance * WEIGHTS
    print(
        f"{name:<28} {size:>4} px  batch {batch:<4} {modes['on'].step.mode:<12} "
        f"losses {worst:.1e}  weights {weights:.1e} (control "
        f"{apart(modes['off'], control):.1e})  eager {1e3 * late['off']:.1f} ms  "
        f"{late['off'] / late['on']:.2f}x  first step {first:.0f} s  "
        f"{'' if not judged else 'agrees' if good else 'DIFFERS'}",
        flush=True,
    )
    for line in modes["on"].step.news():
        print(f"  {line}", flush=True)
    return good or not judged


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
    parser.add_argument("--precision", default="fp32", choices=("fp32", "tf32", "bf16"))
    parser.add_argument("--tolerance", type=float, default=1.0)
    parser.add_argument("--floor", type=float, default=1e-3, help="losses nearer to 0 count as it")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.precision}")
    agreed = [compare(name, args) for name in args.recipes]
    return 0 if all(agreed) else 1


if __name__ == "__main__":
    sys.exit(main())
