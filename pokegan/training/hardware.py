"""Which device and which arithmetic a run uses, and why."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator

import torch

from pokegan.errors import ConfigError
from pokegan.ops import conv_units
from pokegan.ops.extension import runs_on


def choose_device(name: str) -> torch.device:
    """Return the device for `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: `cuda` is wanted and cannot be used, or the operators that were built do not
            run on the GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "--device cuda: torch sees no CUDA GPU here; use --device cpu, or see `pokegan doctor`"
        )
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if without := other_capability(0):
        raise ConfigError(f"{without}; or use POKEGAN_OPS=reference, or --device cpu")
    return torch.device("cuda")


def other_capability(index: int) -> str:
    """Say that the operators were not compiled for GPU `index`, and what to do; else ``""``."""
    capability = torch.cuda.get_device_capability(index)
    if runs_on(capability):
        return ""
    number = ".".join(str(part) for part in capability)
    return (
        f"the CUDA operators were not compiled for compute capability {number}, which "
        f"{torch.cuda.get_device_name(index)} has: TORCH_CUDA_ARCH_LIST={number} pip install -e ."
    )


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the networks' arithmetic for `auto`, `fp32`, `tf32` or `bf16`.

    `auto` is bfloat16 where the processor has units for it: AMX or AVX512-BF16, or a GPU of
    compute capability 8.0 and later. `tf32` is float32 with `allow_tf32`, or on a processor with
    `split_products`.
    """
    if name == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    return torch.bfloat16 if name == "bf16" else torch.float32


def has_tf32(device: torch.device) -> bool:
    """Return whether `device` multiplies float32 faster where it need not do so exactly.

    A GPU of compute capability 8.0 and later does, in TF32; a processor with AMX by split products.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return conv_units() == "AMX"


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether `device` multiplies bfloat16 matrices faster than float32 ones."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(bfloat16_units())


@contextlib.contextmanager
def memory_told() -> Iterator[None]:
    """Say what takes less memory where there is not enough within.

    Raises:
        ConfigError: in place of PyTorch's error.
    """
    try:
        yield
    except RuntimeError as error:
        on_device = isinstance(error, torch.OutOfMemoryError)
        if not on_device and "DefaultCPUAllocator" not in str(error):
            raise
        where = "the GPU's memory" if on_device else "memory"
        raise ConfigError(
            f"{where} is not enough; a smaller --batch or --size takes less, and --loader mapped "
            "where there are many pictures"
        ) from error


def bfloat16_units() -> str:
    """Return the processor's name for its bfloat16 units (`AMX`, `AVX512-BF16`), or ``""``."""
    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    return "AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else ""


# glibc's names of what `mallopt` sets, and more than any map of a run is large
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE = 1 << 30


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next step; return whether it does.

    A step on a CPU allocates and frees the same maps again and again. glibc gives large ones back
    to the system at once, which hands them out page by page, zeroed, in the next step: thousands of
    page faults. Memory in use at most stays as it was; it only is not given back in between. Other
    C libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGE)) and bool(mallopt(_TRIM_THRESHOLD, _LARGE * 2 - 1))
