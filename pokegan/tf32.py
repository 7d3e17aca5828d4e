"""How CUDA computes float32: rounded to TF32's 10 bits or not, by which of cuDNN's algorithms."""

import contextlib
from collections.abc import Iterator

import torch


def allow_tf32(allowed: bool) -> None:
    """Let CUDA's products and convolutions of float32 round their inputs, or not.

    Not: float32 means float32, whatever torch's default is.
    """
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def search_algorithms(wanted: bool) -> None:
    """Let cuDNN time its algorithms for each new shape and keep the fastest, or go by its rules.

    For shapes that come again and again, as those of training do.
    """
    torch.backends.cudnn.benchmark = wanted


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Compute in float32 within, without rounding to TF32 and without a search for algorithms.

    What is measured or shown must not depend on what a device is fast at, what a run trained with,
    or which algorithm was the faster one that day.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    allow_tf32(False)
    search_algorithms(False)
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before
