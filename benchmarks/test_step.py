"""Every recipe's training step against the same networks stepped in plain PyTorch, in two forms.

`seeds` is how the older projects ran: eager, float32, default layout and Adam. `best` is stock
PyTorch at its best on this machine: bfloat16 autocast where there are units for it, channels_last,
fused Adam; with POKEGAN_BENCH_COMPILE=1 its networks are compiled, too. Both have PyTorch's own
convolutions, batch norms and spectral norm, and pictures that lie ready; ours does everything that
a step of training does: the batch, the phases, the moving average.
"""

import os

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from pokegan import recipes
from pokegan.config import RunConfig, override
from pokegan.data.options import PrepareOptions
from pokegan.data.sources import open_data
from pokegan.networks.batch_norm import BatchNorm1d, BatchNorm2d, Sequential
from pokegan.networks.convolution import Conv2d, ConvTranspose2d
from pokegan.objectives.phases import StepInput
from pokegan.training.build import build, build_phases
from pokegan.training.hardware import bfloat16_units
from pokegan.training.networks import build_networks

BATCH = 64
STOCK = {
    Conv2d: nn.Conv2d,
    ConvTranspose2d: nn.ConvTranspose2d,
    BatchNorm1d: nn.BatchNorm1d,
    BatchNorm2d: nn.BatchNorm2d,
    Sequential: nn.Sequential,
}
CASES = {
    "hpml": ("hpml", {}),
    "house-dcgan": ("house-dcgan", {}),
    "gan-pokemon-dcgan": ("gan-pokemon-dcgan", {}),
    "gan-pokemon-sngan": ("gan-pokemon-sngan", {}),
    "gan-pokemon-sngan wgan-gp": ("gan-pokemon-sngan", {"objective.loss": "wgan-gp"}),
    "gan-pokemon-resnet": ("gan-pokemon-resnet", {}),
    "dcgan-fc": ("dcgan-fc", {}),
    "pokegan-dcgan": ("pokegan-dcgan", {}),
    "aegan 96 px": ("aegan", {}),
}


def configured(case: str, precision: str = "auto") -> RunConfig:
    recipe, changes = CASES[case]
    fixed = {
        "training.batch": BATCH,
        "training.device": "cpu",
        "training.precision": precision,
        "training.compile": "off",
        "data.holdout": 0,
    }
    return override(recipes.get(recipe), fixed | changes)


def our_step(config: RunConfig):
    """Everything a step of training does."""
    packed = open_data("demo", PrepareOptions(config.data.size))
    parts = build(config, packed)
    done = 0

    def step() -> None:
        nonlocal done
        real = parts.source.batch(done * BATCH, BATCH)
        number = torch.full((), done, dtype=torch.int64, device=parts.device)
        parts.step(StepInput(real.images, real.samples, number), done)
        done += 1
        parts.ema.update(done * BATCH, BATCH)

    return step


def stock_networks(config: RunConfig) -> dict[str, nn.Module]:
    """The recipe's networks of PyTorch's own layers."""
    plain = config
    spectral = [
        role
        for role in ("generator", "discriminator")
        if getattr(config, role).options.get("norm") == "spectral"
    ]
    for role in spectral:
        options = {**getattr(config, role).options, "norm": "none"}
        plain = override(plain, {f"{role}.options": options})
    networks = build_networks(plain)
    for network in networks.values():
        for module in network.modules():
            module.__class__ = STOCK.get(type(module), type(module))
    for role in spectral:
        for module in list(networks[role].modules()):
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                parametrizations.spectral_norm(module)
    return networks


def stock_step(config: RunConfig, best: bool):
    """The recipe's phases, run by plain PyTorch."""
    networks = stock_networks(config)
    half = best and bool(bfloat16_units())
    layout = torch.channels_last if best else torch.contiguous_format
    for network in networks.values():
        network.to(memory_format=layout)
        if best and os.environ.get("POKEGAN_BENCH_COMPILE") == "1":
            network.compile()
    optimizers = {
        name: torch.optim.Adam(
            network.parameters(),
            lr=config.generator_optimizer.lr,
            betas=(config.generator_optimizer.beta1, config.generator_optimizer.beta2),
            fused=best,
        )
        for name, network in networks.items()
    }
    phases = build_phases(config, networks, (255, 255, 255), None)
    side = config.data.size
    real = (torch.rand(BATCH, 3, side, side) * 2 - 1).to(memory_format=layout)
    done = 0

    def step() -> None:
        nonlocal done
        samples = torch.arange(done * BATCH, (done + 1) * BATCH)
        inputs = StepInput(real, samples, torch.tensor(done))
        for phase in phases:
            if (done + 1) % phase.every:
                continue
            frozen = [p for name in phase.frozen for p in networks[name].parameters()]
            for parameter in frozen:
                parameter.requires_grad_(False)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = phase.loss(inputs).loss
            loss.backward()
            for parameter in frozen:
                parameter.requires_grad_(True)
            for name in phase.updates:
                optimizers[name].step()
                optimizers[name].zero_grad()
        done += 1

    return step


@pytest.mark.parametrize("against", ["seeds", "best"])
@pytest.mark.parametrize("case", CASES)
def test_step(pair, case: str, against: str) -> None:
    config = configured(case)
    pair(our_step(config), stock_step(config, against == "best"), amount=BATCH)


@pytest.mark.parametrize("case", ["hpml", "house-dcgan"])
def test_step_in_float32(pair, case: str) -> None:
    """What a processor without units for bfloat16 gets, against the older projects' way."""
    config = configured(case, "fp32")
    pair(our_step(config), stock_step(config, best=False), amount=BATCH)
