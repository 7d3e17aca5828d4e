"""The flags that decide which pictures are kept: for `data prepare` and `data inspect`.

Their names, ranges and words are those of `train`, which takes them from the run's config.
"""

import argparse
from typing import Any

from pokegan.config import FILTERS, DataConfig, settings


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each filter; one that is not given is None."""
    for entry in settings():
        part, name = entry.path.split(".")
        if part != "data" or name not in FILTERS:
            continue
        text = entry.metadata["help"]
        if entry.kind is bool:
            parser.add_argument(entry.flag, dest=name, action="store_true", default=None, help=text)
            continue
        default = getattr(DataConfig, name)
        shown = entry.metadata["unset"] or f"{default:g} {entry.metadata['unit']}".strip()
        parser.add_argument(
            entry.flag,
            dest=name,
            type=entry.kind,
            metavar={int: "N", float: "X"}[entry.kind],
            help=f"{text} (default: {shown})",
        )


def given_filters(args: argparse.Namespace) -> dict[str, Any]:
    """The filters that were given, by their names in `PrepareOptions`.

    Raises ConfigError, which names the flag, for a value out of range.
    """
    given = {name: getattr(args, name) for name in FILTERS}
    for entry in settings():
        value = given.get(entry.path.removeprefix("data."))
        if value is not None:
            entry.check(value)
    return {name: value for name, value in given.items() if value is not None}
