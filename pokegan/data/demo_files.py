"""The demo creatures as picture files: something to open, and a folder to try commands on."""

from pathlib import Path

from PIL import Image

from pokegan.data.creatures import draw_creature
from pokegan.data.entries import DrawnEntry
from pokegan.data.prepare import Progress
from pokegan.data.sources import DemoSource
from pokegan.errors import DataError
from pokegan.files import atomic_path


def write_demo(
    out: Path, size: int, count: int, seed: int, progress: Progress | None = None
) -> list[Path]:
    """Write the first `count` creatures of `seed` as RGBA PNG files of `size` px into `out`.

    Files of the same names are replaced. `progress` is called with (files written, `count`).
    Raises DataError for values out of range, and when `out` cannot be written.
    """
    entries = [
        entry for entry in DemoSource(seed, count).entries() if isinstance(entry, DrawnEntry)
    ]
    paths = []
    for entry in entries:
        paths.append(_write(out / f"{entry.name}.png", entry, size))
        if progress:
            progress(len(paths), count)
    return paths


def _write(path: Path, entry: DrawnEntry, size: int) -> Path:
    try:
        picture = Image.fromarray(draw_creature(entry.index, size, entry.seed))
        with atomic_path(path) as temporary:
            picture.save(temporary, "PNG")
    except ValueError as error:
        raise DataError(str(error)) from error
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    return path
