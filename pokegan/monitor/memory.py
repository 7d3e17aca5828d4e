"""The most memory that this process has held, on the host and on its GPU."""

import re
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_memory_bytes() -> int:
    """Return the largest resident size of this process so far, in bytes.

    Linux tells it of this program alone. `getrusage`, asked elsewhere, may after an exec still
    remember the program that started this one.
    """
    return _high_water_mark() or _largest_resident_set()


def peak_gpu_memory_bytes() -> int | None:
    """Return the most that torch has reserved on the current GPU so far, in bytes.

    None when CUDA is not in use; neither torch nor CUDA is started to find out.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_reserved())


def _high_water_mark() -> int | None:
    """Return VmHWM of Linux in bytes, or None where it is not told."""
    try:
        status = _STATUS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _largest_resident_set() -> int:
    """Return `ru_maxrss` in bytes: macOS counts bytes, the others KiB."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
