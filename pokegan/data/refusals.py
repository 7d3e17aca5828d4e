"""Why a picture file is left out: one exception, and the form of its reasons.

A reason is `category` or `category: detail`. Reports count by category.
"""

from pokegan.errors import DataError


class DecodeError(DataError):
    """A picture file cannot be read; the message is the reason."""


def category(reason: str) -> str:
    """The part of a reason that files with the same trouble share."""
    return reason.partition(":")[0]
