"""The convolution that a layer uses: ours or PyTorch's, whichever is faster for its shape.

Ours needs a processor with AMX or AVX512-BF16 and arithmetic in bfloat16; or in float32, with AMX,
where `split_products` allows it. Where it can be used, both are timed once for each shape and count
of threads, forward and backward; the outcome is kept in the cache folder and in checkpoints, so
that a run that is continued uses what it has used before. `POKEGAN_CONV` steers it: `own`,
`winograd` and `stock` decide without timing, `filtered` times minimal filtering (`Winograd`), too.
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
from pokegan.ops.conv_gradients import Winograd

CHOICES = ("auto", "filtered", "own", "winograd", "stock")
_FILE = "convolutions.json"
_FILTERED = ", filtered"  # behind a shape that was timed with minimal filtering, too
_OPERATORS = "7"  # to be raised when one of ours becomes faster or slower
_ROUNDS = 5
_MOST_PAIRS = 512 * 512  # of channels; such layers have few tiles, and their weights fill no cache
_WORTH = 1.05  # times faster, for which minimal filtering may round once more
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

    @property
    def may_be_filtered(self) -> bool:
        """Whether minimal filtering is possible, with so few weights that it may be faster."""
        sides = (self.kernel_height, self.kernel_width, self.stride)
        ends = (self.inputs, self.outputs)
        known = sides in ((4, 4, 2), (4, 4, 1), (3, 3, 1))
        return known and min(ends) >= 32 and ends[0] * ends[1] <= _MOST_PAIRS and not self.split

    def __str__(self) -> str:
        """One line, the key in the cache."""
        name = ("conv_transpose2d" if self.transposed else "conv2d") + "_split" * self.split
        more = "" if self.output_padding == (0, 0) else f" output_padding {self.output_padding}"
        return (
            f"{name} {self.batch}x{self.inputs}x{self.height}x{self.width} to {self.outputs}, "
            f"kernel {self.kernel_height}x{self.kernel_width} stride {self.stride} "
            f"padding {self.padding}{more}, {torch.get_num_threads()} threads"
        )


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
    if _can_be_own(input, weight):
        choice = choose(_case(False, input, weight, stride, padding))
        if choice.own and _is_split(input):
            return conv2d_split(input, weight, bias, stride, padding)
        if choice.own:
            narrow = input.to(torch.bfloat16)
            return conv2d_bf16(narrow, weight, bias, stride, padding, winograd=choice.winograd)
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
    numbers = (stride, padding, output_padding)
    if _can_be_own(input, weight) and max(output_padding) < stride:
        choice = choose(_case(True, input, weight, *numbers))
        if choice.own and _is_split(input):
            return conv_transpose2d_split(input, weight, bias, *numbers)
        if choice.own:
            narrow = input.to(torch.bfloat16)
            return conv_transpose2d_bf16(narrow, weight, bias, *numbers, winograd=choice.winograd)
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
            _decided[text] = _recall_or_measure(case)
        known = _known[key] = _decided[text]
    return known


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


def measured() -> dict[str, float]:
    """Return how many times faster ours was than PyTorch's, by shape, as the cache has it."""
    cached = _cached()
    if mode() == "filtered":
        kept = [case for case in cached if case + _FILTERED not in cached]
    else:
        kept = [case for case in cached if not case.endswith(_FILTERED)]
    return {case.removesuffix(_FILTERED): cached[case][0] for case in kept}


def measure(case: Case, filter: bool = True) -> tuple[float, Winograd]:
    """Return how many times faster ours is than PyTorch's, forward and both gradients.

    And which of the three were faster by minimal filtering, which ours was timed with. Without
    `filter` that is not tried.
    """
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        direct, filtered, stock = _contenders(case)
        ways = [False] * len(direct)
        if filter and case.may_be_filtered:
            pairs = zip(direct, filtered, strict=True)
            ways = [_times_faster(new, old) > _WORTH for old, new in pairs]
        operators = zip(direct, filtered, ways, strict=True)
        chosen = [new if used else old for old, new, used in operators]

        def ours() -> None:
            for operator in chosen:
                operator()

        return _times_faster(ours, stock), Winograd(*ways)


def _times_faster(one: Callable[[], object], other: Callable[[], object]) -> float:
    """Return how many times faster `one` is than `other`: the best of some rounds in turns."""
    _seconds(one), _seconds(other)
    best = best_of_other = float("inf")
    ratio = 1.0
    for _ in range(_ROUNDS):
        best = min(best, _seconds(one))
        best_of_other = min(best_of_other, _seconds(other))
        ratio = best_of_other / best
        if not 1 / _CLEAR < ratio < _CLEAR:
            break
    return ratio


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


def _recall_or_measure(case: Case) -> Choice:
    """Return what the cache has; measure it and keep it if it has nothing."""
    filter = mode() == "filtered"
    key = f"{case}{_FILTERED}" if filter and case.may_be_filtered else str(case)
    recalled = _cached().get(key)
    if recalled is None:
        ratio, winograd = measure(case, filter)
        recalled = _cached().get(key, (round(ratio, 3), winograd))  # another may have been first
        cached = _cached() | {key: recalled}
        content = {
            "made_on": _made_on(),
            "faster": {case: ratio for case, (ratio, _) in sorted(cached.items())},
            "winograd": {case: list(ways) for case, (_, ways) in sorted(cached.items())},
        }
        with contextlib.suppress(OSError):  # then it is measured again in the next process
            write_text(_path(), json.dumps(content, indent=1) + "\n")
    ratio, winograd = recalled
    return Choice(True, winograd) if ratio >= 1 else Choice(False)


def _cached() -> dict[str, tuple[float, Winograd]]:
    """Return how many times faster ours was, and by which operators, by shape."""
    try:
        stored = json.loads(_path().read_text(encoding="utf-8"))
        if stored["made_on"] != _made_on():
            return {}
        return {
            str(case): (float(ratio), Winograd(*map(bool, stored["winograd"][case])))
            for case, ratio in stored["faster"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


Operator = Callable[[], object]


def _contenders(case: Case) -> tuple[list[Operator], list[Operator], Operator]:
    """Our convolution and its gradients, these by minimal filtering, and PyTorch's, all in one.

    In the order of `Winograd`; on ones, which need no random numbers.
    """
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

    def ours(**how: bool) -> list[Operator]:
        dtypes = last or (torch.float32,)
        return [
            lambda: convolve(large, weight, None, *numbers, *last, **how),
            lambda: transpose(small, weight, None, *numbers, more, *last, **how),
            lambda: to_weight(large, small, kernel, *numbers, *dtypes, **how),
        ]

    stride, padding = [case.stride] * 2, [case.padding] * 2

    def stock() -> None:
        own = weight.to(dtype)
        shape = (stride, padding, [1, 1], case.transposed, list(case.output_padding), 1)
        torch.ops.aten.convolution(maps, own, None, *shape)
        _, gradient, _ = torch.ops.aten.convolution_backward(
            other, maps, own, None, *shape, [True, True, False]
        )
        gradient.float()

    return ours(), ours(winograd=True), stock


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
