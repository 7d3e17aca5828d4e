"""A set made again from its sources by its manifest: exactly the same pictures, or none."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from pokegan.config import FILTERS
from pokegan.data import packed
from pokegan.data.entries import Entry, Source
from pokegan.data.manifest import Manifest, Picture
from pokegan.data.names import printable
from pokegan.data.options import PrepareOptions
from pokegan.data.packed import PackedImages
from pokegan.data.preparation import Progress, pack
from pokegan.data.square import content_hash
from pokegan.errors import DataError
from pokegan.files import write_text

_NAMED = 3


def read_manifest(path: Path) -> Manifest:
    """The manifest of the packed set in folder `path`, or the manifest file `path` alone.

    The pictures of the set need not be there. Raises DataError where it cannot be read.
    """
    file = path / packed.MANIFEST if path.is_dir() else path
    try:
        return Manifest.from_json(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise DataError(f"{file} is not the manifest of a packed set") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
    except DataError as error:
        raise DataError(f"{file} cannot be used: {error}") from error


def remake(
    manifest: Manifest,
    source: Source,
    out: Path,
    workers: int | None = None,
    progress: Progress | None = None,
) -> PackedImages:
    """Make the set of `manifest` again from `source` into the folder `out`.

    The options are the manifest's and the pictures are those it lists, in its order, found by name
    and SHA-256, or, where files were renamed, by SHA-256 alone; other files do not matter. With the
    versions in `manifest.tools` the pixels are the same to the bit. What the manifest says of
    duplicates and of files left out is carried over. `workers` and `progress` as for `prepare`.

    Raises DataError, which names the first pictures, when any is missing or has changed, and as
    `prepare` does.
    """
    options = _unfiltered(PrepareOptions.from_json(manifest.options))
    chosen = _Chosen(source, manifest.pictures, options)
    with packed.staged(Path(out)) as folder:
        made = pack(chosen, chosen.entries(), options, folder, workers, progress)
        for row in made.skipped:
            raise DataError(f"{printable(row.name)} cannot be prepared again: {row.reason}")
        changed = (
            new.name
            for new, old in zip(made.pictures, manifest.pictures, strict=True)
            if new.sha256 != old.sha256
        )
        for name in changed:
            raise DataError(f"{printable(name)} changes while it is read: try again")
        made = dataclasses.replace(
            made,
            options=manifest.options,
            duplicates=manifest.duplicates,
            skipped=manifest.skipped,
        )
        write_text(folder / packed.MANIFEST, made.to_json())
    return PackedImages.open(out)


def comparison(first: Manifest, again: Manifest) -> str:
    """Whether a set that was made again has the same pixels, in one line."""
    if first.checksum == again.checksum:
        return "the same pictures and the same pixels as in the first set"
    names = sorted({*first.tools, *again.tools})
    pairs = [(name, first.tools.get(name, "none"), again.tools.get(name, "none")) for name in names]
    other = [f"{name} {then} then, {now} now" for name, then, now in pairs if then != now]
    return (
        "the same pictures, but not all of the same pixels as in the first set: "
        f"{'; '.join(other) or 'another version of pokegan'}"
    )


class _Chosen:
    """The pictures of a manifest as a source of their own, under their names there."""

    def __init__(
        self, source: Source, pictures: Sequence[Picture], options: PrepareOptions
    ) -> None:
        self.name = source.name
        self.origin = source.origin
        self.rejected: list[tuple[str, str]] = []
        self._entries = _find(source, pictures, options)

    def entries(self) -> list[Entry]:
        return self._entries


def _find(source: Source, pictures: Sequence[Picture], options: PrepareOptions) -> list[Entry]:
    """The entry of each picture. Raises DataError where there is none of its content."""
    by_name = {entry.name: entry for entry in source.entries()}
    found: dict[str, Entry] = {}
    for picture in pictures:
        entry = by_name.get(picture.name)
        if entry is not None and content_hash(entry, options.max_bytes) == picture.sha256:
            found[picture.name] = entry
    lost = [picture for picture in pictures if picture.name not in found]
    if lost:
        names = {entry.name for entry in found.values()}
        others = (entry for entry in by_name.values() if entry.name not in names)
        by_content = {content_hash(entry, options.max_bytes): entry for entry in others}
        found.update((p.name, by_content[p.sha256]) for p in lost if p.sha256 in by_content)
    _require_all(source, [picture.name for picture in lost if picture.name not in found], by_name)
    return [dataclasses.replace(found[p.name], name=p.name) for p in pictures]


def _require_all(source: Source, lost: Sequence[str], there: Iterable[str]) -> None:
    if not lost:
        return
    names = set(there)
    parts = [
        f"{what} {_listed(which)}"
        for what, which in (
            ("missing:", [name for name in lost if name not in names]),
            ("changed:", [name for name in lost if name in names]),
        )
        if which
    ]
    raise DataError(f"{source.name} is not what the set was made of: {'; '.join(parts)}")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(map(printable, names[:_NAMED])) + more


def _unfiltered(options: PrepareOptions) -> PrepareOptions:
    """The options without what decides about pictures: that was decided when the set was made."""
    plain = PrepareOptions(options.size)
    off = {name: getattr(plain, name) for name in FILTERS}
    return dataclasses.replace(options, keep_duplicates=True, **off)
