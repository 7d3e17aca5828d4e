"""What loading a file of weights raises where the file is damaged, or of something else."""

import pickle
import struct

UNUSABLE = (
    OSError,
    RuntimeError,  # a broken archive, or weights of other names and shapes
    pickle.UnpicklingError,
    EOFError,
    LookupError,  # KeyError, IndexError: torch's unpickler does not check what it looks up
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)
