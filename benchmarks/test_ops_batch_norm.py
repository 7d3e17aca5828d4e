"""Our batch norm with its activation against PyTorch's two, at the layers of a 64 px DCGAN.

Batch 64, maps in channels_last memory. Both are layers with statistics and parameters, as in
training; PyTorch's activation is in place, as there.
"""

import pytest
import torch
from torch import nn

from pokegan.networks.batch_norm import BatchNorm2d, Sequential
from pokegan.ops import status

pytestmark = pytest.mark.skipif(not status().cpu, reason=status().cpu_reason)

BATCH = 64
LAYERS = [(512, 4), (256, 8), (128, 16), (64, 32)]
ACTIVATIONS = {"relu": nn.ReLU, "lrelu": lambda inplace: nn.LeakyReLU(0.2, inplace)}


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward-backward"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize(("channels", "size"), LAYERS, ids=[f"{c}-{s}px" for c, s in LAYERS])
def test_ops_batch_norm(pair, channels: int, size: int, dtype, activation, backward: bool) -> None:
    shape = (BATCH, channels, size, size)
    maps, downstream = (
        torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last) for _ in range(2)
    )
    maps.requires_grad_(backward)
    ours = Sequential(BatchNorm2d(channels), ACTIVATIONS[activation](inplace=True))
    theirs = nn.Sequential(nn.BatchNorm2d(channels), ACTIVATIONS[activation](inplace=True))

    def timed(network):
        network.requires_grad_(backward)

        def run() -> None:
            out = network(maps)
            if backward:
                out.backward(downstream)
                maps.grad = None
                network.zero_grad()

        return run

    pair(timed(ours), timed(theirs), amount=BATCH)
