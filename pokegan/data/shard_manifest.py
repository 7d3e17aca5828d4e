"""`shards.json`: what is in a folder of shards, written and read with bounded memory.

One JSON object; the pictures of each shard are columns on one line, so that a million pictures are
a thousand lines and never a million objects.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pokegan.data.columns import Texts
from pokegan.data.manifest import Duplicate, Manifest, Skipped
from pokegan.data.tar_shard import Shard
from pokegan.errors import DataError
from pokegan.files import atomic_path

FORMAT = "pokegan-shards"
VERSION = 1
FILE = "shards.json"


@dataclass(frozen=True)
class ShardManifest:
    """Everything known about N pictures in S shards.

    Attributes:
        job: what was asked for: source, options, shard size; equal jobs give equal bytes.
        shards: `(file, bytes, checksum)` of each shard, in order.
        checksum: over the checksums of all shards.
        names: of the pictures in their source.
        sha256: [N, 32] uint8, of the source files.
        shard: [N] int32, the shard that a picture is in.
        offsets: [N] int64, where its bytes begin in the tar.
        lengths: [N] int64, how many they are.
        counts: of the files that were looked at, by what became of them.
        duplicates: readable pictures that were dropped.
        skipped: files that could not be used.
    """

    job: dict[str, Any]
    shards: tuple[tuple[str, int, str], ...]
    checksum: str
    names: Texts
    sha256: npt.NDArray[np.uint8]
    shard: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    counts: dict[str, int]
    duplicates: tuple[Duplicate, ...]
    skipped: tuple[Skipped, ...]


def write_manifest(
    path: Path, job: dict[str, Any], shards: Sequence[Shard], prepared: Manifest
) -> None:
    """Write `shards.json`; `prepared` lists the pictures in the order of the shards."""
    head = {
        "format": FORMAT,
        "version": VERSION,
        "count": len(prepared.pictures),
        "bytes": sum(shard.bytes for shard in shards),
        "checksum": _checksum([shard.checksum for shard in shards]),
        "job": job,
        "tools": prepared.tools,
        "counts": prepared.counts(),
    }
    with atomic_path(path) as temporary, temporary.open("w", encoding="ascii") as file:
        file.write("{\n")
        for key, value in head.items():
            file.write(f'"{key}": {json.dumps(value)},\n')
        first = 0
        file.write('"shards": [')
        for shard in shards:
            pictures = prepared.pictures[first : first + len(shard.offsets)]
            row = {
                **{"file": shard.file, "bytes": shard.bytes, "checksum": shard.checksum},
                "names": [picture.name for picture in pictures],
                "sha256": [picture.sha256 for picture in pictures],
                "offsets": shard.offsets.tolist(),
                "lengths": shard.lengths.tolist(),
            }
            file.write(("," if first else "") + "\n " + json.dumps(row))
            first += len(pictures)
        file.write("\n],\n")
        for key, rows in (("duplicates", prepared.duplicates), ("skipped", prepared.skipped)):
            lines = ",\n ".join(json.dumps(row._asdict()) for row in rows)
            file.write(f'"{key}": [{lines}]' + (",\n" if key == "duplicates" else "\n}\n"))


def read_manifest(folder: Path) -> ShardManifest:
    """Read the manifest of a folder of shards. Raises DataError, one line, where it cannot."""
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text, object_pairs_hook=_compact)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError("not the manifest of shards")
        if values["version"] != VERSION:
            raise ValueError(f"of version {values['version']}, this pokegan reads {VERSION}")
        manifest = _manifest(values)
        if values["count"] != len(manifest.names) or not manifest.shards:
            raise ValueError("the count is not the number of pictures")
    except FileNotFoundError:
        raise DataError(f"{folder} is not a folder of shards: {FILE} is missing") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{path} cannot be used: the manifest is damaged: {said}") from error
    return manifest


@dataclass(frozen=True)
class _Row:
    """One shard of the manifest."""

    head: tuple[str, int, str]
    names: Texts
    sha256: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]


def _compact(pairs: list[tuple[str, Any]]) -> Any:
    """A JSON object as a dict, a shard as its columns: called as soon as the object ends."""
    row = dict(pairs)
    if "names" not in row or "offsets" not in row:
        return row
    hashes = np.frombuffer(bytes.fromhex("".join(row["sha256"])), np.uint8).reshape(-1, 32)
    offsets, lengths = np.array(row["offsets"], np.int64), np.array(row["lengths"], np.int64)
    names = Texts(row["names"])
    if not len(names) == len(hashes) == len(offsets) == len(lengths) > 0:
        raise ValueError("columns of different lengths")
    if offsets.min() < 0 or lengths.min() < 1:
        raise ValueError("an impossible offset or length")
    head = (str(row["file"]), int(row["bytes"]), str(row["checksum"]))
    return _Row(head, names, hashes, offsets, lengths)


def _manifest(values: dict[str, Any]) -> ShardManifest:
    rows: list[_Row] = values["shards"]
    return ShardManifest(
        job=dict(values["job"]),
        shards=tuple(row.head for row in rows),
        checksum=str(values["checksum"]),
        names=Texts.joined([row.names for row in rows]),
        sha256=np.concatenate([row.sha256 for row in rows]),
        shard=np.repeat(np.arange(len(rows), dtype=np.int32), [len(row.names) for row in rows]),
        offsets=np.concatenate([row.offsets for row in rows]),
        lengths=np.concatenate([row.lengths for row in rows]),
        counts=dict(values["counts"]),
        duplicates=tuple(Duplicate(**row) for row in values["duplicates"]),
        skipped=tuple(Skipped(**row) for row in values["skipped"]),
    )


def _checksum(checksums: Sequence[str]) -> str:
    return hashlib.blake2b("".join(checksums).encode(), digest_size=16).hexdigest()
