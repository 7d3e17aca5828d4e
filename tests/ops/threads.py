"""What a function gives with other counts of threads."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")


def with_threads(function: Callable[[], T], counts: Sequence[int] = (1, 2, 3)) -> list[T]:
    """Call `function` with each count of threads; the count is as it was afterwards."""
    before, results = torch.get_num_threads(), []
    try:
        for count in counts:
            torch.set_num_threads(count)
            results.append(function())
    finally:
        torch.set_num_threads(before)
    return results
