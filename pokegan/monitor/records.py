"""A file of records, one JSON object a line, complete after every line.

The file is strict JSON: a value that is not finite is null. Every record has an integer `step`.
"""

import json
import math
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pokegan.errors import DataError
from pokegan.files import write_bytes

DIGITS = 7  # significant ones; float32 carries no more

_Writer = TypeVar("_Writer", bound="RecordWriter")


class RecordWriter:
    """Appends records to a file; each is on disk's side of this process once written."""

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        """Open `path` for appending, its folder made when missing.

        Args:
            path: the file.
            resume_step: the step that training goes on from. Records after it, and a last line cut
                short, are removed first, atomically. None starts an empty file in place of any
                old one.

        Raises:
            DataError: a line of the old file, other than the last, is not a record.
        """
        kept = b"" if resume_step is None else _until(path, resume_step)
        write_bytes(path, kept)
        self._file = path.open("ab")

    def append(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one record: `step`, then `values`, which `plain` has made fit for strict JSON."""
        self._file.write(json.dumps({"step": step, **values}, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; nothing can be written after."""
        self._file.close()

    def __enter__(self: _Writer) -> _Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file, in order; also of a run that is still writing.

    A last line cut short by a crash is left out; a missing file has no records.

    Raises:
        DataError: another line is not a record.
    """
    return [record for _, record in _lines(path)]


def plain(key: str, value: object) -> float | str | bool | None:
    """Return `value` as strict JSON has it, floats to 7 significant digits; numpy's included.

    Raises:
        TypeError: it is not a number, text, truth value or None (a tensor is not); names `key`.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return float(f"{number:.{DIGITS}g}") if math.isfinite(number) else None
    raise TypeError(f"{key} is a {type(value).__name__}, not a number or text")


def _until(path: Path, step: int) -> bytes:
    """Return the lines of `path` whose step is at most `step`, as they stand in the file."""
    return b"".join(line + b"\n" for line, record in _lines(path) if record["step"] <= step)


def _lines(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Return each line of `path`, without its end, with the record it holds."""
    raw = path.read_bytes().split(b"\n") if path.exists() else []
    found = []
    for number, line in enumerate(raw, start=1):
        record = _record(line)
        if record is not None:
            found.append((line, record))
        elif number < len(raw):
            raise DataError(f"{path}, line {number} is not a record of a run: remove that line")
    return found


def _record(line: bytes) -> dict[str, Any] | None:
    """Return the record in `line`, or None when it holds none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(record, dict) and isinstance(record.get("step"), int)
    return record if whole else None
