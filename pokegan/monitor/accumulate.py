"""Sums of statistics that stay on the device until they are read."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Accumulator:
    """Means of named scalars over the steps since the last read; reading is the one host sync."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one step's detached scalars."""
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._counts[name] = self._counts.get(name, 0) + 1

    def peek(self) -> dict[str, float]:
        """Return the means so far."""
        if not self._sums:
            return {}
        names = list(self._sums)
        sums = torch.stack([self._sums[name].float() for name in names]).tolist()
        return {name: sums[i] / self._counts[name] for i, name in enumerate(names)}

    def read(self) -> dict[str, float]:
        """Return the means and start anew."""
        means = self.peek()
        self._sums, self._counts = {}, {}
        return means

    def state(self) -> dict[str, dict[str, Tensor] | dict[str, int]]:
        """Return what a checkpoint keeps, so that a resumed run records the same means."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load(self, state: Mapping[str, Mapping[str, Any]], device: torch.device) -> None:
        """Take up what `state` returned."""
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        self._counts = dict(state["counts"])
