"""Every recipe's training step against the same networks stepped in plain PyTorch, in two forms.

`seeds` is how the older projects ran: eager, float32, default layout and Adam. `best` is stock
PyTorch at its best on this machine: bfloat16 autocast where there are units for it, channels_last,
fused Adam; with POKEGAN_BENCH_COMPILE=1 its networks are compiled, too. Both have PyTorch's own
convolutions, batch norms and spectral norm, and pictures that lie ready; ours does everything that
a step of training does: the batch, the phases, the moving average.

On the processor; POKEGAN_BENCH_DEVICE=cuda measures on a GPU, POKEGAN_BENCH_CALLS steps a timing
(20), our step as a run there has it. `seeds` then has PyTorch's own settings for TF32 and cuDNN,
`best` the fastest. There `test_modes` tells our modes apart, and says how far each is from a floor:
the step's operations over the rate of a large product, or the bytes that it must move over the
bandwidth of a large copy, both measured first, whichever takes longer.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator

import pytest
import torch
from measuring import DEVICE, ceilings
from plain_layers import PlainMixColours, PlainShuffleCat, PlainUpsampleCat
from step_builds import MODES, build_in, require
from step_cost import cost_of
from step_time import Machine, floor
from torch import nn
from torch.nn.utils import parametrizations

from pokegan import recipes
from pokegan.config import RunConfig, override
from pokegan.data.options import PrepareOptions
from pokegan.data.sources import open_data
from pokegan.networks.batch_norm import BatchNorm1d, BatchNorm2d, Sequential
from pokegan.networks.convolution import Conv2d, ConvTranspose2d, Tanh
from pokegan.networks.maps import MixColours, ShuffleCat, UpsampleCat
from pokegan.objectives.phases import StepInput
from pokegan.training.build import Parts, build_phases
from pokegan.training.hardware import has_fast_bfloat16
from pokegan.training.networks import build_networks

BATCH = 64
ON_GPU = DEVICE == "cuda"
CALLS = int(os.environ.get("POKEGAN_BENCH_CALLS", "20" if ON_GPU else "1"))
COMPILED = os.environ.get("POKEGAN_BENCH_COMPILE") == "1"
STOCK = {
    Conv2d: nn.Conv2d,
    ConvTranspose2d: nn.ConvTranspose2d,
    Tanh: nn.Tanh,
    BatchNorm1d: nn.BatchNorm1d,
    BatchNorm2d: nn.BatchNorm2d,
    Sequential: nn.Sequential,
    ShuffleCat: PlainShuffleCat,
    UpsampleCat: PlainUpsampleCat,
    MixColours: PlainMixColours,
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
if ON_GPU:
    CASES["gan-pokemon-dcgan 256 px"] = ("gan-pokemon-dcgan", {"data.size": 256})
IN_EVERY_MODE = ("hpml", "gan-pokemon-sngan", "aegan 96 px", "gan-pokemon-dcgan 256 px")


def configured(case: str, precision: str = "auto") -> RunConfig:
    recipe, changes = CASES[case]
    fixed = {
        "training.batch": BATCH,
        "training.device": DEVICE,
        "training.precision": precision,
        "data.holdout": 0,
    }
    return override(recipes.get(recipe), fixed | changes)


@functools.lru_cache(maxsize=1)  # compiled once for the tests that follow each other
def our_step(case: str, precision: str, mode: str) -> tuple[Callable[[], None], Parts]:
    """Everything a step of training does, and what it runs on."""
    config = configured(case, precision)
    packed = open_data("demo", PrepareOptions(config.data.size))
    parts = build_in(mode, config, packed)
    done = 0

    def step() -> None:
        nonlocal done
        real = parts.source.batch(done * BATCH, BATCH)
        number = torch.full((), done, dtype=torch.int64, device=parts.device)
        parts.step(StepInput(real.images, real.samples, number), done)
        done += 1
        parts.ema.update(done * BATCH, BATCH)

    return step, parts


def without_spectral_norm(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """The config with plain layers in place of those, and the networks that had them."""
    roles = [
        role
        for role in ("generator", "discriminator")
        if getattr(config, role).options.get("norm") == "spectral"
    ]
    for role in roles:
        options = {**getattr(config, role).options, "norm": "none"}
        config = override(config, {f"{role}.options": options})
    return config, roles


def stock_networks(config: RunConfig) -> dict[str, nn.Module]:
    """The recipe's networks of PyTorch's own layers."""
    plain, spectral = without_spectral_norm(config)
    networks = build_networks(plain)
    for network in networks.values():
        for module in network.modules():
            module.__class__ = STOCK.get(type(module), type(module))
    for role in spectral:
        for module in list(networks[role].modules()):
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                parametrizations.spectral_norm(module)
    return networks


@contextlib.contextmanager
def stock_settings(best: bool) -> Iterator[None]:
    """On a GPU PyTorch's own settings, or its fastest; ours are as they were afterwards."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn

    def allow(products: bool, convolutions: bool, search: bool) -> None:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = products, convolutions, search

    if not ON_GPU:
        yield
        return
    before = (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark)
    allow(best, True, best)
    try:
        yield
    finally:
        allow(*before)


def stock_step(config: RunConfig, best: bool) -> Callable[[], None]:
    """The recipe's phases, run by plain PyTorch."""
    device = torch.device(DEVICE)
    networks = stock_networks(config)
    half = best and has_fast_bfloat16(device)
    layout = torch.channels_last if best else torch.contiguous_format
    for network in networks.values():
        network.to(device, memory_format=layout)
        if best and COMPILED:
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
    real = (torch.rand(BATCH, 3, side, side) * 2 - 1).to(device, memory_format=layout)
    done = 0

    def step() -> None:
        nonlocal done
        samples = torch.arange(done * BATCH, (done + 1) * BATCH, device=device)
        inputs = StepInput(real, samples, torch.full((), done, device=device))
        for phase in phases:
            if (done + 1) % phase.every:
                continue
            frozen = [p for name in phase.frozen for p in networks[name].parameters()]
            for parameter in frozen:
                parameter.requires_grad_(False)
            with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
                loss = phase.loss(inputs).loss
            loss.backward()
            for parameter in frozen:
                parameter.requires_grad_(True)
            for name in phase.updates:
                optimizers[name].step()
                optimizers[name].zero_grad()
        done += 1

    def run() -> None:
        with stock_settings(best):
            step()

    return run


def measure(pair, case: str, best: bool, precision: str = "auto", mode: str = "auto") -> None:
    """Time ours in a mode against stock; a step that fell back to another mode is an error."""
    ours, parts = our_step(case, precision, mode)
    for _ in range(2):  # with the pair's two these choose convolutions and make what is repeated
        ours()
    pair(ours, stock_step(configured(case, precision), best), amount=BATCH, calls=CALLS)
    auto = "captured" if ON_GPU else "recorded"
    require(auto if mode == "auto" else mode, parts)


@pytest.mark.parametrize("against", ["seeds", "best"])
@pytest.mark.parametrize("case", CASES)
def test_step(pair, case: str, against: str) -> None:
    measure(pair, case, against == "best")


@pytest.mark.parametrize("case", ["hpml", "house-dcgan"])
def test_step_in_float32(pair, case: str) -> None:
    """What a processor without units for bfloat16 gets, against the older projects' way."""
    measure(pair, case, best=False, precision="fp32")


@pytest.fixture(scope="module")
def device_rates() -> Machine:
    return Machine("this one", *ceilings(torch.device(DEVICE)), (), "measured")


@pytest.mark.skipif(not ON_GPU, reason="of a GPU: POKEGAN_BENCH_DEVICE=cuda")
@pytest.mark.parametrize("mode", MODES["cuda"])
@pytest.mark.parametrize("case", IN_EVERY_MODE)
def test_modes(pair, benchmark, tell, device_rates: Machine, case: str, mode: str) -> None:
    """Each of our modes against stock at its best. The floor has no spectral norm in it."""
    measure(pair, case, best=True, mode=mode)
    cost = cost_of(without_spectral_norm(configured(case))[0])
    arithmetic, memory = floor(cost, BATCH, device_rates)
    info = benchmark.extra_info
    step = BATCH / info["images_per_second"]
    info.update(
        mode=mode,
        stock="compiled" if COMPILED else "eager",
        step_ms=1e3 * step,
        arithmetic_ms=1e3 * arithmetic,
        memory_ms=1e3 * memory,
        over_floor=step / max(arithmetic, memory),
        flops_per_second=device_rates.flops,
        bytes_per_second=device_rates.memory,
    )
    tell(
        f"    {1e3 * step:.2f} ms a step, {info['over_floor']:.1f} times its floor: arithmetic "
        f"{1e3 * arithmetic:.3f} ms at {device_rates.flops / 1e12:,.0f} TFLOPS, memory "
        f"{1e3 * memory:.3f} ms at {device_rates.memory / 1e9:,.0f} GB/s"
    )
