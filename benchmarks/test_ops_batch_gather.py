"""batch_gather against the operators it replaces, and against a copy of as many bytes."""

import pytest
import torch

from pokegan.ops import batch_gather

BATCH, SIDE, PICTURES = 64, 64, 1024
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def gathered(dtype):
    """A call on a resident set larger than the processor's second cache."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (PICTURES, SIDE, SIDE, 3), dtype=torch.uint8, generator=random)
    indices = torch.randint(0, PICTURES, (BATCH,), generator=random)
    flip = torch.rand(BATCH, generator=random) < 0.5
    return images, indices, flip, lambda: batch_gather(images, indices, flip, dtype=dtype)


@DTYPES
def test_ops_batch_gather_against_composed(pair, dtype) -> None:
    """The goal is 2."""
    images, indices, flip, ours = gathered(dtype)

    def theirs() -> None:
        picked = images[indices].permute(0, 3, 1, 2).to(dtype).div(127.5).sub(1)
        torch.where(flip.view(-1, 1, 1, 1), picked.flip(3), picked)

    pair(ours, theirs, images=BATCH)


@DTYPES
def test_ops_batch_gather_against_memory_copy(pair, dtype) -> None:
    """The goal is 1/2. The copy reads and writes, together, as many bytes as the gather."""
    _, _, _, ours = gathered(dtype)
    values = 3 * BATCH * SIDE * SIDE
    source = torch.ones(values * (1 + dtype.itemsize) // 2, dtype=torch.uint8)
    pair(ours, lambda: source.clone(), images=BATCH)
