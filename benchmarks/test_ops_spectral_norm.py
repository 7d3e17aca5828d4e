"""The spectral norm alone, as a training step has it, against PyTorch's parametrization.

Two discriminator calls a step: PyTorch's computes the normalised weights at each, ours once for
both. Timed are these computations and their gradients, without the network's own arithmetic.
"""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from pokegan.networks.spectral_norm import spectral_norm_

CALLS = 2  # of the discriminator, in its phase


def sngan() -> nn.Sequential:
    """The five layers of the SNGAN discriminator for 64 px: 2.8 million weights."""
    steps = ((3, 64), (64, 128), (128, 256), (256, 512))
    layers = [nn.Conv2d(*step, 4, 2, 1, bias=False) for step in steps]
    return nn.Sequential(*layers, nn.Conv2d(512, 1, 4, bias=False))


def resnet() -> nn.Sequential:
    """Ten layers as a small ResNet discriminator has them: 0.3 million weights."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1)]
    layers += [nn.Conv2d(64, 64, 3, padding=1) for _ in range(8)]
    return nn.Sequential(*layers, nn.Linear(64, 1))


def gradients_of(network: nn.Sequential) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [
        torch.randn(layer.weight.shape, generator=random).contiguous(
            memory_format=torch.channels_last
            if layer.weight.dim() == 4
            else torch.contiguous_format
        )
        for layer in network
    ]


def step_of(network: nn.Sequential) -> Callable[[], None]:
    """Forward and backward through every weight, as often as a training step does."""
    gradients = gradients_of(network)
    originals = [layer.parametrizations.weight.original for layer in network]

    def step() -> None:
        weights = [layer.weight for _ in range(CALLS) for layer in network]
        torch.autograd.backward(weights, gradients * CALLS)
        with torch.no_grad():
            for original in originals:
                original.grad = None
                original[:1].mul_(1.0)  # a new version, as the optimiser makes it

    return step


def our_step(network: nn.Sequential) -> Callable[[], None]:
    spectral_norm_(network.to(memory_format=torch.channels_last))
    return step_of(network)


def torchs_step(network: nn.Sequential) -> Callable[[], None]:
    for layer in network.to(memory_format=torch.channels_last):
        parametrizations.spectral_norm(layer)
    return step_of(network)


@pytest.mark.parametrize("network", [sngan, resnet])
def test_ops_spectral_norm(pair, network: Callable[[], nn.Sequential]) -> None:
    pair(our_step(network()), torchs_step(network()), amount=1, unit="steps")
