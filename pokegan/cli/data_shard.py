"""`pokegan data shard`: any pictures as WebDataset tars with an index for DALI."""

import argparse
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from pokegan.cli.workers import add_workers

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Command: TypeAlias = Callable[[argparse.Namespace], int]

_EXAMINED = 64  # px, where pictures are stored as they are: what counts as a duplicate there


def add_parser(
    commands: Commands, parents: list[argparse.ArgumentParser], ended: Callable[[Command], Command]
) -> None:
    """Add the command; `ended` makes it clean up when it is terminated."""
    parser = commands.add_parser(
        "shard",
        parents=parents,
        help="write pictures as WebDataset tars",
        description="Write usable, distinct pictures as WebDataset tars, each with an index for "
        "DALI. Stopped in between, the same command goes on from there.",
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="a folder of pictures, a prepared set, shards, an archive, or a collection's name",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", required=True, help="folder of the shards"
    )
    parser.add_argument(
        "--shard-size",
        type=_shard_size,
        default=(0, 64.0),
        metavar="N|MB",
        help="pictures in a shard, as 1000, or their size, as 64MB (default: about 64MB)",
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PX",
        help="store squares of this side, as PNG (default: the files as they are; as PNG those "
        "that a plain decoder would show wrongly)",
    )
    add_workers(parser)
    parser.set_defaults(run=ended(shard))


def shard(args: argparse.Namespace) -> int:
    """Write the shards and say what is in them."""
    from pokegan.cli.progress import bar
    from pokegan.data import PackedImages, PrepareOptions
    from pokegan.data.packed_source import PackedSource
    from pokegan.data.sharding import ShardOptions, shard
    from pokegan.data.sources import resolve

    pictures, megabytes = args.shard_size
    options = ShardOptions(
        PrepareOptions(size=_EXAMINED if args.size is None else args.size),
        squares=args.size is not None,
        pictures=pictures,
        megabytes=megabytes,
    )
    found = resolve(args.data)
    source = PackedSource(found) if isinstance(found, PackedImages) else found
    with bar("examining") as examining, bar("writing") as writing:
        made = shard(source, options, args.out, args.workers, examining, writing)
    manifest = made.manifest
    left_out = [f"{count:,} {reason}" for reason, count in manifest.counts.items()][1:]
    size = sum(length for _, length, _ in manifest.shards)
    print(f"{len(made):,} pictures in {len(manifest.shards):,} shards, {size / 1e6:,.1f} MB")
    if left_out:
        print(f"left out: {', '.join(left_out)} (every file is listed in shards.json)")
    print(f"next           pokegan train --data {shlex.quote(str(args.out))}")
    return 0


def _shard_size(text: str) -> tuple[int, float]:
    """`(pictures, megabytes)`, one of them 0."""
    match = re.fullmatch(r"([0-9]+)|([0-9]+(?:\.[0-9]+)?) ?MB", text)
    if match is None or not float(match[1] or match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is neither pictures, as 1000, nor MB, as 64MB")
    return (int(match[1]), 64.0) if match[1] else (0, float(match[2]))
