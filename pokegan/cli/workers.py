"""The flag that says how many processes prepare pictures: the same of every `data` command."""

import argparse


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add `--workers`; None when it is not given."""
    parser.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help="processes; 0: none beside this one (default: one per processor)",
    )


def _workers(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)
