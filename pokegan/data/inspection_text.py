"""The figures of an inspection in words: what a person reads first, a line each."""

from collections.abc import Sequence
from typing import Any

from pokegan.data.contact_sheet import report_text
from pokegan.data.names import printable
from pokegan.data.packed import PackedImages

_GROUPS = 3  # of duplicates, as examples: the manifest and --json have them all
_UNITS = {"foreground": "{:.1%}", "saturation": "{:.2f}"}  # of measures; the others are in levels


def inspection_text(found: dict[str, Any], images: PackedImages, listed: int) -> str:
    """Lines about `found`, what `Inspection.to_json` gives, with up to `listed` names a list."""
    colour, border, shown = found["colour"], found["border"], found["foreground"]
    spread = ", ".join(f"{level:.0f}" for level in colour["spread"])
    lines = [report_text(images.manifest, listed), *_groups(found["duplicates"], listed)]
    lines += [
        "",
        f"set         {printable(found['path'])}: {images.nbytes / 1e6:,.1f} MB",
        f"originals   {_originals(found['originals'], found['size'])}",
        f"colour      mean {_hexadecimal(colour['mean'])}, spread {spread} of 255, "
        f"saturation {colour['saturation']:.2f}",
        f"background  {_hexadecimal(found['background'])}, the border of {border['share']:.1%} of "
        "the pictures",
        *_other_borders(border["other"], listed),
        f"foreground  median {shown['median']:.1%}, nine in ten {shown['p5']:.1%} to "
        f"{shown['p95']:.1%}",
        f"            least {shown['least']:.1%}, {printable(shown['least_name'])}; "
        f"most {shown['most']:.1%}, {printable(shown['most_name'])}",
        *_nearly_empty(found["nearly_empty"], listed),
        *_outliers(found["outliers"], found["count"], listed),
    ]
    return "\n".join(lines)


def _originals(found: dict[str, Any], size: int) -> str:
    formats = ", ".join(f"{number:,} {name}" for name, number in found["formats"].items())
    if not found["known"]:
        return f"{formats}; of no known size in px"
    width, height, aspect = found["width"], found["height"], found["aspect"]
    text = f"{formats}; {_range(width)} px wide, {_range(height)} px high"
    if aspect["most"] > 1:
        text += f", aspect up to {aspect['most']:.3g}"
    if found["enlarged"]:
        text += f"; {found['enlarged']:,} enlarged to {size} px"
    return text


def _range(found: dict[str, float]) -> str:
    if found["least"] == found["most"]:
        return f"{found['least']:.0f}"
    return f"{found['least']:.0f} to {found['most']:.0f} (median {found['median']:.0f})"


def _groups(groups: Sequence[dict[str, Any]], listed: int) -> list[str]:
    lines = []
    listed = min(listed, _GROUPS)
    for group in groups[:listed]:
        dropped = [f"{printable(row['name'])} ({row['kind']})" for row in group["dropped"]]
        lines.append(f"  {printable(group['kept'])}: {_some(dropped, 3)}")
    return lines + _more(len(groups) - listed, "groups")


def _other_borders(names: Sequence[str], listed: int) -> list[str]:
    return [f"            not of {_some(list(map(printable, names)), listed)}"] if names else []


def _nearly_empty(found: dict[str, Any], listed: int) -> list[str]:
    rows = found["pictures"]
    lines = [f"near-empty  {len(rows):,} with under {found['under']:.0%} foreground"]
    for row in rows[:listed]:
        lines.append(
            f"  {printable(row['name'])} (picture {row['index']}): {row['foreground']:.2%}"
        )
    return lines + _more(len(rows) - listed, "pictures")


def _outliers(found: dict[str, Any], count: int, listed: int) -> list[str]:
    rows = found["pictures"]
    if count < found["fewest"]:
        return [f"outliers    not sought among fewer than {found['fewest']} pictures"]
    lines = [f"outliers    {len(rows):,} with a robust score beyond {found['threshold']:g}"]
    for row in rows[:listed]:
        form = _UNITS.get(row["measure"], "{:.0f}")
        value, median = form.format(row["value"]), form.format(row["median"])
        lines.append(
            f"  {printable(row['name'])} (picture {row['index']}): {row['measure']} {value}, "
            f"median {median}, score {row['score']:.1f}"
        )
    return lines + _more(len(rows) - listed, "pictures")


def _more(number: int, what: str) -> list[str]:
    return [f"  and {number:,} more {what}"] if number > 0 else []


def _some(names: Sequence[str], most: int) -> str:
    more = f", and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _hexadecimal(colour: Sequence[float]) -> str:
    return "#" + "".join(f"{round(level):02x}" for level in colour)
