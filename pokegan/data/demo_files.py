"""The demo creatures as picture files: something to open, and sets of any size to try things on."""

import secrets
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from pokegan.data.creatures import draw_creature
from pokegan.data.entries import DrawnEntry
from pokegan.data.jobs import in_order
from pokegan.data.options import PrepareOptions
from pokegan.data.preparation import Progress
from pokegan.data.sharding import ShardOptions, shard
from pokegan.data.shards import ShardPictures
from pokegan.data.sources import DemoSource
from pokegan.data.workers import default_workers
from pokegan.errors import DataError
from pokegan.files import sync

_BUNCH = 64


class Drawing(NamedTuple):
    """Creatures to draw as files of `size` px below `out`; `token` tells unfinished ones."""

    out: Path
    size: int
    entries: Sequence[DrawnEntry]
    token: str


def write_demo(
    out: Path,
    size: int,
    count: int,
    seed: int,
    workers: int | None = 0,
    progress: Progress | None = None,
) -> int:
    """Write the first `count` creatures of `seed` as RGBA PNG files of `size` px; returns `count`.

    They go into `out`, more than 10,000 into folders of 10,000 in it. Files of the same names are
    replaced, each whole, but not synced one by one. `workers` as for `prepare`; `progress` is
    called with (files written, `count`). Raises DataError and ConfigError for values out of range,
    and DataError when `out` cannot be written.
    """
    PrepareOptions(size)  # refuses what cannot be drawn
    entries = [
        entry for entry in DemoSource(seed, count).entries() if isinstance(entry, DrawnEntry)
    ]
    workers = default_workers(count) if workers is None else workers
    rest = iter(entries)
    bunches = iter(lambda: tuple(islice(rest, _BUNCH)), ())
    folders = sorted({(out / entry.name).parent for entry in entries[::_BUNCH]})
    token = secrets.token_hex(6)
    done = 0
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        with closing(
            in_order(draw, (Drawing(out, size, bunch, token) for bunch in bunches), workers)
        ) as drawn:
            for number in drawn:
                done += number
                if progress:
                    progress(done, count)
        for folder in folders:
            sync(folder)
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        if done < count:
            _remove_unfinished(folders, token)
    return done


def write_demo_shards(
    out: Path,
    size: int,
    count: int,
    seed: int,
    workers: int | None = 0,
    progress: Progress | None = None,
) -> ShardPictures:
    """The same creatures, on white, straight into shards of `size` px; see `sharding.shard`."""
    options = ShardOptions(PrepareOptions(size), squares=True)
    return shard(DemoSource(seed, count), options, out, workers, examining=progress)


def draw(drawing: Drawing) -> int:
    """Draw a bunch of creatures; returns their number."""
    for entry in drawing.entries:
        path = drawing.out / f"{entry.name}.png"
        picture = Image.fromarray(draw_creature(entry.index, drawing.size, entry.seed))
        temporary = path.with_name(f".{path.stem}-{drawing.token}.part")
        try:
            picture.save(temporary, "PNG")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return len(drawing.entries)


def _remove_unfinished(folders: Sequence[Path], token: str) -> None:
    """Remove what worker processes that were stopped have left."""
    for folder in folders:
        for path in folder.glob(f".*-{token}.part"):
            path.unlink(missing_ok=True)
