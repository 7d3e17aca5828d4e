"""The manifest of a packed set: what is in it, from what files, and what was left out and why."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, get_type_hints

from pokegan.data.options import RGB
from pokegan.data.refusals import category
from pokegan.errors import DataError

FORMAT = "pokegan-packed"
VERSION = 2
READABLE = (1, 2)  # version 1 did not say what the pictures were before

Row = TypeVar("Row", bound=NamedTuple)


class Picture(NamedTuple):
    """A picture of the set; its position is its row in `images.u8`.

    `format`, `width` and `height` are those of `filters.Original`; None where they are not known.
    """

    name: str
    sha256: str
    format: str | None = None
    width: int | None = None
    height: int | None = None


class Duplicate(NamedTuple):
    """A readable picture that was dropped: it shows what the picture `kept` shows."""

    name: str
    sha256: str
    kept: str
    kind: str


class Skipped(NamedTuple):
    """A file that could not be used; `sha256` is None where it was not read."""

    name: str
    sha256: str | None
    reason: str


@dataclass(frozen=True)
class Manifest:
    """Everything known about a packed set but its pixels.

    Attributes:
        source: name of where the pictures came from.
        size: side of the pictures in px.
        background: the colour around and under them.
        options: the complete `PrepareOptions`, as JSON values.
        pictures: of the set, in order.
        duplicates: readable pictures that were dropped.
        skipped: files that could not be used.
        checksum: BLAKE2b, 128 bits, of `images.u8`, in hexadecimal.
        created: UTC time, ISO 8601.
        tools: versions of the programs that read the pictures.
        origin: digest of the source's `origin`; empty where it is not known.
    """

    source: str
    size: int
    background: RGB
    options: dict[str, Any]
    pictures: tuple[Picture, ...]
    duplicates: tuple[Duplicate, ...]
    skipped: tuple[Skipped, ...]
    checksum: str
    created: str
    tools: dict[str, str]
    origin: str = ""

    @property
    def found(self) -> int:
        """The number of files that were looked at."""
        return len(self.pictures) + len(self.duplicates) + len(self.skipped)

    def hashes(self) -> dict[str, str | None]:
        """The SHA-256 of every file that was looked at, by name; None where it was not read."""
        known: dict[str, str | None] = {row.name: row.sha256 for row in self.pictures}
        known.update((row.name, row.sha256) for row in self.duplicates)
        known.update((row.name, row.sha256) for row in self.skipped)
        return known

    def counts(self) -> dict[str, int]:
        """How many files were kept, and were not, by reason; the largest first after `kept`."""
        reasons = [match.kind for match in self.duplicates]
        reasons += [category(skipped.reason) for skipped in self.skipped]
        return {"kept": len(self.pictures), **by_number(reasons)}

    def to_json(self) -> str:
        """The manifest as readable JSON in plain ASCII, one line a file."""
        head = {
            "format": FORMAT,
            "version": VERSION,
            "count": len(self.pictures),
            "size": self.size,
            "background": list(self.background),
            "layout": "uint8 [count, size, size, 3], RGB, C order",
            "checksum": self.checksum,
            "source": self.source,
            "origin": self.origin,
            "created": self.created,
            "tools": self.tools,
            "options": self.options,
            "counts": self.counts(),
        }
        lines = [f'"{key}": {json.dumps(value)}' for key, value in head.items()]
        lines += [
            f'"pictures": {_rows_to_json(self.pictures)}',
            f'"duplicates": {_rows_to_json(self.duplicates)}',
            f'"skipped": {_rows_to_json(self.skipped)}',
        ]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read a manifest back. Raises DataError for another format, version or damage."""
        try:
            values = json.loads(text)
            _check_format(values)
            manifest = cls(
                source=_text(values["source"]),
                size=int(values["size"]),
                background=_colour(values["background"]),
                options=dict(values["options"]),
                pictures=_rows(Picture, values["pictures"]),
                duplicates=_rows(Duplicate, values["duplicates"]),
                skipped=_rows(Skipped, values["skipped"]),
                checksum=_text(values["checksum"]),
                created=_text(values["created"]),
                tools=dict(values["tools"]),
                origin=_text(values.get("origin", "")),
            )
            if values["count"] != len(manifest.pictures):
                raise ValueError("the count is not the number of pictures")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DataError(f"the manifest is damaged: {error}") from error
        return manifest


def origin_digest(origin: str) -> str:
    """What a manifest keeps of where its pictures came from: no path, for sets are passed on."""
    return hashlib.blake2b(origin.encode(), digest_size=8).hexdigest()


def by_number(reasons: Iterable[str]) -> dict[str, int]:
    """How often each reason occurs, the most frequent first, equals in order of the alphabet."""
    counted = Counter(reasons).items()
    return dict(sorted(counted, key=lambda item: (-item[1], item[0])))


def _rows(kind: Callable[..., Row], rows: list[dict[str, Any]]) -> tuple[Row, ...]:
    """Rows of the manifest from JSON; ValueError where a value is of another type than it says."""
    hints = get_type_hints(kind)
    if not all(isinstance(value, hints[key]) for row in rows for key, value in row.items()):
        raise ValueError("a row holds a value of another type")
    return tuple(kind(**row) for row in rows)


def _rows_to_json(rows: Iterable[Picture | Duplicate | Skipped]) -> str:
    lines = [json.dumps(row._asdict()) for row in rows]
    return "[\n " + ",\n ".join(lines) + "\n]" if lines else "[]"


def _check_format(values: Any) -> None:
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise DataError("not the manifest of a packed set")
    if values.get("version") not in READABLE:
        raise DataError(
            f"a packed set of version {values.get('version')}, this pokegan reads versions "
            f"{READABLE[0]} to {READABLE[-1]}: prepare the pictures again"
        )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} should be a text")
    return value


def _colour(value: Any) -> RGB:
    red, green, blue = value
    return int(red), int(green), int(blue)
