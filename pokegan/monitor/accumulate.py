"""Sums of statistics that stay on the device until they are read."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class Accumulator:
    """Means of named scalars since the last read; reading is the one host sync.

    Each mean is over the steps in which its scalar was recorded: a penalty taken every 16 steps is
    not thinned by the steps between.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one step's detached scalars, of any float type; sums are float32.

        The tensors are not kept, so the next step may write over them.
        """
        known = [name for name in values if name in self._sums]
        if known:
            sums = [self._sums[name] for name in known]
            torch._foreach_add_(sums, [values[name].to(torch.float32) for name in known])
        for name, value in values.items():
            if name not in self._sums:
                self._sums[name] = value.to(torch.float32, copy=True)
            self._counts[name] = self._counts.get(name, 0) + 1

    def merge(self, mean: Callable[[Tensor], Tensor]) -> None:
        """Replace the sums by their means over the ranks, which all call this at the same step.

        Args:
            mean: [K] float32 to the mean over the ranks, elementwise.
        """
        if self._sums:
            merged = mean(torch.stack(list(self._sums.values()))).unbind()
            self._sums = dict(zip(self._sums, merged, strict=True))

    def clear(self) -> None:
        """Start anew."""
        self._sums, self._counts = {}, {}

    def peek(self) -> dict[str, float]:
        """Return the means so far."""
        if not self._sums:
            return {}
        sums = torch.stack(list(self._sums.values())).tolist()
        names = zip(self._sums, sums, strict=True)
        return {name: total / self._counts[name] for name, total in names}

    def read(self) -> dict[str, float]:
        """Return the means and start anew."""
        means = self.peek()
        self.clear()
        return means

    def state(self) -> dict[str, dict[str, Tensor] | dict[str, int]]:
        """Return what a checkpoint keeps, so that a resumed run records the same means."""
        sums = {name: value.clone() for name, value in self._sums.items()}
        return {"sums": sums, "counts": dict(self._counts)}

    def load(self, state: Mapping[str, Mapping[str, Any]], device: torch.device) -> None:
        """Take up what `state` returned."""
        self._sums = {
            name: value.to(device, torch.float32, copy=True)
            for name, value in state["sums"].items()
        }
        self._counts = dict(state["counts"])
