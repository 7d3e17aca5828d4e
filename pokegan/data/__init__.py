"""Pictures in: sources, preparation, the packed format, batch sources and the demo set.

The names below load their modules on first use: a worker process needs few of them.
"""

import importlib
from typing import TYPE_CHECKING, Any

_LAZY = {
    "DrawnEntry": "pokegan.data.entries",
    "Entry": "pokegan.data.entries",
    "FileEntry": "pokegan.data.entries",
    "Manifest": "pokegan.data.manifest",
    "PackedImages": "pokegan.data.packed",
    "PrepareOptions": "pokegan.data.options",
    "Source": "pokegan.data.entries",
    "cached": "pokegan.data.cache",
    "prepare": "pokegan.data.preparation",
    "report_text": "pokegan.data.contact_sheet",
    "save_contact_sheet": "pokegan.data.contact_sheet",
}

__all__ = [
    "DrawnEntry",
    "Entry",
    "FileEntry",
    "Manifest",
    "PackedImages",
    "PrepareOptions",
    "Source",
    "cached",
    "prepare",
    "report_text",
    "save_contact_sheet",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'pokegan.data' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__


if TYPE_CHECKING:
    from pokegan.data.cache import cached
    from pokegan.data.contact_sheet import report_text, save_contact_sheet
    from pokegan.data.entries import DrawnEntry, Entry, FileEntry, Source
    from pokegan.data.manifest import Manifest
    from pokegan.data.options import PrepareOptions
    from pokegan.data.packed import PackedImages
    from pokegan.data.preparation import prepare
