"""dropout, forward and backward, against what it replaces and against PyTorch's own.

`composed` multiplies by a mask made of counted uniforms, the same numbers; `stock` is
`torch.nn.functional.dropout`, whose numbers are drawn and whose mask is kept.
"""

import pytest
import torch
from torch.nn import functional

from pokegan.ops import dropout, random

P, SEED, STREAM = 0.25, 1, 70_000
SHAPES = [(64, 32, 32, 32), (64, 64, 16, 16), (64, 128, 8, 8)]  # of pokegan-dcgan at 64 px
STEP = torch.tensor(3)


def composed(values, samples, maps):
    n, c, h, w = values.shape
    draws = random.uniform(SEED, STREAM, STEP, samples, c if maps else c * h * w)
    mask = draws[:, :, None, None] if maps else draws.view(n, h, w, c).permute(0, 3, 1, 2)
    return values * ((mask >= P) * (1 / (1 - P))).to(values.dtype)


def stock(values, samples, maps):
    return (functional.dropout2d if maps else functional.dropout)(values, P)


@pytest.mark.parametrize("against", [composed, stock], ids=["composed", "stock"])
@pytest.mark.parametrize("maps", [False, True], ids=["values", "maps"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ops_dropout(pair, shape, dtype, maps, against) -> None:
    """The goal is 3 against the composition."""
    values = torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last)
    values.requires_grad_()
    gradient = torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last)
    samples = torch.arange(shape[0])

    def ours() -> None:
        out = dropout(values, P, SEED, STREAM, STEP, samples, maps=maps)
        torch.autograd.grad(out, values, gradient)

    def theirs() -> None:
        torch.autograd.grad(against(values, samples, maps), values, gradient)

    pair(ours, theirs, amount=shape[0])
