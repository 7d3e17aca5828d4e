"""Pictures in: sources, preparation, the packed format, batch sources and the demo set."""

from pokegan.data.cache import cached
from pokegan.data.contact_sheet import report_text, save_contact_sheet
from pokegan.data.entries import DrawnEntry, Entry, FileEntry, Source
from pokegan.data.manifest import Manifest
from pokegan.data.options import PrepareOptions
from pokegan.data.packed import PackedImages
from pokegan.data.prepare import prepare

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
