"""Processes that a test starts, which do not outlive it."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import AnyStr


@contextlib.contextmanager
def ending(
    process: "subprocess.Popen[AnyStr]",
) -> "Iterator[subprocess.Popen[AnyStr]]":
    """Kill `process` at the end of the block, with all of a group of its own, and wait for it."""
    try:
        yield process
    finally:
        if process.poll() is None:
            if os.name == "posix" and os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        with process:  # closes its pipes, and waits
            pass
