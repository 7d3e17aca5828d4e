"""The packed format: manifest there and back, damage noticed, atomic replacement."""

import errno
import itertools
import json
import os
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interrupted import interrupted_at

from pokegan.data import packed
from pokegan.data.manifest import Duplicate, Manifest, Picture, Skipped
from pokegan.data.packed import PackedImages, is_packed, staged
from pokegan.data.store import keep_rows
from pokegan.errors import DataError

TEXT = st.text(max_size=30)
HASH = st.text("0123456789abcdef", min_size=64, max_size=64)
NAMES = st.text(st.characters(codec=None), max_size=30)  # lone surrogates too: names on Linux

MANIFESTS = st.builds(
    Manifest,
    source=TEXT,
    size=st.integers(8, 1024),
    background=st.tuples(*[st.integers(0, 255)] * 3),
    options=st.dictionaries(TEXT, st.integers() | TEXT | st.booleans(), max_size=3),
    pictures=st.lists(st.builds(Picture, NAMES, HASH), max_size=4).map(tuple),
    duplicates=st.lists(st.builds(Duplicate, NAMES, HASH, NAMES, TEXT), max_size=3).map(tuple),
    skipped=st.lists(st.builds(Skipped, NAMES, HASH | st.none(), TEXT), max_size=3).map(tuple),
    checksum=TEXT,
    created=TEXT,
    tools=st.dictionaries(TEXT, TEXT, max_size=2),
    origin=TEXT,
)


def _edit(folder: Path, old: str, new: str) -> None:
    text = (folder / packed.MANIFEST).read_text()
    (folder / packed.MANIFEST).write_text(text.replace(old, new))


def make(path: Path, count: int = 3, size: int = 8) -> PackedImages:
    images = np.arange(count * size * size * 3, dtype=np.uint8).reshape(count, size, size, 3)
    with staged(path) as folder:
        (folder / packed.IMAGES).write_bytes(images.tobytes())
        manifest = Manifest(
            source="here",
            size=size,
            background=(255, 255, 255),
            options={},
            pictures=tuple(Picture(f"{i}.png", "0" * 64) for i in range(count)),
            duplicates=(),
            skipped=(Skipped("bad.png", None, "empty file"),),
            checksum=packed.checksum(folder / packed.IMAGES),
            created="2026-01-01T00:00:00+00:00",
            tools={},
        )
        (folder / packed.MANIFEST).write_text(manifest.to_json())
    return PackedImages.open(path, verify=True)


@given(MANIFESTS)
def test_manifest_there_and_back(manifest: Manifest) -> None:
    text = manifest.to_json()
    assert text.isascii()
    assert Manifest.from_json(text) == manifest
    assert json.loads(text)["counts"]["kept"] == len(manifest.pictures)


def test_open_set_gives_read_only_pictures(tmp_path: Path) -> None:
    images = make(tmp_path / "set")
    assert (len(images), images.size, images.background) == (3, 8, (255, 255, 255))
    assert images.names == ["0.png", "1.png", "2.png"]
    assert images.images.shape == (3, 8, 8, 3)
    assert images.images.dtype == np.uint8
    assert images.images[0, 0, 0].tolist() == [0, 1, 2]
    assert isinstance(images.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images.images[0] = 0
    assert images.manifest.counts() == {"kept": 3, "empty file": 1}


def test_another_process_is_sent_the_path_and_not_the_pictures(tmp_path: Path) -> None:
    sent = pickle.dumps(make(tmp_path / "set", count=200))
    assert len(sent) < 1000
    assert pickle.loads(sent).images.shape == (200, 8, 8, 3)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / packed.IMAGES).unlink(), "not a packed set: images.u8 is missing"),
        (lambda p: (p / packed.MANIFEST).unlink(), "not a packed set: manifest.json is missing"),
        (
            lambda p: (p / packed.IMAGES).write_bytes(b"12345"),
            "images.u8 has 5 bytes, not 576",
        ),
        (lambda p: (p / packed.MANIFEST).write_text("{"), "the manifest is damaged"),
        (lambda p: (p / packed.MANIFEST).write_text("[]"), "not the manifest of a packed set"),
        (lambda p: (p / packed.MANIFEST).write_bytes(b"\xff\xfe"), "the manifest is damaged"),
        (lambda p: _edit(p, '"version": 2', '"version": 3'), "version 3.*prepare the pictures"),
        (lambda p: _edit(p, '"count": 3', '"count": 4'), "the manifest is damaged: the count"),
        (lambda p: _edit(p, '"size": 8', '"size": "x"'), "the manifest is damaged"),
        (lambda p: _edit(p, '"0.png"', "7"), "the manifest is damaged"),
        (lambda p: _edit(p, '"sha256"', '"other"'), "the manifest is damaged"),
    ],
)
def test_damage_is_one_clear_line(tmp_path: Path, damage: object, message: str) -> None:
    make(tmp_path / "set")
    damage(tmp_path / "set")
    with pytest.raises(DataError, match=message) as caught:
        PackedImages.open(tmp_path / "set")
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_found_by_verify(tmp_path: Path) -> None:
    make(tmp_path / "set")
    content = bytearray((tmp_path / "set" / packed.IMAGES).read_bytes())
    content[100] ^= 1
    (tmp_path / "set" / packed.IMAGES).write_bytes(content)
    PackedImages.open(tmp_path / "set")
    with pytest.raises(DataError, match="does not match its checksum"):
        PackedImages.open(tmp_path / "set", verify=True)


def test_a_set_is_replaced_when_the_new_one_is_whole(tmp_path: Path) -> None:
    old = make(tmp_path / "set", count=3)
    with pytest.raises(DataError, match="cannot write"), staged(tmp_path / "set") as folder:
        (folder / "no" / "such" / "folder").write_bytes(b"half")
    assert len(PackedImages.open(tmp_path / "set", verify=True)) == 3
    assert len(make(tmp_path / "set", count=5)) == 5
    assert old.images.shape == (3, 8, 8, 3)  # a reader keeps what it has opened
    assert old.images[2, 7, 7].tolist() == [61, 62, 63]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_no_interruption_of_the_exchange_loses_the_old_set(tmp_path: Path) -> None:
    for step in itertools.count(1):
        folder = tmp_path / str(step)
        for name in ("set", "new"):
            (folder / name).mkdir(parents=True)
            (folder / name / "which").write_text(name)
        interrupted = interrupted_at(step, partial(packed.swap, folder / "new", folder / "set"))
        assert (folder / "set" / "which").read_text() in ("set", "new")
        if not interrupted:
            break
    assert (folder / "set" / "which").read_text() == "new"


def test_a_set_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "set", count=3)
    rename = Path.rename

    def refuse_the_new(path: Path, target: Path) -> Path:
        if path.name.endswith(".part") and (path / "new").exists():
            raise OSError(errno.EIO, "the disk is broken")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_the_new)
    with (
        pytest.raises(DataError, match=r"cannot write .*set: the disk is broken"),
        staged(tmp_path / "set") as folder,
    ):
        (folder / "new").touch()
    assert len(PackedImages.open(tmp_path / "set", verify=True)) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="not a packed set: name a new or empty folder"):
        make(tmp_path / "mine")
    with pytest.raises(DataError, match="is a file"):
        make(tmp_path / "mine" / "thesis.txt")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    assert not is_packed(tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    assert is_packed(make(tmp_path / "empty").path)


def test_a_set_with_foreign_files_in_it_is_not_replaced(tmp_path: Path) -> None:
    make(tmp_path / "set")
    (tmp_path / "set" / packed.CONTACT_SHEET).write_text("ours")
    assert len(make(tmp_path / "set", count=4)) == 4
    (tmp_path / "set" / "notes\n.txt").write_text("precious")
    (tmp_path / "set" / "zoo").mkdir()
    with pytest.raises(DataError, match=r"holds notes\\n.txt, which is no part of the set"):
        make(tmp_path / "set", count=5)
    assert (tmp_path / "set" / "notes\n.txt").read_text() == "precious"
    assert len(PackedImages.open(tmp_path / "set")) == 4


def test_a_file_that_comes_while_the_set_is_made_is_not_lost(tmp_path: Path) -> None:
    make(tmp_path / "set")
    with pytest.raises(DataError, match=r"holds late\.txt"), staged(tmp_path / "set"):
        (tmp_path / "set" / "late.txt").write_text("precious")
    assert (tmp_path / "set" / "late.txt").read_text() == "precious"


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere/set")
    make(tmp_path / "link", count=3)
    assert len(make(tmp_path / "link", count=4)) == 4
    assert (tmp_path / "link").is_symlink()
    assert len(PackedImages.open(tmp_path / "elsewhere" / "set")) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "link"]
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["set"]
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(DataError, match="cannot write"):
        make(tmp_path / "round")


@pytest.mark.parametrize("name", [".", "", "../here", ".."])
def test_the_current_folder_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DataError, match="is the current folder or holds it"):
        make(Path(name))
    assert Path.cwd().is_dir()


@pytest.mark.skipif(not Path("/proc").is_mount(), reason="no mount point that is always there")
def test_a_mount_point_is_refused_before_the_work() -> None:
    with pytest.raises(DataError, match=r"^/proc is a mount point.*: name a folder in it$"):
        make(Path("/proc"))


def test_what_killed_processes_left_is_removed_after_a_day(tmp_path: Path) -> None:
    old, new, other = (
        tmp_path / f".{name}.part"
        for name in ("set-0123456789ab", "set-0123456789ac", "set-8-0123456789ab")
    )
    for folder in (old, new, other):
        folder.mkdir()
        (folder / packed.IMAGES).write_bytes(b"half")
        for path in (folder / packed.IMAGES, folder):
            then = path.stat().st_mtime - 25 * 3600
            os.utime(path, (then, then))
    (new / packed.IMAGES).write_bytes(b"still being written")
    make(tmp_path / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, other.name, "set"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write .*: Not a directory"):
        make(tmp_path / "file" / "set")


@given(st.sets(st.integers(0, 9)))
def test_keeping_rows_is_keeping_rows(rows: set[int]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        path.write_bytes(b"".join(bytes([i] * 5) for i in range(10)))
        keep_rows(path, sorted(rows), 5)
        assert path.read_bytes() == b"".join(bytes([i] * 5) for i in sorted(rows))
