"""The convolution that a layer uses: ours or PyTorch's, whichever is faster for its shape.

Ours needs a processor with AMX or AVX512-BF16 and arithmetic in bfloat16; or in float32, with AMX,
where `split_products` allows it. Where it can be used, both are timed once for each shape and count
of threads, forward and backward; the outcome is kept in the cache folder and in checkpoints, so
that a run that is continued uses what it has used before. `POKEGAN_CONV` steers it: `own`,
`winograd` and `stock` decide without timing, `filtered` times minimal filtering (`Winograd`), too.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pokegan.errors import ConfigError
from pokegan.ops.conv import (
    MAX_KERNEL,
    conv2d_bf16,
    conv2d_split,
    conv_transpose2d_bf16,
    conv_transpose2d_split,
    conv_units,
)
from pokegan.ops.conv_gradients import Settings, Winograd
from pokegan.ops.conv_layer import ConvLayer
from pokegan.ops.conv_summed import conv2d_moments_bf16, conv_transpose2d_moments_bf16
from pokegan.ops.conv_timing import Case, ratios, timed

CHOICES = ("auto", "filtered", "own", "winograd", "stock")
_DTYPES = (torch.float32, torch.bfloat16)


class Choice(NamedTuple):
    """Who computes a layer: ours, each operator with or without minimal filtering, or PyTorch."""

    own: bool
    winograd: Winograd = Winograd()

    def __str__(self) -> str:
        """`stock`, `own`, or `own` and the operators that are filtered, as in checkpoints."""
        filtered = [name for name, used in self.winograd._asdict().items() if used]
        return " ".join(["own", *filtered]) if self.own else "stock"

    @classmethod
    def parse(cls, text: str | bool) -> "Choice":
        """Return what `str` was taken of; older checkpoints say whether it is ours."""
        if isinstance(text, bool):
            return cls(text)
        first, *filtered = text.split()
        return cls(first == "own", Winograd(**dict.fromkeys(filtered, True)))


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """`F.conv2d`, by our operator where that is faster; shapes and autocast as there."""
    return _convolve(False, input, weight, bias, stride, padding)[0]


def conv2d_moments(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
) -> tuple[Tensor, Tensor | None]:
    """`conv2d`, and means and variances of its result, [2, O], where they are free."""
    return _convolve(False, input, weight, bias, stride, padding, summed=True)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    output_padding: tuple[int, int],
) -> Tensor:
    """`F.conv_transpose2d`, by our operator where that is faster; shapes and autocast as there."""
    return _convolve(True, input, weight, bias, stride, padding, output_padding)[0]


def conv_transpose2d_moments(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    output_padding: tuple[int, int],
) -> tuple[Tensor, Tensor | None]:
    """`conv_transpose2d`, and means and variances of its result, [2, C], where they are free."""
    return _convolve(True, input, weight, bias, stride, padding, output_padding, summed=True)


def direct_layer(
    transposed: bool,
    input: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    output_padding: tuple[int, int] = (0, 0),
) -> ConvLayer | None:
    """Return our direct convolution of bfloat16 where that is what computes such a layer."""
    if (
        torch.compiler.is_compiling()
        or input.dtype != torch.bfloat16
        or not _can_be_own(input, weight)
        or (transposed and max(output_padding) >= stride)
    ):
        return None
    choice = choose(_case(transposed, input, weight, stride, padding, output_padding))
    if not choice.own or any(choice.winograd):
        return None
    return ConvLayer(transposed, Settings(stride, padding, (0,), Winograd()), output_padding)


class _Operators(NamedTuple):
    stock: Any
    split: Any
    bf16: Any
    moments: Any


_CONV = _Operators(F.conv2d, conv2d_split, conv2d_bf16, conv2d_moments_bf16)
_TRANSPOSE = _Operators(
    F.conv_transpose2d, conv_transpose2d_split, conv_transpose2d_bf16, conv_transpose2d_moments_bf16
)


def _convolve(
    transposed: bool,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    *more: tuple[int, int],
    summed: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return the result, and if `summed` its moments where they are free; `more` pads it."""
    operators = _TRANSPOSE if transposed else _CONV
    given = (weight, bias, stride, padding, *more)
    if not _can_be_own(input, weight) or max(sum(more, ()), default=0) >= stride:
        return operators.stock(input, *given), None
    choice = choose(_case(transposed, input, weight, stride, padding, *more))
    if not choice.own:
        return operators.stock(input, *given), None
    if _is_split(input):
        return operators.split(input, *given), None
    narrow = input.to(torch.bfloat16)
    if summed and not any(choice.winograd) and not torch.compiler.is_compiling():
        out, moments = operators.moments(narrow, *given)
        return out, moments
    return operators.bf16(narrow, *given, winograd=choice.winograd), None


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


def choose(case: Case) -> Choice:
    """Return who computes a layer of this shape; time all at the first question.

    Inside `torch.compile` nothing can be timed: ours is used, without minimal filtering unless
    `POKEGAN_CONV=winograd`, and not with `POKEGAN_CONV=stock`.
    """
    if mode() not in ("auto", "filtered") or torch.compiler.is_compiling():
        filtered = mode() == "winograd" and case.may_be_filtered
        return Choice(mode() != "stock", Winograd(filtered, filtered, filtered))
    key = (case, torch.get_num_threads())
    known = _known.get(key)
    if known is None:
        text = str(case)
        if text not in _decided:
            ratio, winograd = timed(case, filter=mode() == "filtered")
            _decided[text] = Choice(True, winograd) if ratio >= 1 else Choice(False)
        known = _known[key] = _decided[text]
    return known


def measured() -> dict[str, float]:
    """Return how many times faster ours was than PyTorch's, by shape, as it was measured here."""
    return ratios(filter=mode() == "filtered")


def choices() -> dict[str, str]:
    """Return what was decided in this process, by shape, in words."""
    return {case: str(choice) for case, choice in _decided.items()}


def keep_to(decided: Mapping[str, str | bool]) -> None:
    """Use what another process `decided`: a run that goes on keeps its arithmetic."""
    _decided.update({case: Choice.parse(choice) for case, choice in decided.items()})
    _known.clear()


def mode() -> str:
    """Return `POKEGAN_CONV`, one of `CHOICES`; always stock where ours cannot run."""
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


_split_allowed = False
_known: dict[tuple[Case, int], Choice] = {}
_decided: dict[str, Choice] = {}


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
