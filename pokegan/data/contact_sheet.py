"""A prepared set at a glance: a grid of its pictures, and a report in words."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pokegan.data.manifest import Manifest, Skipped, by_number
from pokegan.data.names import printable
from pokegan.data.packed import PackedImages
from pokegan.files import atomic_path

MAX_SIDE = 4096

_GAP = 2
_GAP_COLOUR = (128, 128, 128)


def save_contact_sheet(packed: PackedImages, path: Path, count: int = 100, cell: int = 128) -> Path:
    """Save a PNG grid of up to `count` pictures, evenly spaced over the set; returns `path`.

    Pictures larger than `cell` px are reduced to it, and so far further that no side of the sheet
    exceeds 4096 px. Lines of 2 px in grey keep the pictures apart.
    """
    count = max(1, min(count, len(packed)))
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    side = max(1, min(packed.size, cell, (MAX_SIDE - _GAP) // columns - _GAP))
    pitch = side + _GAP
    sheet = Image.new("RGB", (columns * pitch + _GAP, rows * pitch + _GAP), _GAP_COLOUR)
    for place, i in enumerate(np.linspace(0, len(packed) - 1, count).round().astype(int)):
        picture = Image.fromarray(packed.images[i])
        if side != packed.size:
            picture = picture.resize((side, side), Image.Resampling.LANCZOS)
        row, column = divmod(place, columns)
        sheet.paste(picture, (_GAP + column * pitch, _GAP + row * pitch))
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG")
    return path


def report_text(manifest: Manifest, listed: int = 10) -> str:
    """What became of every file, in a few lines; up to `listed` names for each reason.

    Ends without a line break. Names are shown with control characters escaped.
    """
    lines = [
        f"{manifest.found:,} files found in {printable(manifest.source)}, "
        f"{len(manifest.pictures):,} kept at {manifest.size} x {manifest.size} px"
    ]
    if manifest.duplicates:
        kinds = by_number(match.kind for match in manifest.duplicates)
        parts = ", ".join(f"{number:,} {kind}" for kind, number in kinds.items())
        lines.append(f"{len(manifest.duplicates):,} duplicates dropped: {parts}")
    if manifest.skipped:
        lines.append(f"{len(manifest.skipped):,} skipped:")
        lines += _skipped_lines(manifest.skipped, listed)
    return "\n".join(lines)


def _skipped_lines(skipped: Sequence[Skipped], listed: int) -> list[str]:
    lines = []
    for reason, number in by_number(entry.reason for entry in skipped).items():
        names = [printable(entry.name) for entry in skipped if entry.reason == reason]
        more = f", and {number - listed:,} more" if number > listed else ""
        lines.append(f"  {printable(reason)} ({number:,}): {', '.join(names[:listed])}{more}")
    return lines
