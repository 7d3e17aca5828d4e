"""A prepared set at a glance: a grid of its pictures, and a report in words."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pokegan.data.manifest import Manifest, Skipped, by_number
from pokegan.data.names import printable
from pokegan.data.options import RGB
from pokegan.data.packed import PackedImages
from pokegan.data.refusals import category
from pokegan.errors import DataError
from pokegan.files import atomic_path

MAX_SIDE = 4096

_GAP = 2
_MARKED_GAP = 8
_FRAME = 3
_WAYS = 8  # distinct reasons of a category, each with a line of its own
_GAP_COLOUR = (128, 128, 128)


def save_contact_sheet(
    packed: PackedImages,
    path: Path,
    count: int = 100,
    cell: int = 128,
    marks: Mapping[int, RGB] | None = None,
) -> Path:
    """Save a PNG grid of up to `count` pictures, evenly spaced over the set; returns `path`.

    Pictures larger than `cell` px are reduced to it, and so far further that no side of the sheet
    exceeds 4096 px. Lines of 2 px in grey keep the pictures apart. The pictures of `marks` have a
    frame of a colour and their index in the set; the first of them take up to half of the places.

    Raises DataError when `path` cannot be written.
    """
    marks = marks or {}
    count = max(1, min(count, len(packed)))
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    gap = _MARKED_GAP if marks else _GAP
    side = max(1, min(packed.size, cell, (MAX_SIDE - gap) // columns - gap))
    pitch = side + gap
    sheet = Image.new("RGB", (columns * pitch + gap, rows * pitch + gap), _GAP_COLOUR)
    for place, i in enumerate(_shown(len(packed), count, list(marks))):
        picture = Image.fromarray(packed.images[i])
        if side != packed.size:
            picture = picture.resize((side, side), Image.Resampling.LANCZOS)
        row, column = divmod(place, columns)
        corner = gap + column * pitch, gap + row * pitch
        sheet.paste(picture, corner)
        if i in marks:
            _mark(sheet, corner, side, marks[i], i)
    try:
        with atomic_path(path) as temporary:
            sheet.save(temporary, "PNG")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def _shown(total: int, count: int, marked: Sequence[int]) -> list[int]:
    """Which pictures a sheet shows, ascending: the first of `marked`, others evenly spaced."""
    first = set(marked[: max(1, count // 2)])
    others = [i for i in range(total) if i not in first]
    places = np.linspace(0, len(others) - 1, min(count - len(first), len(others)))
    return sorted([*first, *(others[place] for place in places.round().astype(int))])


def _mark(sheet: Image.Image, corner: tuple[int, int], side: int, colour: RGB, i: int) -> None:
    """A frame in the gap around a picture, and its number over a corner of it."""
    left, top = corner
    draw = ImageDraw.Draw(sheet)
    end = (left + side + _FRAME - 1, top + side + _FRAME - 1)
    draw.rectangle(((left - _FRAME, top - _FRAME), end), outline=colour, width=_FRAME)
    box = draw.textbbox((left, top), str(i))
    draw.rectangle(((left, top), (box[2] + 2, box[3] + 2)), fill=colour)
    draw.text((left + 1, top), str(i), fill=(255, 255, 255))


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
    """A line a reason; the reasons of a category that has many of them share one."""
    ways = Counter(category(reason) for reason in {entry.reason for entry in skipped})
    names: dict[str, list[str]] = {}
    for entry in skipped:
        kind = category(entry.reason)
        shared = f"{kind} in {ways[kind]:,} ways"
        names.setdefault(shared if ways[kind] > _WAYS else entry.reason, []).append(entry.name)
    lines = []
    for reason in sorted(names, key=lambda reason: (-len(names[reason]), reason)):
        number = len(names[reason])
        more = f", and {number - listed:,} more" if number > listed else ""
        shown = ", ".join(map(printable, names[reason][:listed]))
        lines.append(f"  {printable(reason)} ({number:,}): {shown}{more}")
    return lines
