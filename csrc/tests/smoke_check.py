"""Calls every operator of an installed pokegan once and compares it with its reference.

Needs torch and numpy only: it is what `check_abi.sh` runs under each torch.
"""

import importlib
import sys
from pathlib import Path

import torch

from pokegan.ops import status
from pokegan.ops.batch_gather import batch_gather, batch_gather_reference
from pokegan.ops.diff_augment import diff_augment, diff_augment_reference


def check_batch_gather(device: str) -> None:
    images = torch.randint(0, 256, (5, 9, 23, 3), dtype=torch.uint8, device=device)
    indices = torch.tensor([4, 0, 2], device=device)
    flip = torch.tensor([True, False, True], device=device)
    shift = torch.tensor([[1, -2], [0, 0], [-7, 3]], device=device)
    for dtype in (torch.float32, torch.bfloat16):
        arguments = (images, indices, flip, shift, (1, 2, 3), dtype)
        assert torch.equal(batch_gather(*arguments), batch_gather_reference(*arguments))


def check_diff_augment(device: str) -> None:
    samples = torch.arange(4, device=device)
    for memory in (torch.contiguous_format, torch.channels_last):
        images = torch.randn(4, 3, 9, 23, device=device).contiguous(memory_format=memory)
        images.requires_grad_()
        results = []
        for augment in (diff_augment, diff_augment_reference):
            out = augment(images, 5, 9, 3, samples, fill=1.0)
            (gradient,) = torch.autograd.grad(out.square().sum(), images, create_graph=True)
            (second,) = torch.autograd.grad(gradient.square().sum(), images)
            results.append((out, gradient, second))
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


CHECKS = {"batch_gather": check_batch_gather, "diff_augment": check_diff_augment}


def schemas() -> set[str]:
    """Return every operator that the extension defined, but those that only serve a gradient."""
    names = {str(schema.name) for schema in torch._C._jit_get_all_schemas()}
    ours = {name.removeprefix("pokegan::") for name in names if name.startswith("pokegan::")}
    return {name for name in ours if not name.endswith("_adjoint")}


def main() -> int:
    """Check the operators on the CPU, and on a GPU where there is one."""
    assert status().cpu, status().cpu_reason
    unchecked = schemas() - CHECKS.keys()
    assert not unchecked, f"no smoke check of {sorted(unchecked)}"
    for device in ("cpu", *("cuda",) * (status().cuda and torch.cuda.is_available())):
        for check in CHECKS.values():
            check(device)
    where = Path(importlib.import_module("pokegan").__file__).parent
    print(f"torch {torch.__version__}: CPU {status().cpu_reason}, CUDA {status().cuda_reason}")
    print(f"operators agree with their references ({where})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
