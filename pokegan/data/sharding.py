"""Any collection of pictures to shards: WebDataset tars with an index for DALI, and a manifest.

First every picture is prepared, as for training: what is unusable or a duplicate goes into no
shard. Then processes write the shards, each complete or not there. A killed run leaves its notes in
`.making`; the same call takes up where it ended and gives the same bytes.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from pokegan.data import packed
from pokegan.data.entries import DrawnEntry, Entry, PieceEntry, Source
from pokegan.data.jobs import in_order
from pokegan.data.manifest import Manifest, origin_digest
from pokegan.data.options import PrepareOptions
from pokegan.data.plain import normalised, plainly_encoded
from pokegan.data.preparation import Progress, pack
from pokegan.data.refusals import DecodeError
from pokegan.data.shard_manifest import FILE, read_manifest, write_manifest
from pokegan.data.shards import MAKING, ShardPictures, is_shards
from pokegan.data.sniff import sniff
from pokegan.data.square import drawn_identity, read_ahead, read_file
from pokegan.data.tar_shard import Shard, find_shard, shard_name, write_shard
from pokegan.data.workers import default_workers
from pokegan.errors import ConfigError, DataError
from pokegan.files import write_text

MEGABYTE = 10**6

_JOB = "job.json"
_SET = "set"
_SAMPLE = 128  # pictures that tell how many make a megabyte
_AHEAD = 8  # files that a disk is asked for at a time
_DRAWN_SIDE = 256
_EXTENSIONS = {"PNG": "png", "JPEG": "jpg"}


@dataclass(frozen=True)
class ShardOptions:
    """Choices of `shard`.

    Attributes:
        prepare: what is usable and what a duplicate, judged on squares of `prepare.size` px.
        squares: store these squares, as PNG; else each file as it is where any decoder shows it
            rightly, and as a PNG of its pixels where not.
        pictures: in a shard; 0: as many as come to about `megabytes`.
        megabytes: of a shard, where `pictures` is 0.

    Raises ConfigError for values out of range.
    """

    prepare: PrepareOptions
    squares: bool = False
    pictures: int = 0
    megabytes: float = 64.0

    def __post_init__(self) -> None:
        if self.pictures < 0 or self.megabytes <= 0:
            raise ConfigError("--shard-size must be above 0 pictures or MB")


def shard(
    source: Source,
    options: ShardOptions,
    out: Path,
    workers: int | None = None,
    examining: Progress | None = None,
    writing: Progress | None = None,
) -> ShardPictures:
    """Write the usable, distinct pictures of `source` as shards into the folder `out`.

    The order is that of the source, every shard but the last holds as many pictures as the first,
    and the bytes depend on the pictures and the options alone. A complete folder of the same job is
    left as it is; a killed one is completed. `workers` as for `prepare`. `examining` and `writing`
    are called with (pictures done, pictures in all).

    Raises DataError when no picture is usable, a file changes meanwhile, `out` cannot be written,
    holds other files or shards of another job, or is being written by another process.
    """
    out = Path(out)
    entries = source.entries()
    workers = default_workers(len(entries)) if workers is None else workers
    job = _job(source, entries, options)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _locked(out):
            if not _is_complete(out, job):
                _begin(out, job)
                prepared = _examine(source, entries, options, out, workers, examining)
                contents = _contents(entries, prepared, options, out)
                shards = list(_write(out, contents, options, workers, writing))
                write_manifest(out / FILE, job, shards, prepared)
            shutil.rmtree(out / MAKING, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"cannot write {out}: {error.strerror or error}; what is complete stays, the same "
            "command goes on from there"
        ) from error
    return ShardPictures(out)


class Content(NamedTuple):
    """What goes into a shard: an entry, the SHA-256 it must have (empty: any), and the limits."""

    entry: Entry
    sha256: str
    max_bytes: int
    max_pixels: int


class _Task(NamedTuple):
    """One shard to write."""

    path: Path
    first: int
    contents: tuple[Content, ...]


def encoded(content: Content) -> bytes:
    """The bytes that a shard holds for a picture: its own, or a PNG file.

    Raises DataError when the file is not the one that was examined.
    """
    entry = content.entry
    if isinstance(entry, DrawnEntry):
        from pokegan.data.creatures import draw_creature

        return _png(Image.fromarray(draw_creature(entry.index, _DRAWN_SIDE, entry.seed)))
    try:
        data = read_file(entry, content.max_bytes)
        if content.sha256 and hashlib.sha256(data).hexdigest() != content.sha256:
            raise DecodeError("it is another file than it was")
        if isinstance(entry, PieceEntry) and entry.side:
            return _png(Image.frombytes("RGB", (entry.side, entry.side), data))
        return data if plainly_encoded(data) else normalised(data, content.max_pixels)
    except DecodeError as error:
        raise DataError(f"{entry.name} changed while shards were made: {error}") from error


def encoded_length(content: Content) -> int:
    """The number of bytes of `encoded`."""
    return len(encoded(content))


def write_task(task: _Task) -> Shard:
    """Write one shard, or read what is known of it where it is there already."""
    found = find_shard(task.path, task.first, len(task.contents))
    if found:
        return found
    contents = _asked_for(task.contents)
    return write_shard(task.path, task.first, map(_with_extension, map(encoded, contents)))


def _asked_for(contents: Sequence[Content]) -> Iterator[Content]:
    for start in range(0, len(contents), _AHEAD):
        piece = contents[start : start + _AHEAD]
        for content in piece:
            read_ahead(content.entry)
        yield from piece


def _with_extension(content: bytes) -> tuple[str, bytes]:
    return _EXTENSIONS[sniff(content) or ""], content


def _job(source: Source, entries: Sequence[Entry], options: ShardOptions) -> dict[str, Any]:
    """What decides about the bytes of all shards, told as far as it can be without reading."""
    state = hashlib.blake2b(digest_size=16)
    for entry in entries:
        state.update(json.dumps([entry.name, _size(entry)]).encode())
    job = {
        "source": source.name,
        "origin": origin_digest(source.origin),
        "files": state.hexdigest(),
        "squares": options.squares,
        "pictures_per_shard": options.pictures,
        "megabytes_per_shard": 0 if options.pictures else options.megabytes,
        "options": options.prepare.to_json(),
    }
    return dict(json.loads(json.dumps(job)))  # as it will be read back


def _size(entry: Entry) -> int | str:
    if isinstance(entry, DrawnEntry):
        return drawn_identity(entry)
    if isinstance(entry, PieceEntry):
        return entry.length
    try:
        return entry.path.stat().st_size
    except OSError:
        return -1


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of `folder`, where the system has locks; freed however we end."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{folder} is being written by another process") from None
        yield
    finally:
        os.close(handle)


def _is_complete(out: Path, job: dict[str, Any]) -> bool:
    """Whether the shards of `job` are all there; DataError where those of another job are."""
    if not is_shards(out):
        return False
    _require_same(out, read_manifest(out).job, job)
    with contextlib.suppress(DataError):
        ShardPictures(out)
        return True
    return False  # a shard was lost: it is made again


def _begin(out: Path, job: dict[str, Any]) -> None:
    """Note the job in `out`, once; DataError where it is another one's or holds other files."""
    note = out / MAKING / _JOB
    if note.exists():
        with contextlib.suppress(ValueError):
            _require_same(out, json.loads(note.read_text(encoding="utf-8")), job)
    elif not is_shards(out):
        others = sorted(item.name for item in out.iterdir() if item.name != MAKING)
        if others:
            raise DataError(f"{out} holds {others[0]!r}: name a new or empty folder")
    write_text(note, json.dumps(job))
    for left in (*out.glob(".shard-*"), *(out / MAKING).glob(f".{_SET}-*.part")):
        _remove(left)  # of a killed run


def _require_same(out: Path, there: dict[str, Any], job: dict[str, Any]) -> None:
    if there == job:
        return
    old, new = ({**j, **j.get("options", {})} for j in (there, job))
    keys = [key for key in new if key != "options" and old.get(key) != new[key]]
    key = keys[0] if keys else "job"
    words = f"{key} {old.get(key)!r}, not {new.get(key)!r}"
    if key in ("origin", "files"):
        words = "other pictures"
    raise DataError(f"{out} holds shards of {words}: name another folder with --out")


def _examine(
    source: Source,
    entries: Sequence[Entry],
    options: ShardOptions,
    out: Path,
    workers: int,
    progress: Progress | None,
) -> Manifest:
    """What of the source is to be stored; kept in `.making`, with the squares if they are it."""
    path = out / MAKING / _SET
    with contextlib.suppress(OSError, DataError):
        return Manifest.from_json((path / packed.MANIFEST).read_text(encoding="utf-8"))
    try:
        with packed.staged(path, owned=True) as folder:
            prepared = pack(source, entries, options.prepare, folder, workers, progress)
            if not options.squares:
                (folder / packed.IMAGES).unlink()
            write_text(folder / packed.MANIFEST, prepared.to_json())
    except DataError:
        shutil.rmtree(out / MAKING, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty
            out.rmdir()
        raise
    return prepared


def _contents(
    entries: Sequence[Entry], prepared: Manifest, options: ShardOptions, out: Path
) -> list[Content]:
    limits = (options.prepare.max_bytes, options.prepare.max_pixels)
    if options.squares:
        path, side = out / MAKING / _SET / packed.IMAGES, options.prepare.size
        length = side * side * 3
        return [
            Content(PieceEntry(picture.name, path, i * length, length, side), "", *limits)
            for i, picture in enumerate(prepared.pictures)
        ]
    by_name = {entry.name: entry for entry in entries}
    return [
        Content(by_name[picture.name], picture.sha256, *limits) for picture in prepared.pictures
    ]


def _write(
    out: Path,
    contents: Sequence[Content],
    options: ShardOptions,
    workers: int,
    progress: Progress | None,
) -> Iterator[Shard]:
    each = options.pictures or _pictures_per_shard(contents, options.megabytes, workers)
    tasks = (
        _Task(out / shard_name(number), first, tuple(contents[first : first + each]))
        for number, first in enumerate(range(0, len(contents), each))
    )
    done = 0
    workers = min(workers, -(-len(contents) // each))
    with contextlib.closing(in_order(write_task, tasks, workers)) as written:
        for shard in written:
            done += len(shard.offsets)
            if progress:
                progress(done, len(contents))
            yield shard


def _pictures_per_shard(contents: Sequence[Content], megabytes: float, workers: int) -> int:
    """How many pictures, with their headers, come to about `megabytes`, by an even sample."""
    step = max(1, len(contents) // _SAMPLE)
    sample = contents[::step]
    lengths = in_order(encoded_length, sample, min(workers, len(sample)))
    mean = sum(length + 768 for length in lengths) / len(sample)  # a header and half a block
    return max(1, round(megabytes * MEGABYTE / mean))


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
