"""batch_gather against the operators it replaces, and against a copy of as many bytes."""

import itertools

import pytest
import torch

from pokegan.ops import batch_gather

BATCH, SIDE, PICTURES = 64, 64, 8192  # 100 MB: every batch is far from the last
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def resident():
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (PICTURES, SIDE, SIDE, 3), dtype=torch.uint8, generator=random)
    flip = torch.rand(BATCH, generator=random) < 0.5
    return images, itertools.cycle(torch.randperm(PICTURES, generator=random).split(BATCH)), flip


@DTYPES
def test_ops_batch_gather_against_composed(pair, dtype) -> None:
    """The goal is 2."""
    images, batches, flip = resident()

    def ours() -> None:
        batch_gather(images, next(batches), flip, dtype=dtype)

    def theirs() -> None:
        picked = images[next(batches)].permute(0, 3, 1, 2).to(dtype).div(127.5).sub(1)
        torch.where(flip.view(-1, 1, 1, 1), picked.flip(3), picked)

    pair(ours, theirs, amount=BATCH)


@DTYPES
def test_ops_batch_gather_against_memory_copy(pair, dtype) -> None:
    """The goal is 1/2. The copy reads and writes, together, as many bytes as the gather."""
    images, batches, flip = resident()
    values = 3 * BATCH * SIDE * SIDE
    pieces = itertools.cycle(images.flatten().split(values * (1 + dtype.itemsize) // 2)[:-1])

    def ours() -> None:
        batch_gather(images, next(batches), flip, dtype=dtype)

    def copy() -> None:
        next(pieces).clone()

    pair(ours, copy, amount=BATCH)
