"""Decoders' warnings about files kept back: what is wrong with a file, its error or refusal tells.

`warnings.catch_warnings` puts back the filters that it found. Of two threads that overlap, the one
that came second finds those of the first, and puts them back last: they would stay for good. Here
the first one in sets them, and the last one out puts back what there was.
"""

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Iterator

_DECODERS = r"(PIL|torchvision)\."  # whose code warns
_READ_ONLY = "The given buffer is not writable"  # of PyTorch, about bytes that are only read

_lock = threading.Lock()
_inside = 0
_outside: "warnings.catch_warnings[None] | None" = None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Ignore what decoders warn of meanwhile, in every thread, and nothing else."""
    if getattr(sys.flags, "context_aware_warnings", False):  # from Python 3.14 on: one's own alone
        with warnings.catch_warnings():
            _ignore()
            yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


def _begin_anew() -> None:
    """Forget the threads that a forked process does not have."""
    global _lock, _inside, _outside
    _lock, _inside, _outside = threading.Lock(), 0, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def _ignore() -> None:
    warnings.filterwarnings("ignore", module=_DECODERS)
    warnings.filterwarnings("ignore", message=_READ_ONLY)


def _enter() -> None:
    global _inside, _outside
    with _lock:
        if _inside == 0:
            _outside = warnings.catch_warnings()
            _outside.__enter__()
            _ignore()
        _inside += 1


def _leave() -> None:
    global _inside, _outside
    with _lock:
        _inside -= 1
        if _inside == 0 and _outside is not None:
            _outside.__exit__(None, None, None)
            _outside = None
