"""The counted fills against PyTorch's generator, which is keyed by nothing, and the reference."""

import pytest
import torch

from pokegan.ops import random
from pokegan.ops.random import Stream

WIDTH = 100


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def repeated(function, count: int):
    """One call is too short for a clock."""

    def run() -> None:
        for _ in range(count):
            function()

    return run


@pytest.mark.parametrize("batch", [64, 4096])
@pytest.mark.parametrize("other", ["torch", "reference"])
@pytest.mark.parametrize("name", ["uniform", "normal"])
def test_ops_random(pair, name: str, other: str, batch: int) -> None:
    step, samples = torch.tensor(5), torch.arange(batch)
    arguments = (1, Stream.LATENT, step, samples, WIDTH)
    calls = 6400 // batch if other == "torch" else 320 // batch or 1
    ours = getattr(random, name)
    if other == "torch":
        draw = torch.rand if name == "uniform" else torch.randn
        theirs = repeated(lambda: draw(batch, WIDTH), calls)
    else:
        reference = getattr(random, f"{name}_reference")
        theirs = repeated(lambda: reference(*arguments), calls)
    pair(repeated(lambda: ours(*arguments), calls), theirs, amount=batch * calls)
