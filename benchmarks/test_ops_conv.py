"""Our convolutions against PyTorch's, at the layers of a 64 px DCGAN and of a ResNet, batch 64.

In bfloat16, with minimal filtering too where that is possible, and in float32 by split products.
Both get float32 weights in channels_last memory, as they lie in training: in bfloat16 PyTorch's
casts them and its weight gradient back, as autocast does.
"""

import pytest
import torch
import torch.nn.functional as F

from pokegan.ops import (
    conv2d_bf16,
    conv2d_split,
    conv_transpose2d_bf16,
    conv_transpose2d_split,
    conv_units,
)

pytestmark = pytest.mark.skipif(conv_units() == "none", reason="no AMX, no AVX512-BF16")

BATCH = 64
DOWN = [(3, 64, 64), (64, 128, 32), (128, 256, 16), (256, 512, 8)]
UP = [(512, 256, 4), (256, 128, 8), (128, 64, 16), (64, 3, 32)]
LAYERS = [
    *[(False, *shape, 4, 2, 1) for shape in DOWN],
    (False, 512, 1, 4, 4, 1, 0),
    (True, 100, 512, 1, 4, 1, 0),
    *[(True, *shape, 4, 2, 1) for shape in UP],
    (False, 64, 64, 64, 3, 1, 1),
    (False, 128, 128, 16, 3, 1, 1),
    (False, 256, 256, 16, 3, 1, 1),
    (False, 128, 128, 16, 5, 2, 2),
]
CASES = [
    *[("bf16", 1, False, layer) for layer in LAYERS],
    *[
        ("winograd", 1, True, layer)
        for layer in LAYERS
        if layer[4:6] in [(4, 2), (3, 1)] and min(layer[1:3]) >= 32
    ],
    *[(f"split{parts}", parts, False, layer) for parts in (2, 3) for layer in LAYERS],
]


def name_of(name: str, layer) -> str:
    transposed, inputs, outputs, size, kernel, stride, _ = layer
    direction = "up" if transposed else "down"
    return f"{name}-{direction}-{inputs}-{outputs}-{size}px-k{kernel}s{stride}"


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward-backward"])
@pytest.mark.parametrize(
    ("parts", "winograd", "layer"),
    [case[1:] for case in CASES],
    ids=[name_of(case[0], case[-1]) for case in CASES],
)
def test_ops_conv(pair, parts: int, winograd: bool, layer, backward: bool) -> None:
    transposed, inputs, outputs, size, kernel, stride, padding = layer
    last = torch.channels_last
    ends = (inputs, outputs) if transposed else (outputs, inputs)
    weight = torch.randn(*ends, kernel, kernel).contiguous(memory_format=last)
    dtype = torch.bfloat16 if parts == 1 else torch.float32
    maps = torch.randn(BATCH, inputs, size, size).to(dtype).contiguous(memory_format=last)
    weight.requires_grad_(backward)
    maps.requires_grad_(backward)

    def ours() -> torch.Tensor:
        numbers = (None, stride, padding)
        if parts == 1:
            operator = conv_transpose2d_bf16 if transposed else conv2d_bf16
            return operator(maps, weight, *numbers, winograd=winograd)
        if transposed:
            return conv_transpose2d_split(maps, weight, *numbers, parts=parts)
        return conv2d_split(maps, weight, *numbers, parts)

    def theirs() -> torch.Tensor:
        operator = F.conv_transpose2d if transposed else F.conv2d
        return operator(maps, weight.to(dtype), None, stride, padding)

    downstream = torch.randn_like(ours())

    def timed(function):
        def run() -> None:
            out = function()
            if backward:
                out.backward(downstream)
                maps.grad = weight.grad = None

        return run

    pair(timed(ours), timed(theirs), amount=BATCH)
