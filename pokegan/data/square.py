"""Entries of a source to prepared squares: read, decode, fit, and take their fingerprints.

This is what a worker process runs. No picture has a part in what becomes of another.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from pokegan.data.decode import Decoded, composite, upright_original
from pokegan.data.decoders import PILLOW, decode_plain
from pokegan.data.entries import DrawnEntry, Entry, FileEntry, PieceEntry
from pokegan.data.filters import (
    DRAWN,
    PIXELS,
    Original,
    check_border,
    check_foreground,
    check_original,
)
from pokegan.data.fingerprints import luma, thumbnail
from pokegan.data.geometry import crop_box, pad_geometry
from pokegan.data.options import RGB, PrepareOptions
from pokegan.data.refusals import OUT_OF_MEMORY, DecodeError
from pokegan.data.sniff import is_lossy, sniff

_REDUCING_GAP = 8.0  # larger pictures meet a box filter first: 0.1 levels off, twice as fast


class Square(NamedTuple):
    """A prepared picture.

    Attributes:
        pixels: size * size * 3 bytes, rows of RGB.
        sha256: of the source file.
        digest: of the pixels.
        luma: 32 * 32 bytes, as in `fingerprints.py`.
        thumbnail: 16 * 16 * 3 bytes, likewise.
        lossy: whether the file was a JPEG or the like.
        original: what it was before.
        replaced: whether Pillow had to take the place of the decoder that was asked for.
    """

    pixels: bytes
    sha256: str
    digest: bytes
    luma: bytes
    thumbnail: bytes
    lossy: bool
    original: Original
    replaced: bool = False


class Refusal(NamedTuple):
    """A picture that could not be prepared; `sha256` of its file, None when it was not read."""

    sha256: str | None
    reason: str


def prepare_entries(entries: Sequence[Entry], options: PrepareOptions) -> list[Square | Refusal]:
    """Prepare pictures, `decoders.batch_size` at most; what is wrong with one is its Refusal."""
    if options.decoder == PILLOW:
        return [prepare_entry(entry, options) for entry in entries]
    contents = [_content_or_nothing(entry, options) for entry in entries]
    try:
        pictures, failed = decode_plain(contents, options.decoder, options.max_pixels)
    except Exception:  # whatever a decoder brings about, Pillow is there
        pictures, failed = [None] * len(entries), list(range(len(entries)))
    results = []
    for place, (entry, picture) in enumerate(zip(entries, pictures, strict=True)):
        result = prepare_entry(entry, options, contents[place] or None, picture)
        if place in failed and isinstance(result, Square):
            result = result._replace(replaced=True)
        results.append(result)
    return results


def prepare_entry(
    entry: Entry,
    options: PrepareOptions,
    content: bytes | None = None,
    picture: Image.Image | None = None,
) -> Square | Refusal:
    """Prepare one picture; whatever is wrong with it becomes a Refusal, never an exception.

    The `content` of its file and the decoded `picture` are taken as they are where they are given.
    """
    sha256 = None
    try:
        if isinstance(entry, DrawnEntry):
            sha256 = drawn_identity(entry)
            drawn = _drawn(entry, options)
            return _square(drawn, sha256, False, Original(DRAWN, *drawn.size), options)
        if content is None:
            content = read_file(entry, options.max_bytes)
        sha256 = hashlib.sha256(content).hexdigest()
        if isinstance(entry, PieceEntry) and entry.side:
            pixels = Image.frombytes("RGB", (entry.side, entry.side), content)
            return _square(pixels, sha256, False, Original(PIXELS, *pixels.size), options)
        if picture is None:
            target = options.size if options.fit == "pad" else 2 * options.size
            decoded = upright_original(content, options.max_pixels, target)
        else:
            decoded = Decoded(picture, Original(sniff(content) or "", *picture.size))
        opaque = composite(decoded.picture, options.background)
        return _square(opaque, sha256, is_lossy(content), decoded.original, options)
    except DecodeError as error:
        return Refusal(sha256, str(error))
    except MemoryError:
        return Refusal(sha256, OUT_OF_MEMORY)
    except Exception as error:  # whatever a file brings about, it costs one picture
        said = " ".join(str(error).split())[:100]
        return Refusal(sha256, f"failed: {type(error).__name__}: {said}")


def _content_or_nothing(entry: Entry, options: PrepareOptions) -> bytes:
    """The content of a file; nothing where `prepare_entry` is to say why, or needs no decoder."""
    if isinstance(entry, FileEntry) or (isinstance(entry, PieceEntry) and not entry.side):
        with contextlib.suppress(DecodeError, MemoryError):
            return read_file(entry, options.max_bytes)
    return b""


def read_file(entry: FileEntry | PieceEntry, max_bytes: int) -> bytes:
    """The content of a file of up to `max_bytes`. Raises DecodeError with the reason."""
    try:
        if isinstance(entry, PieceEntry):
            return _read_piece(entry, max_bytes)
        status = entry.path.stat()
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for ever
            raise DecodeError("not a regular file")
        if status.st_size > max_bytes:
            raise DecodeError(f"file too large: {status.st_size:,} bytes, limit {max_bytes:,}")
        return entry.path.read_bytes()
    except OSError as error:
        raise DecodeError(f"cannot be read: {error.strerror or error}") from error


def read_ahead(entry: Entry) -> None:
    """Ask the system for the file of an entry: it reads several at a time, and nobody waits."""
    advise = getattr(os, "posix_fadvise", None)
    if advise is None or not isinstance(entry, FileEntry):
        return
    with contextlib.suppress(OSError, TypeError, ValueError):  # whoever reads it will tell
        file = os.open(entry.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            advise(file, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(file)


def _read_piece(entry: PieceEntry, max_bytes: int) -> bytes:
    if entry.length > max_bytes:
        raise DecodeError(f"file too large: {entry.length:,} bytes, limit {max_bytes:,}")
    with entry.path.open("rb", buffering=0) as file:
        file.seek(entry.offset)
        content = file.read(entry.length)
    if len(content) < entry.length:
        raise DecodeError("truncated: the file that it is in ends early")
    return content


def fit(picture: Image.Image, size: int, mode: str, background: RGB) -> Image.Image:
    """Bring an RGB picture of any shape to a `size` x `size` square.

    "pad" centres the whole picture on `background`, "crop" takes the centre square. Reductions are
    antialiased (Lanczos); enlargements are bicubic, which rings less around outlines.
    """
    if mode == "crop":
        box = crop_box(picture.width, picture.height)
        return _resize(picture, (size, size), box)
    width, height, left, top = pad_geometry(picture.width, picture.height, size)
    scaled = _resize(picture, (width, height), (0, 0, picture.width, picture.height))
    if (width, height) == (size, size):
        return scaled
    canvas = Image.new("RGB", (size, size), background)
    canvas.paste(scaled, (left, top))
    return canvas


@cache
def drawing_version() -> str:
    """A hash of the code that draws the demo set: other code, other pictures."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("creature*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def drawn_identity(entry: DrawnEntry) -> str:
    """What stands for the hash of the source file of a drawn picture."""
    text = f"creature {entry.index} seed {entry.seed} {drawing_version()}"
    return hashlib.sha256(text.encode()).hexdigest()


def content_hash(entry: Entry, max_bytes: int) -> str | None:
    """The SHA-256 of an entry's content; None where it cannot be read."""
    if isinstance(entry, DrawnEntry):
        return drawn_identity(entry)
    with contextlib.suppress(DecodeError):
        return hashlib.sha256(read_file(entry, max_bytes)).hexdigest()
    return None


def _drawn(entry: DrawnEntry, options: PrepareOptions) -> Image.Image:
    from pokegan.data.creatures import draw_creature

    drawn = Image.fromarray(draw_creature(entry.index, options.size, entry.seed))
    canvas = Image.new("RGB", drawn.size, options.background)
    canvas.paste(drawn, mask=drawn.getchannel("A"))
    return canvas


def _resize(
    picture: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]
) -> Image.Image:
    enlarging = size[0] > box[2] - box[0]
    method = Image.Resampling.BICUBIC if enlarging else Image.Resampling.LANCZOS
    return picture.resize(size, method, box, reducing_gap=_REDUCING_GAP)


def _square(
    picture: Image.Image, sha256: str, lossy: bool, original: Original, options: PrepareOptions
) -> Square:
    """Filter and fit an RGB picture. Raises DecodeError where it is not wanted."""
    check_original(original, options)
    check_border(picture, options)
    fitted = fit(picture, options.size, options.fit, options.background)
    check_foreground(fitted, options)
    pixels = fitted.tobytes()
    digest = hashlib.blake2b(pixels, digest_size=16).digest()
    return Square(pixels, sha256, digest, luma(fitted), thumbnail(fitted), lossy, original)
