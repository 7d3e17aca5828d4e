"""What the state of a spectral norm is made of: its names, and what tells two versions apart."""

from collections.abc import Mapping

import torch
from torch import Tensor

SIGMA = "_sigma"

Stamp = tuple[object, ...]


def to_torch_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a network's state for the same network under PyTorch's parametrization."""
    ending = f"parametrizations.weight.0.{SIGMA}"
    return {name: value for name, value in state.items() if not name.endswith(ending)}


def from_torch_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state of PyTorch's spectral norm, of the parametrization or of the older hook.

    The hook's names are `weight_orig`, `weight_u` and `weight_v`.
    """
    names = {"weight_orig": "original", "weight_u": "0._u", "weight_v": "0._v"}
    converted = {}
    for name, value in state.items():
        layer, dot, last = name.rpartition(".")
        own = f"{layer}{dot}parametrizations.weight.{names[last]}" if last in names else name
        converted[own] = value
    return converted


def stamp_of(weight: Tensor) -> Stamp:
    """What differs between two versions of a weight; never equal for a tensor without memory."""
    try:
        place: object = weight.data_ptr()
    except RuntimeError:
        place = object()
    return weight._version, place, weight.dtype, weight.device, is_captured(weight)


def is_captured(weight: Tensor) -> bool:
    """Return whether what is computed from `weight` now goes into a CUDA graph, and is not run."""
    return weight.is_cuda and torch.cuda.is_current_stream_capturing()


def dtype_for(weight: Tensor) -> torch.dtype:
    """Return the dtype in which layers want the normalised weight."""
    device = weight.device.type
    if weight.dtype == torch.float32 and torch.is_autocast_enabled(device):
        asked = torch.get_autocast_dtype(device)
        return torch.bfloat16 if asked == torch.bfloat16 else weight.dtype
    return weight.dtype
