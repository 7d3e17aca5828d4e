"""Our batch norm with its activation against PyTorch's two, at the layers of a 64 px DCGAN.

Batch 64, maps in channels_last memory. Both are layers with statistics and parameters, as in
training; PyTorch's activation is in place, as there. Between our convolutions: with what these sum
while they write, against the same layers with something between them.
"""

import pytest
import torch
from torch import nn

from pokegan.networks.batch_norm import BatchNorm2d, Sequential
from pokegan.networks.convolution import Conv2d, ConvTranspose2d
from pokegan.ops import conv_choice, conv_units, status

pytestmark = pytest.mark.skipif(not status().cpu, reason=status().cpu_reason)

BATCH = 64
LAYERS = [(512, 4), (256, 8), (128, 16), (64, 32)]
IDS = [f"{c}-{s}px" for c, s in LAYERS]
ACTIVATIONS = {"relu": nn.ReLU, "lrelu": lambda inplace: nn.LeakyReLU(0.2, inplace)}


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward-backward"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize(("channels", "size"), LAYERS, ids=IDS)
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


@pytest.mark.skipif(conv_units() == "none", reason="no units for bfloat16")
@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d], ids=["down", "up"])
@pytest.mark.parametrize(
    ("channels", "size"), LAYERS[1:], ids=[f"{c}-{s}px" for c, s in LAYERS[1:]]
)
def test_ops_batch_norm_between_convolutions(
    pair, monkeypatch, channels: int, size: int, kind
) -> None:
    monkeypatch.setattr(conv_choice, "_MODE", "own")
    ends = (channels // 2, channels, 2 * channels)
    inputs, _, outputs = ends if kind is Conv2d else ends[::-1]
    side = 2 * size if kind is Conv2d else size // 2
    maps = torch.randn(BATCH, inputs, side, side).bfloat16()
    maps = maps.contiguous(memory_format=torch.channels_last).requires_grad_()

    def timed(between: list[nn.Module]):
        network = Sequential(
            kind(inputs, channels, 4, 2, 1, bias=False),
            *between,
            BatchNorm2d(channels),
            nn.LeakyReLU(0.2, True),
            *between,
            kind(channels, outputs, 4, 2, 1, bias=False),
        ).to(memory_format=torch.channels_last)

        def run() -> None:
            with torch.autocast("cpu", torch.bfloat16):
                out = network(maps)
            out.backward(torch.ones_like(out))
            maps.grad = None
            network.zero_grad()

        return run

    pair(timed([]), timed([nn.Identity()]), amount=BATCH)
