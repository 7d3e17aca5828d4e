"""What losses and penalties are computed in, whatever autocast is around them."""

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return float64 as it is, and anything else as float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
