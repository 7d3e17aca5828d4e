"""Loads the compiled modules once and says which implementation is in use, and why.

`POKEGAN_OPS=reference` forces the plain PyTorch references; `POKEGAN_OPS=compiled` makes a missing
extension an error instead of a reason to use them.
"""

import functools
import importlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from pokegan.errors import ConfigError

_BUILD_FACTS = Path(__file__).resolve().parent.parent / "_build.json"
_CHOICES = ("auto", "compiled", "reference")


@dataclass(frozen=True)
class Status:
    """Which kernels this process uses.

    Attributes:
        cpu: whether the compiled CPU kernels are in use.
        cuda: whether the compiled CUDA kernels are in use.
        cpu_reason: one line that says why (not).
        cuda_reason: one line that says why (not).
    """

    cpu: bool
    cuda: bool
    cpu_reason: str
    cuda_reason: str

    def describe(self, device_type: str) -> str:
        """Return `compiled` or `reference (reason)` for tensors on `device_type`."""
        used = self.cuda if device_type == "cuda" else self.cpu
        reason = self.cuda_reason if device_type == "cuda" else self.cpu_reason
        return "compiled" if used else f"reference ({reason})"


@functools.cache
def status() -> Status:
    """Load the modules on the first call and return what is in use.

    Raises:
        ConfigError: `POKEGAN_OPS` is not one of its choices, or asks for what was not built.
    """
    choice = os.environ.get("POKEGAN_OPS", "auto")
    if choice not in _CHOICES:
        raise ConfigError(f"POKEGAN_OPS={choice}: use one of {', '.join(_CHOICES)}")
    if choice == "reference":
        return Status(False, False, "POKEGAN_OPS=reference", "POKEGAN_OPS=reference")
    cpu_error = _load("_C")
    cuda_error = _load("_C_cuda") if cpu_error is None else cpu_error
    if choice == "compiled" and cpu_error is not None:
        raise ConfigError(f"POKEGAN_OPS=compiled, but {cpu_error}")
    if choice == "compiled" and cuda_error is not None and _has_gpu():
        raise ConfigError(f"POKEGAN_OPS=compiled, but for CUDA: {cuda_error}")
    return Status(
        cpu_error is None, cuda_error is None, cpu_error or "compiled", cuda_error or "compiled"
    )


def build_facts() -> dict[str, object]:
    """Return what `setup.py` wrote down about the build; empty when it never ran."""
    try:
        facts = json.loads(_BUILD_FACTS.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def runs_on(capability: tuple[int, int]) -> bool:
    """Return whether the CUDA kernels that are in use run on a GPU of compute `capability`.

    Machine code (`sm_80`) runs on GPUs of its major version from its minor one on, PTX
    (`compute_80`) on all later ones, both with a letter behind the number on that one alone (CUDA
    C++ Programming Guide, binary and PTX compatibility). Without kernels, or without word of what
    they were compiled for, nothing stands in the way.
    """
    targets = build_facts().get("cuda_targets")
    if not status().cuda or not isinstance(targets, list) or not targets:
        return True
    return any(_target_runs_on(str(target), capability) for target in targets)


def _target_runs_on(target: str, capability: tuple[int, int]) -> bool:
    kind, _, number = target.partition("_")
    digits = number.rstrip("af")
    built = divmod(int(digits), 10)
    if digits != number:
        return built == capability
    if kind == "compute":
        return built <= capability
    return built[0] == capability[0] and built[1] <= capability[1]


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _load(module: str) -> str | None:
    """Import a compiled module; return None, or one line that says why it cannot be used."""
    import torch

    if module == "_C_cuda" and torch.version.cuda is None:
        return "this torch has no CUDA"
    modules = build_facts().get("modules")
    known = modules.get(module) if isinstance(modules, dict) else None
    if known not in (None, "built"):
        return str(known)
    try:
        importlib.import_module(f"pokegan.{module}")
    except ModuleNotFoundError:
        return "not built" if known is None else "built, but its file is gone"
    except (ImportError, OSError) as error:
        return f"cannot be loaded: {str(error).splitlines()[0]}"
    return None
