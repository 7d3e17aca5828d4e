"""Why a picture file is left out: one exception, and the form of its reasons.

A reason is `category` or `category: detail`. Reports count by category.
"""

from pokegan.errors import DataError

TOO_LONG = "took too long"
OUT_OF_MEMORY = "out of memory"
CRASHED = "crashed the decoder"
_PASSING = frozenset({TOO_LONG, OUT_OF_MEMORY, CRASHED})


class DecodeError(DataError):
    """A picture file cannot be read; the message is the reason."""


def category(reason: str) -> str:
    """The part of a reason that files with the same trouble share."""
    return reason.partition(":")[0]


def is_passing(reason: str) -> bool:
    """Whether the same file might be read another time: the machine had a part in the failure."""
    return category(reason) in _PASSING
