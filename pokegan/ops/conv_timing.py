"""How fast our convolution is against PyTorch's, for one shape: measured once, kept in a file.

A measurement holds for a processor, its units, a count of threads, and the versions of torch and
of the operators; the file in the cache folder says which.
"""

import contextlib
import functools
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pokegan.files import write_text
from pokegan.ops.conv import PARTS, conv_units
from pokegan.ops.conv_gradients import Winograd

_FILE = "convolutions.json"
_FILTERED = ", filtered"  # behind a shape that was timed with minimal filtering, too
_OPERATORS = "7"  # to be raised when one of ours becomes faster or slower
_ROUNDS = 5
_MOST_PAIRS = 512 * 512  # of channels; such layers have few tiles, and their weights fill no cache
_WORTH = 1.05  # times faster, for which minimal filtering may round once more
_CLEAR = 1.5  # times faster: no further round is needed


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


def timed(case: Case, filter: bool) -> tuple[float, Winograd]:
    """Return what `measure` said of this case, in this process or one before it on this machine."""
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
    return recalled


def ratios(filter: bool) -> dict[str, float]:
    """Return how many times faster ours was than PyTorch's, by shape, as the file has it.

    Of a shape that was timed both with minimal filtering and without, the one that `filter` says.
    """
    cached = _cached()
    if filter:
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
