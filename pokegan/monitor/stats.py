"""stats.jsonl: the numbers of a run, one record a log interval.

A record has `step` and flat keys such as `kimg`, `epoch`, `loss/generator`, `score/real`,
`penalty/gradient`, `lr/generator`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pokegan.monitor.records import RecordWriter, plain, read_records


class StatsWriter(RecordWriter):
    """Appends records to a stats.jsonl; each is on disk's side of this process once written."""

    def write(self, step: int, values: Mapping[str, float | str | None]) -> None:
        """Append one record: `step`, then `values`; floats are rounded to 7 significant digits.

        Raises:
            TypeError: a value is not a number, text, truth value or None (a tensor is not).
            ValueError: `values` has a `step` of its own.
        """
        if "step" in values:
            raise ValueError("a record's step is given apart from its values")
        self.append(step, {key: plain(key, value) for key, value in values.items()})


def read_stats(path: Path) -> list[dict[str, Any]]:
    """Return the records of a stats.jsonl, in order; also of a run that is still writing.

    A last line cut short by a crash is left out; a missing file has no records.

    Raises:
        DataError: another line is not a record.
    """
    return read_records(path)
