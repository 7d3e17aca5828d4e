"""What figures stand on: the device, its own rates, and facts about the machine beside each."""

import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

DEVICE = os.environ.get("POKEGAN_BENCH_DEVICE", "cpu")  # of the steps; operators run on the CPU


def wait() -> None:
    """Let a GPU end what it was given."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def hardware() -> dict[str, str]:
    """Name what was measured on, by which operators, and when."""
    from pokegan.ops import status
    from pokegan.training.hardware import bfloat16_units

    facts = {
        "processor": _processor(),
        "threads": str(torch.get_num_threads()),
        "bfloat16": bfloat16_units() or "none",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    gpu = torch.cuda.is_available()
    if gpu:
        facts["gpu"] = torch.cuda.get_device_name()
        facts["cuda"] = str(torch.version.cuda)
        facts["driver"] = _driver() or "unknown"
    facts["operators"] = status().describe("cuda" if gpu else "cpu")
    facts["date"] = f"{datetime.datetime.now(datetime.timezone.utc):%F}"
    return facts


def ceilings(device: torch.device, side: int = 8192, values: int = 2**30) -> tuple[float, float]:
    """Return what `device` reaches at best: bfloat16 operations, and bytes, a second.

    The first is that of a product of two matrices; the second of a copy, read and written.

    Args:
        device: to measure.
        side: of the matrices, whose values are random: zeros are faster on some GPUs.
        values: of two bytes each, to copy.
    """
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = torch.empty_like(a)
    rate = 2 * side**3 / _median(lambda: torch.mm(a, b, out=product), device)
    source = torch.randn(values // 2, device=device).view(torch.bfloat16)
    target = torch.empty_like(source)
    moved = 2 * source.numel() * source.element_size()
    return rate, moved / _median(lambda: target.copy_(source), device)


def _median(call: Callable[[], object], device: torch.device) -> float:
    """Return the median seconds of a call, each waited for; the first three do not count."""
    seconds = []
    for _ in range(13):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[3:])


def _driver() -> str:
    try:
        import pynvml

        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetDriverVersion()
    except Exception:  # there is no library, or it finds no driver
        return ""
    return version.decode() if isinstance(version, bytes) else str(version)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()
