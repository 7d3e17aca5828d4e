"""The convolution that a layer uses: ours or PyTorch's, whichever is faster for its shape.

Ours needs a processor with AMX or AVX512-BF16 and arithmetic in bfloat16; or in float32, with AMX,
where `split_products` allows it. Where it can be used, both are timed once for each shape and count
of threads, forward and backward, and the outcome is kept in the cache folder and in checkpoints, so
that a run that is continued uses what it has used before. `POKEGAN_CONV=own` and
`POKEGAN_CONV=stock` decide without timing.
"""

import contextlib
import functools
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pokegan.errors import ConfigError
from pokegan.files import write_text
from pokegan.ops.conv import (
    MAX_KERNEL,
    PARTS,
    conv2d_bf16,
    conv2d_split,
    conv_transpose2d_bf16,
    conv_transpose2d_split,
    conv_units,
)

CHOICES = ("auto", "own", "stock")
_FILE = "convolutions.json"
_OPERATORS = "4"  # to be raised when one of ours becomes faster or slower
_ROUNDS = 5
_CLEAR = 1.5  # times faster: no further round is needed
_DTYPES = (torch.float32, torch.bfloat16)


class Case(NamedTuple):
    """What a choice is made for."""

    transposed: bool
    batch: int
    inputs: int
    height: int
    width: int
    outputs: int
    kernel_height: int
    kernel_width: int
    stride: int
    padding: int
    output_padding: tuple[int, int] = (0, 0)
    split: bool = False  # float32 by split products; else bfloat16

    def __str__(self) -> str:
        """One line, the key in the cache."""
        name = ("conv_transpose2d" if self.transposed else "conv2d") + "_split" * self.split
        more = "" if self.output_padding == (0, 0) else f" output_padding {self.output_padding}"
        return (
            f"{name} {self.batch}x{self.inputs}x{self.height}x{self.width} to {self.outputs}, "
            f"kernel {self.kernel_height}x{self.kernel_width} stride {self.stride} "
            f"padding {self.padding}{more}, {torch.get_num_threads()} threads"
        )


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """`F.conv2d`, by our operator where that is faster; shapes and autocast as there."""
    if _can_be_own(input, weight) and uses_own(_case(False, input, weight, stride, padding)):
        if _is_split(input):
            return conv2d_split(input, weight, bias, stride, padding)
        return conv2d_bf16(input.to(torch.bfloat16), weight, bias, stride, padding)
    return F.conv2d(input, weight, bias, stride, padding)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    output_padding: tuple[int, int],
) -> Tensor:
    """`F.conv_transpose2d`, by our operator where that is faster; shapes and autocast as there."""
    if (
        _can_be_own(input, weight)
        and max(output_padding) < stride
        and uses_own(_case(True, input, weight, stride, padding, output_padding))
    ):
        if _is_split(input):
            return conv_transpose2d_split(input, weight, bias, stride, padding, output_padding)
        return conv_transpose2d_bf16(
            input.to(torch.bfloat16), weight, bias, stride, padding, output_padding
        )
    return F.conv_transpose2d(input, weight, bias, stride, padding, output_padding)


class split_products:  # noqa: N801  (a context manager, named as torch names its own)
    """Inside, and if `allowed`, convolutions of float32 may be computed by split products.

    Without AMX, and where PyTorch's are faster, they are PyTorch's.
    """

    def __init__(self, allowed: bool) -> None:
        self.allowed = allowed

    def __enter__(self) -> None:
        global _split_allowed
        self.before, _split_allowed = _split_allowed, self.allowed

    def __exit__(self, *_: object) -> None:
        global _split_allowed
        _split_allowed = self.before


def uses_own(case: Case) -> bool:
    """Return whether a layer of this shape uses our operator; time both at the first question.

    Inside `torch.compile` nothing can be timed: ours is used unless `POKEGAN_CONV=stock`.
    """
    if mode() != "auto" or torch.compiler.is_compiling():
        return mode() != "stock"
    key = (case, torch.get_num_threads())
    known = _known.get(key)
    if known is None:
        text = str(case)
        if text not in _decided:
            _decided[text] = _recall_or_measure(case) >= 1
        known = _known[key] = _decided[text]
    return known


def choices() -> dict[str, bool]:
    """Return what was decided in this process, by shape: whether ours is used."""
    return dict(_decided)


def keep_to(decided: Mapping[str, bool]) -> None:
    """Use what another process `decided`: a run that goes on keeps its arithmetic."""
    _decided.update(decided)
    _known.clear()


def mode() -> str:
    """Return `POKEGAN_CONV`: auto, own or stock; always stock where ours cannot run."""
    return _MODE


def _read_mode() -> str:
    """Read the variable.

    Raises:
        ConfigError: it is not one of its choices.
    """
    chosen = os.environ.get("POKEGAN_CONV", "auto")
    if chosen not in CHOICES:
        raise ConfigError(f"POKEGAN_CONV={chosen}: use one of {', '.join(CHOICES)}")
    return chosen if conv_units() != "none" else "stock"


_MODE = _read_mode()  # fixed for the process, so a compiled function sees a constant


def measured() -> dict[str, float]:
    """Return how many times faster ours was than PyTorch's, by shape, as the cache has it."""
    try:
        stored = json.loads(_path().read_text(encoding="utf-8"))
        if stored["made_on"] != _made_on():
            return {}
        return {str(case): float(ratio) for case, ratio in stored["faster"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def measure(case: Case) -> float:
    """Return how many times faster ours is than PyTorch's: forward and both gradients."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        ours, stock = _contenders(case)
        _seconds(ours), _seconds(stock)
        best_of_ours = best_of_stock = float("inf")
        for _ in range(_ROUNDS):
            best_of_ours = min(best_of_ours, _seconds(ours))
            best_of_stock = min(best_of_stock, _seconds(stock))
            ratio = best_of_stock / best_of_ours
            if not 1 / _CLEAR < ratio < _CLEAR:
                break
    return ratio


_split_allowed = False
_known: dict[tuple[Case, int], bool] = {}
_decided: dict[str, bool] = {}


def _can_be_own(input: Tensor, weight: Tensor) -> bool:
    """Whether our operators take these tensors, in arithmetic that is asked for."""
    if input.device.type != "cpu" or mode() == "stock":
        return False
    if torch.is_autocast_enabled("cpu"):
        wanted = torch.get_autocast_dtype("cpu") == torch.bfloat16 and input.dtype in _DTYPES
    elif _is_split(input):
        wanted = _split_allowed and weight.dtype == torch.float32 and conv_units() == "AMX"
    else:
        wanted = input.dtype == torch.bfloat16 and weight.dtype == torch.bfloat16
    return (
        wanted
        and weight.dtype in _DTYPES
        and input.dim() == 4
        and input.numel() > 0
        and max(weight.shape[2:]) <= MAX_KERNEL
    )


def _is_split(input: Tensor) -> bool:
    return input.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def _case(
    transposed: bool,
    input: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    output_padding: tuple[int, int] = (0, 0),
) -> Case:
    batch, inputs, height, width = input.shape
    kernel_height, kernel_width = weight.shape[2:]
    outputs = weight.shape[1 if transposed else 0]
    sizes = (batch, inputs, height, width, outputs, kernel_height, kernel_width)
    return Case(transposed, *sizes, stride, padding, output_padding, _is_split(input))


def _recall_or_measure(case: Case) -> float:
    """Return the ratio that the cache has; measure it and keep it if it has none."""
    recalled = measured().get(str(case))
    if recalled is not None:
        return recalled
    found = measure(case)
    faster = {str(case): round(found, 3)} | measured()  # another process may have been first
    content = {"made_on": _made_on(), "faster": dict(sorted(faster.items()))}
    with contextlib.suppress(OSError):  # then it is measured again in the next process
        write_text(_path(), json.dumps(content, indent=1) + "\n")
    return faster[str(case)]


def _contenders(case: Case) -> tuple[Callable[[], object], Callable[[], object]]:
    """Ours and PyTorch's: forward and both gradients, on ones, which need no random numbers."""
    ends = (case.inputs, case.outputs) if case.transposed else (case.outputs, case.inputs)
    dtype = torch.float32 if case.split else torch.bfloat16
    weight = _ones(torch.float32, *ends, case.kernel_height, case.kernel_width)
    maps = _ones(dtype, case.batch, case.inputs, case.height, case.width)
    numbers = (case.stride, case.padding)
    ops = torch.ops.pokegan
    last: tuple[int, ...] = (PARTS,) if case.split else ()
    convolve, transpose, to_weight = (
        (ops.conv2d_split, ops.conv_transpose2d_split, ops.conv2d_weight_split)
        if case.split
        else (ops.conv2d_bf16, ops.conv_transpose2d_bf16, ops.conv2d_weight_bf16)
    )
    kernel = list(weight.shape[2:])
    more = list(case.output_padding)
    if case.transposed:
        other = torch.ones_like(transpose(maps, weight, None, *numbers, more, *last))
    else:
        other = torch.ones_like(convolve(maps, weight, None, *numbers, *last))
        more = [
            size - ((small - 1) * case.stride - 2 * case.padding + side)
            for size, small, side in zip(maps.shape[2:], other.shape[2:], kernel, strict=True)
        ]
    large, small = (other, maps) if case.transposed else (maps, other)

    def ours() -> None:
        convolve(large, weight, None, *numbers, *last)
        transpose(small, weight, None, *numbers, more, *last)
        to_weight(large, small, kernel, *numbers, *(last or (torch.float32,)))

    stride, padding = [case.stride] * 2, [case.padding] * 2

    def stock() -> None:
        own = weight.to(dtype)
        shape = (stride, padding, [1, 1], case.transposed, list(case.output_padding), 1)
        torch.ops.aten.convolution(maps, own, None, *shape)
        _, gradient, _ = torch.ops.aten.convolution_backward(
            other, maps, own, None, *shape, [True, True, False]
        )
        gradient.float()

    return ours, stock


def _ones(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.ones(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _path() -> Path:
    from pokegan.cache_folder import cache_folder  # needs more than torch; the operators do not

    return cache_folder() / _FILE


@functools.cache
def _made_on() -> dict[str, str]:
    """What a measurement holds for."""
    import pokegan

    return {
        "processor": _processor(),
        "units": conv_units(),
        "torch": torch.__version__,
        "pokegan": pokegan.__version__,
        "operators": _OPERATORS,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
