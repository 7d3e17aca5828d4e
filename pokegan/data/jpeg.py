"""What decoders do not ask about a JPEG: how many scans it has.

Each scan of a progressive JPEG is a pass over all blocks, whether it brings anything or not: in a
small file there is room for hours of work (libjpeg-turbo, `djpeg -maxscans`).
"""

import re

MAX_SCANS = 100  # encoders write 10; one scan a component and bit of precision would be 40

_MARKER = re.compile(rb"\xff+([^\0\xd0-\xd7\xff])")  # stuffing and restarts are none
_ALONE = frozenset((0x01, 0xD8))  # markers without a length
_START_OF_SCAN, _END = 0xDA, 0xD9


def has_too_many_scans(content: bytes) -> bool:
    """Whether there are more than `MAX_SCANS` scans before the end of the picture."""
    scans = 0
    found = _MARKER.search(content)
    while found and found[1][0] != _END:
        place = found.end()
        scans += found[1][0] == _START_OF_SCAN
        if scans > MAX_SCANS:
            return True
        if found[1][0] not in _ALONE:
            place += int.from_bytes(content[place : place + 2], "big")
        found = _MARKER.search(content, place)
    return False
