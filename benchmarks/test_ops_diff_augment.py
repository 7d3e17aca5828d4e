"""diff_augment, forward and backward, against the same steps composed of PyTorch operators."""

import pytest
import torch
from torch.nn import functional

from pokegan.ops import diff_augment
from pokegan.ops.random import Stream

BATCH, SIDE = 64, 64


def composed(images):
    """The paper's policies as they are usually written: drawn numbers, means, an index, a mask."""
    batch, _, height, width = images.shape

    def uniform():
        return torch.rand(batch, 1, 1, 1, dtype=images.dtype)

    images = images + (uniform() - 0.5)
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * (uniform() * 2) + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (images - mean) * (uniform() + 0.5) + mean

    far = height // 8, width // 8
    down, right = (torch.randint(-most, most + 1, (batch, 1, 1)) for most in far)
    sample, row, column = torch.meshgrid(
        torch.arange(batch), torch.arange(height), torch.arange(width), indexing="ij"
    )
    row = (row + down + 1).clamp(0, height + 1)
    column = (column + right + 1).clamp(0, width + 1)
    padded = functional.pad(images, (1, 1, 1, 1)).permute(0, 2, 3, 1).contiguous()
    images = padded[sample, row, column].permute(0, 3, 1, 2)

    size = height // 2, width // 2
    top, left = (torch.randint(0, side + 1, (batch, 1, 1)) for side in (height, width))
    sample, row, column = torch.meshgrid(
        torch.arange(batch), torch.arange(size[0]), torch.arange(size[1]), indexing="ij"
    )
    mask = torch.ones(batch, height, width, dtype=images.dtype)
    row = (row + top - size[0] // 2).clamp(0, height - 1)
    column = (column + left - size[1] // 2).clamp(0, width - 1)
    mask[sample, row, column] = 0
    return images * mask[:, None]


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_ops_diff_augment_against_composed(pair, dtype, memory) -> None:
    """The goal is 3."""
    images = torch.randn(BATCH, 3, SIDE, SIDE).to(dtype).contiguous(memory_format=memory)
    images.requires_grad_()
    gradient = torch.randn(BATCH, 3, SIDE, SIDE).to(dtype).contiguous(memory_format=memory)
    samples, step = torch.arange(BATCH), torch.tensor(3)

    def ours() -> None:
        out = diff_augment(images, 1, Stream.AUGMENT_REAL, step, samples)
        torch.autograd.grad(out, images, gradient)

    def theirs() -> None:
        torch.autograd.grad(composed(images), images, gradient)

    pair(ours, theirs, amount=BATCH)
