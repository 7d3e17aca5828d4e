"""Spectral norm as a layer option."""

import pytest
import torch

from pokegan.networks.dcgan import DCGANDiscriminator
from pokegan.networks.layers import init_normal


def test_spectral_norm_holds_the_largest_singular_value_at_one() -> None:
    torch.manual_seed(0)
    network = DCGANDiscriminator(16, (8, 16), norm="spectral")
    init_normal(network, 0.02, torch.Generator().manual_seed(1))
    for _ in range(50):  # power iterations
        network(torch.randn(2, 3, 16, 16))
    network.eval()
    weights = [layer.weight for layer in network.layers if isinstance(layer, torch.nn.Conv2d)]
    assert len(weights) == 3
    for weight in weights:
        largest = torch.linalg.matrix_norm(weight.flatten(1), ord=2)
        assert largest.item() == pytest.approx(1, abs=1e-3)
