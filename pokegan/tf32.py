"""Whether CUDA may round the inputs of float32 products and convolutions to TF32's 10 bits."""

import contextlib
from collections.abc import Iterator

import torch


def allow_tf32(allowed: bool) -> None:
    """Let CUDA's products and convolutions of float32 round their inputs, or not.

    Not: float32 means float32, whatever torch's default is.
    """
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Compute in float32 within, where torch's default and `--precision tf32` round.

    What is measured or shown must not depend on what a device is fast at, or a run trained with.
    """
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    allow_tf32(False)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
