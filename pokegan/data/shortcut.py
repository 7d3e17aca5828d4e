"""`pokegan.prepare`: pictures to a packed set in one call."""

from pathlib import Path
from typing import Any

from pokegan.data.options import PrepareOptions
from pokegan.data.packed import PackedImages
from pokegan.data.sources import open_data


def prepare(data: str | Path, size: int = 64, **options: Any) -> PackedImages:
    """Return the pictures of `data` as squares of `size` px, prepared once and then cached.

    Args:
        data: what `pokegan train --data` takes: a folder, an archive, a packed set, or a name.
        size: side of the squares, 8 to 1024 px.
        options: more fields of `PrepareOptions`, such as `fit="crop"`.

    Raises:
        DataError: there are no pictures, or none can be read.
        ConfigError: an option is out of range.
    """
    return open_data(str(data), PrepareOptions(size=size, **options))
