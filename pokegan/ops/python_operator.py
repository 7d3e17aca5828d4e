"""Operators whose kernels are Python: to autograd, compilers and recordings one call each.

`torch.library.custom_op` makes such operators, too, but imports PyTorch's compiler when one is
first called: 2 s at the start of every run, compiled or not.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("pokegan", "FRAGMENT")  # type: ignore[no-untyped-call]  # torch's

Kernel = Callable[..., Tensor | None]


def python_operator(
    kernel: Kernel, name: str, fake: Kernel | None = None, changes: Iterable[str] = ()
) -> torch._ops.OpOverload:
    """Register `torch.ops.pokegan.<name>` on all devices, and return it.

    Args:
        kernel: annotated with tensors, lists of them, and numbers; keeps and returns no argument.
        name: of the operator.
        fake: the same for tensors without values, which a compiler traces; None for a kernel that
            returns nothing.
        changes: the arguments that it writes to.
    """
    schema = torch.library.infer_schema(kernel, mutates_args=tuple(changes))
    _LIBRARY.define(name + schema, tags=torch.Tag.pt2_compliant_tag)  # type: ignore[no-untyped-call]  # torch's
    for device in ("CPU", "CUDA"):
        _LIBRARY.impl(name, kernel, device)  # type: ignore[no-untyped-call]  # torch's
    torch.library.register_fake(f"pokegan::{name}", fake or _nothing)
    overload: torch._ops.OpOverload = getattr(torch.ops.pokegan, name).default
    return overload


def _nothing(*_: object) -> None:
    """Stand for a kernel that only writes."""
