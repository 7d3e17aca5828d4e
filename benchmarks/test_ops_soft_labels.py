"""Soft labels, forward and backward, against the same rule composed of PyTorch operators."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pokegan.ops import soft_labels

SMOOTHING, NOISE, SWAP = 0.1, 0.1, 0.03
REAL = (1 - SMOOTHING - NOISE / 2, 1 - SMOOTHING + NOISE / 2)
FAKE = (SMOOTHING - NOISE / 2, SMOOTHING + NOISE / 2)


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def composed_targets(count: int) -> tuple[Tensor, Tensor]:
    real = 1 - SMOOTHING + NOISE * (torch.rand(count) - 0.5)
    fake = SMOOTHING + NOISE * (torch.rand(count) - 0.5)
    real = torch.where(torch.rand(count) < SWAP, 1 - real, real)
    fake = torch.where(torch.rand(count) < SWAP, 1 - fake, fake)
    return real, fake


COMPOSED = {
    "bce": lambda x, y, t, u: (
        F.binary_cross_entropy_with_logits(x, t) + F.binary_cross_entropy_with_logits(y, u)
    ),
    "lsgan": lambda x, y, t, u: 0.5 * (F.mse_loss(x, t) + F.mse_loss(y, u)),
    "ragan": lambda x, y, t, u: (
        F.binary_cross_entropy_with_logits(x - y.mean(), t)
        + F.binary_cross_entropy_with_logits(y - x.mean(), u)
    ),
}


@pytest.mark.parametrize("batch", [64, 4096])
@pytest.mark.parametrize("form", COMPOSED)
def test_ops_soft_labels(pair, form: str, batch: int) -> None:
    real, fake = torch.randn(2, batch).unbind()
    real.requires_grad_(), fake.requires_grad_()
    samples, step = torch.arange(batch), torch.tensor(5)
    calls = 100

    def ours() -> None:
        for _ in range(calls):
            soft_labels(form, real, fake, samples, step, 1, REAL, FAKE, SWAP).backward()
            real.grad = fake.grad = None

    def theirs() -> None:
        for _ in range(calls):
            COMPOSED[form](real, fake, *composed_targets(batch)).backward()
            real.grad = fake.grad = None

    pair(ours, theirs, amount=batch * calls)
