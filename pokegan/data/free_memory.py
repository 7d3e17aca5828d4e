"""How much memory is free for pictures, on a GPU or in this computer."""

import contextlib
import os
from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int:
    """Return what `device` has free, in bytes.

    On a GPU that is what the driver has, and what torch keeps of it unused. On the CPU it is what
    Linux calls available, or less where a control group (version 2), such as a container's, allows
    less; elsewhere half of what is built in.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return min(_available(_MEMINFO), *_group_room(_GROUP, _GROUPS))


def _available(meminfo: Path) -> int:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = meminfo.read_text(encoding="ascii").splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _group_room(membership: Path, groups: Path) -> list[int]:
    """What this process's control group and those above it have left, in bytes; at least one."""
    room = [2**63]
    with contextlib.suppress(OSError, StopIteration):
        lines = membership.read_text(encoding="utf-8").splitlines()
        name = next(line for line in lines if line.startswith("0::"))[len("0::") :]
        group = groups / name.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(groups):
                with contextlib.suppress(OSError, ValueError, StopIteration):  # no limit here
                    room.append(_room(folder))
    return room


def _room(group: Path) -> int:
    """The limit less what is in use and cannot be given up."""
    limit = int((group / "memory.max").read_text(encoding="ascii"))
    used = int((group / "memory.current").read_text(encoding="ascii"))
    statistics = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    cached = next(line for line in statistics if line.startswith("inactive_file "))
    return max(0, limit - used + int(cached.split()[1]))
