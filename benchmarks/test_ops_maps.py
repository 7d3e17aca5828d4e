"""AEGAN's layers without parameters and tanh, forward and backward, against PyTorch's operators."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pokegan.ops.activation import tanh
from pokegan.ops.maps import mix_colours, shuffle_cat, upsample_cat

BATCH = 64
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def drawn(dtype: torch.dtype, *sizes: int) -> Tensor:
    values = torch.randn(BATCH, *sizes).to(dtype)
    if values.dim() == 4:
        values = values.contiguous(memory_format=torch.channels_last)
    return values.requires_grad_()


def compare(pair, ours, theirs, *inputs: Tensor) -> None:
    gradient = torch.randn_like(ours(*inputs))

    def run(function) -> None:
        torch.autograd.grad(function(*inputs), inputs, gradient)

    pair(lambda: run(ours), lambda: run(theirs), amount=BATCH)


@DTYPES
@pytest.mark.parametrize("side", [24, 48])
def test_ops_shuffle_cat(pair, dtype, side) -> None:
    """256 maps and 72 values, as in front of AEGAN's layers of 48 and 96 px."""

    def theirs(maps: Tensor, everywhere: Tensor) -> Tensor:
        spread = everywhere[:, :, None, None].expand(-1, -1, side, side)
        return F.pad(F.pixel_shuffle(torch.cat((maps, spread), 1), 2), (1, 2, 1, 2))

    maps, everywhere = drawn(dtype, 256, side, side), drawn(dtype, 72)
    compare(pair, lambda *both: shuffle_cat(*both, 1, 2), theirs, maps, everywhere)


@DTYPES
@pytest.mark.parametrize(("channels", "others", "side"), [(64, 3, 48), (64, 64, 24)])
def test_ops_upsample_cat(pair, dtype, channels, others, side) -> None:
    """As in AEGAN's encoder."""

    def theirs(maps: Tensor, skip: Tensor) -> Tensor:
        return torch.cat((F.interpolate(maps, scale_factor=2.0, mode="nearest"), skip), 1)

    maps, skip = drawn(dtype, channels, side, side), drawn(dtype, others, 2 * side, 2 * side)
    compare(pair, upsample_cat, theirs, maps, skip)


@DTYPES
def test_ops_mix_colours(pair, dtype) -> None:
    """16 colours at 96 px."""

    def theirs(scores: Tensor, palettes: Tensor) -> Tensor:
        return torch.einsum("nkhw,nck->nchw", scores.softmax(1), palettes)

    compare(pair, mix_colours, theirs, drawn(dtype, 16, 96, 96), drawn(dtype, 3, 16))


def test_ops_tanh(pair) -> None:
    """Pictures of 64 px in bfloat16."""
    compare(pair, tanh, torch.tanh, drawn(torch.bfloat16, 3, 64, 64))
