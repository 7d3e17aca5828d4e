"""A recipe's training step against the same networks stepped in plain eager PyTorch."""

import pytest
import torch
from torch import nn

from pokegan import recipes
from pokegan.config import RunConfig, override
from pokegan.data.options import PrepareOptions
from pokegan.data.sources import open_data
from pokegan.objectives.phases import StepInput
from pokegan.training.build import build
from pokegan.training.networks import build_networks

BATCH = 64


def our_step(config: RunConfig):
    """Everything a step of training does: the batch, the phases, the moving average."""
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


def plain_step(config: RunConfig):
    """The step as the seeds ran it: eager, float32, default layout, default Adam.

    Its pictures lie ready in memory, so no data loading counts against it.
    """
    networks = build_networks(config)
    generator, discriminator = networks["generator"], networks["discriminator"]
    optimizers = [
        torch.optim.Adam(network.parameters(), lr=one.lr, betas=(one.beta1, one.beta2))
        for network, one in (
            (generator, config.generator_optimizer),
            (discriminator, config.discriminator_optimizer),
        )
    ]
    real = torch.rand(BATCH, 3, config.data.size, config.data.size) * 2 - 1
    ones, zeros = torch.ones(BATCH), torch.zeros(BATCH)
    criterion = nn.BCEWithLogitsLoss()

    def step() -> None:
        fakes = generator(torch.randn(BATCH, config.latent.size))
        loss = criterion(discriminator(real), ones)
        loss = loss + criterion(discriminator(fakes.detach()), zeros)
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
        optimizers[0].zero_grad()
        criterion(discriminator(fakes), ones).backward()
        optimizers[0].step()

    return step


@pytest.mark.parametrize("precision", ["auto", "fp32"])
@pytest.mark.parametrize("recipe", ["hpml", "house-dcgan"])
def test_step_against_plain_eager_fp32(pair, recipe: str, precision: str) -> None:
    """`auto` is bf16 where the processor has units for it; `fp32` is what the others get."""
    changes = {
        "training.batch": BATCH,
        "training.device": "cpu",
        "training.precision": precision,
    }
    config = override(recipes.get(recipe), changes)
    pair(our_step(config), plain_step(config), amount=BATCH)
