"""Trains the cases of `test_ranks.py`, on as many ranks as torchrun starts.

torchrun --nproc-per-node 2 tests/ranks/ranks_worker.py PICTURES OUT
"""

import dataclasses
import sys
from pathlib import Path

import torch

from pokegan import recipes
from pokegan.config import NetworkConfig, RunConfig, override
from pokegan.data.packed import PackedImages
from pokegan.monitor.accumulate import Accumulator
from pokegan.objectives.phases import StepInput
from pokegan.training.build import Parts
from pokegan.training.distributed import Ranks
from pokegan.training.growth import Growth
from pokegan.training.joining import joined
from pokegan.training.launch import Launch

BATCH = 12
SMALL = {
    "data.size": 16,
    "training.batch": BATCH,
    "training.precision": "fp32",
    "training.device": "cpu",
    "training.ema_kimg": 0.05,
    "length.steps": 6,
}
LONG = {
    "length.steps": 9
}  # so that steps of two kinds are repeated: the first three of each are not
CASES: dict[str, tuple[str, dict[str, object]]] = {
    "hpml": ("hpml", {"data.shift": 2}),
    "hpml with r1": (
        "hpml",
        {**LONG, "training.seed": 1, "objective.r1": 1.0, "objective.r1_every": 2},
    ),
    "sngan": ("gan-pokemon-sngan", {"training.seed": 1}),
    "wgan-gp": (
        "gan-pokemon-dcgan",
        {**LONG, "objective.loss": "wgan-gp", "objective.discriminator_steps": 2},
    ),
    "ragan": ("pokegan-dcgan", {"objective.loss": "ragan"}),
    "ada": ("hpml", {"training.seed": 1, "objective.ada_target": 0.6, "objective.ada_kimg": 0.05}),
    # Of four networks: the longest steps by far. One of its steps is repeated, too.
    "aegan": ("aegan", {"length.steps": 4, "data.holdout": 4}),
    "growing": ("progan", {"schedule.stages": "8:1e-3x1;16:1e-3x5"}),
}

# In float32 where rounding stays rounding; a batch norm or Adam can make much more of it.
STEADY = ("hpml", "sngan", "wgan-gp", "growing")
RUNS = [(case, torch.float32) for case in STEADY] + [(case, torch.float64) for case in CASES]
# Three ranks have shares that are no power of two; one long case and one dtype more show no more.
FEWER = [
    run for run in RUNS if run[0] != "aegan" and (run[1] == torch.float64 or "gp" not in run[0])
]


def name_of(case: str, dtype: torch.dtype) -> str:
    """Name a run's files."""
    return f"{case}-{str(dtype).removeprefix('torch.')}"


def config_of(case: str, pictures: Path) -> RunConfig:
    """Return a small run of the case's recipe."""
    name, changes = CASES[case]
    recipe = recipes.get(name)
    if recipe.encoder is not None:  # at its own width it takes as long as all the others
        recipe = dataclasses.replace(
            recipe,
            generator=NetworkConfig("aegan", {"channels": [64, 32, 16]}),
            encoder=NetworkConfig("aegan", {"channels": [16, 32]}),
            discriminator=NetworkConfig("aegan", {"channels": [16, 32]}),
        )
    return override(recipe, {**SMALL, "data.source": str(pictures), **changes})


def train_case(case: str, pictures: Path, ranks: Ranks) -> dict[str, object]:
    """Do the case's steps as the trainer does them; return every state there is afterwards.

    In float64 what Adam makes of a gradient that is zero but for rounding, such as that of a bias
    in front of a batch norm, stays zero: so nothing hides an exchange that is missing.
    """
    config = config_of(case, pictures)
    growth = Growth(config, PackedImages.open(pictures), ranks)
    stage, parts = 0, growth.build()
    sums = Accumulator()
    widen(parts)
    for step in range(growth.total):
        if growth.index(step) > stage:
            stage += 1
            parts = growth.grow(parts, stage)
            widen(parts)
        growth.prepare(parts, stage, step)
        batch = parts.source.batch(*ranks.share(step * BATCH, BATCH))
        inputs = StepInput(
            batch.images.to(torch.get_default_dtype()), batch.samples, torch.tensor(step)
        )
        sums.add(parts.step(inputs, step))
        parts.ema.update((step + 1) * BATCH, BATCH)
    sums.merge(ranks.mean)
    return {
        "networks": {name: network.state_dict() for name, network in parts.networks.items()},
        "ema": parts.ema.network.state_dict(),
        "adaptive": parts.adaptive.state_dict() if parts.adaptive else {},
        "means": sums.peek(),
    }


def widen(parts: Parts) -> None:
    """Give the networks whatever they are called with in the dtype of their weights."""
    for network in (*parts.networks.values(), parts.ema.network):
        network.register_forward_pre_hook(
            lambda _, given: tuple(one.to(torch.get_default_dtype()) for one in given)
        )


def main(pictures: Path, out: Path) -> None:
    """Train the cases one after another; every rank leaves what it has."""
    torch.set_num_threads(1)
    with joined(Launch.from_environment()) as ranks:
        ranks.connect(torch.device("cpu"), 60)
        for case, dtype in RUNS if ranks.count == 2 else FEWER:
            torch.set_default_dtype(dtype)
            state = train_case(case, pictures, ranks)
            torch.save(state, out / f"{name_of(case, dtype)}-rank-{ranks.rank}.pt")
        torch.set_default_dtype(torch.float32)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
