"""Gradient flow: how large the gradients of each layer are, in gradients.jsonl.

Measured between the backward pass and the optimiser's step. Nothing waits for the device before
`GradientFlow.read`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pokegan.monitor.layers import layer_weights
from pokegan.monitor.records import RecordWriter, plain, read_records


@dataclass(frozen=True)
class NetworkGradients:
    """The gradients of one network in one step.

    Attributes:
        layers: dotted names of the layers whose weights have a gradient, in the network's order;
            a frozen layer is absent, a gradient of zeros is there.
        mean: the mean of |g| over the weight of each layer.
        max: the largest |g| in the weight of each layer.
        norm: the Euclidean norm of all gradients of the network, biases and norms included.
    """

    layers: list[str]
    mean: list[float]
    max: list[float]
    norm: float


@dataclass(frozen=True)
class _Observation:
    layers: list[str]
    sizes: list[int]
    values: Tensor  # [2 L + 1] float32: sums of |g|, largest |g|, norm


class GradientFlow:
    """Measures networks on their device and keeps the last measurement of each until it is read."""

    def __init__(self) -> None:
        self._observed: dict[str, _Observation] = {}

    def observe(self, name: str, network: nn.Module) -> None:
        """Measure `network` as `name`, in place of any earlier measurement since the last read.

        Call it after the backward pass (and the ranks' all-reduce) and before the gradients are
        zeroed, outside a captured graph. A network in which nothing has a gradient is passed over.
        """
        everything = [p.grad for p in network.parameters() if p.grad is not None]
        if not everything:
            return
        found = {
            layer: weight.grad
            for layer, weight in layer_weights(network).items()
            if weight.grad is not None
        }
        gradients = list(found.values())
        sums = torch._foreach_norm(gradients, 1) if gradients else []
        largest = torch._foreach_norm(gradients, torch.inf) if gradients else []
        measured = [value.float() for value in (*sums, *largest, total_norm(everything))]
        sizes = [gradient.numel() for gradient in gradients]
        self._observed[name] = _Observation(list(found), sizes, torch.stack(measured))

    def read(self) -> dict[str, NetworkGradients]:
        """Return what was observed since the last read, by name, and start anew.

        The one host sync; without observations there is none.
        """
        observed, self._observed = self._observed, {}
        if not observed:
            return {}
        numbers = torch.cat([one.values for one in observed.values()]).tolist()
        found, start = {}, 0
        for name, one in observed.items():
            count = len(one.layers)
            own = numbers[start : start + 2 * count + 1]
            start += len(own)
            mean = [total / size for total, size in zip(own[:count], one.sizes, strict=True)]
            found[name] = NetworkGradients(one.layers, mean, own[count:-1], own[-1])
        return found


class GradientsWriter(RecordWriter):
    """Appends records to a gradients.jsonl: one a network and observation."""

    def write(self, step: int, kimg: float, observed: Mapping[str, NetworkGradients]) -> None:
        """Append what `GradientFlow.read` returned.

        A record has `step`, `kimg`, `network`, the lists `layers`, `mean` and `max`, and `norm`;
        floats are rounded to 7 significant digits, and null where they are not finite.
        """
        for network, one in observed.items():
            values = {
                "kimg": plain("kimg", kimg),
                "network": network,
                "layers": one.layers,
                "mean": [plain("mean", value) for value in one.mean],
                "max": [plain("max", value) for value in one.max],
                "norm": plain("norm", one.norm),
            }
            self.append(step, values)


def read_gradients(path: Path) -> list[dict[str, Any]]:
    """Return the records of a gradients.jsonl, in order; also of a run that is still writing.

    A last line cut short by a crash is left out; a missing file has no records.

    Raises:
        DataError: another line is not a record.
    """
    return read_records(path)


def total_norm(gradients: list[Tensor]) -> Tensor:
    """Return the Euclidean norm of all `gradients` together, a scalar on their device."""
    norms = torch._foreach_norm(gradients, 2)
    total: Tensor = torch.linalg.vector_norm(torch.stack([norm.float() for norm in norms]))
    return total
