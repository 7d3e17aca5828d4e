"""A tensor a few rows at a time."""

from collections.abc import Iterator

from torch import Tensor


def pieces(tensor: Tensor, rows: int) -> Iterator[Tensor]:
    """Yield tensor [N, ...] in pieces of up to `rows` rows, in order."""
    for start in range(0, len(tensor), rows):
        yield tensor[start : start + rows]
