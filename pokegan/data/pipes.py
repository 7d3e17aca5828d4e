"""Values between a process and its child, over the child's standard streams."""

import os
import pickle
from typing import IO


def send(pipe: IO[bytes] | None, value: object) -> None:
    """Write one value to a pipe."""
    assert pipe is not None
    pickle.dump(value, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def receive(pipe: IO[bytes] | None) -> object:
    """Read one value from a pipe."""
    assert pipe is not None
    return pickle.load(pipe)


def private_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Standard input and output for our own use; what a library prints goes to standard error."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return requests, answers
