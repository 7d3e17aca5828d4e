"""Shards: the format as its readers see it, the same pictures back, restarts, damage."""

import hashlib
import io
import itertools
import json
import os
import pickle
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from picture_files import saved
from PIL import Image

from pokegan.data import PrepareOptions, prepare
from pokegan.data.archives import extract
from pokegan.data.columns import Texts
from pokegan.data.creatures import draw_creature
from pokegan.data.decode import decode
from pokegan.data.packed import PackedImages
from pokegan.data.packed_source import PackedSource
from pokegan.data.plain import plainly_encoded
from pokegan.data.shard_manifest import FILE
from pokegan.data.sharding import ShardOptions, shard
from pokegan.data.shards import ShardPictures, ShardSource, TarSource
from pokegan.data.sources import DemoSource, FolderSource, resolve
from pokegan.errors import ConfigError, DataError

OPTIONS = PrepareOptions(16)
COUNT = 23


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_folder_of_shards_holds_tars_indices_and_a_manifest(made: ShardPictures) -> None:
    numbers = [f"shard-{i:06d}" for i in range(5)]
    expected = [*(f"{name}.{kind}" for name in numbers for kind in ("idx", "tar")), FILE]
    assert sorted(path.name for path in made.folder.iterdir()) == expected
    assert len(made) == COUNT
    assert made.manifest.counts == {"kept": COUNT, "not a picture": 1, "same file": 1}
    assert [row.name for row in made.manifest.skipped] == ["bad.png"]
    assert [row.name for row in made.manifest.duplicates] == ["twin.png"]


def test_plain_files_are_kept_to_the_byte_and_others_to_the_pixel(
    made: ShardPictures, mixed: Path
) -> None:
    plain = 0
    for i, name in enumerate(made.names):
        original, stored = (mixed / name).read_bytes(), made.read(i)
        assert made.manifest.sha256[i].tobytes() == hashlib.sha256(original).digest()
        if plainly_encoded(original):
            plain += 1
            assert stored == original
        else:
            assert np.array_equal(np.asarray(decode(stored)), np.asarray(decode(original)))
            with Image.open(io.BytesIO(stored)) as image:
                assert image.mode in ("RGB", "RGBA")
    assert 0 < plain < COUNT


def test_tars_are_plain_and_say_nothing_of_who_made_them(made: ShardPictures) -> None:
    number = 0
    for file, size, _ in made.manifest.shards:
        path = made.folder / file
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, extension = member.name.split(".")
                assert key == f"{number:09d}"
                assert extension == ("png" if made.read(number)[:4] == b"\x89PNG" else "jpg")
                assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
                assert member.offset_data == made.manifest.offsets[number]
                assert tar.extractfile(member).read() == made.read(number)
                number += 1
        assert path.stat().st_size == size
        assert path.read_bytes().endswith(bytes(1024))
    assert number == COUNT


def test_webdataset_reads_the_same(made: ShardPictures) -> None:
    webdataset = pytest.importorskip("webdataset")
    urls = [str(made.folder / file) for file, _, _ in made.manifest.shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"{i:09d}" for i in range(COUNT)]
    for i, sample in enumerate(samples):
        assert made.read(i) == sample.get("png", sample.get("jpg"))


def test_dali_reads_the_same_by_our_index(made: ShardPictures) -> None:
    fn = pytest.importorskip("nvidia.dali.fn")
    from nvidia.dali import pipeline_def

    tars = [str(made.folder / file) for file, _, _ in made.manifest.shards]

    @pipeline_def(batch_size=COUNT, num_threads=1, device_id=None)
    def pipeline():
        indices = [path.replace(".tar", ".idx") for path in tars]
        return fn.readers.webdataset(paths=tars, index_paths=indices, ext=["png;jpg"])

    pipe = pipeline()
    pipe.build()
    (batch,) = pipe.run()
    assert [bytes(batch.at(i)) for i in range(COUNT)] == [made.read(i) for i in range(COUNT)]


def test_our_index_is_the_one_that_dali_makes(made: ShardPictures, tmp_path: Path) -> None:
    wds2idx = pytest.importorskip("wds2idx")
    for file, _, _ in made.manifest.shards:
        theirs = tmp_path / "index"
        with wds2idx.IndexCreator(str(made.folder / file), str(theirs), verbose=False) as creator:
            creator.create_index()
        assert theirs.read_text() == (made.folder / file).with_suffix(".idx").read_text()


@pytest.mark.parametrize("workers", [0, 1])
def test_the_bytes_do_not_depend_on_the_number_of_workers(
    made: ShardPictures, mixed: Path, tmp_path: Path, workers: int
) -> None:
    options = ShardOptions(OPTIONS, pictures=5)
    again = shard(FolderSource(mixed), options, tmp_path / "again", workers)
    assert content(again.folder) == content(made.folder)


@pytest.mark.parametrize("squares", [False, True])
def test_prepared_from_shards_as_from_their_source(
    mixed: Path, tmp_path: Path, squares: bool
) -> None:
    options = ShardOptions(OPTIONS, squares=squares, pictures=7)
    source = FolderSource(mixed)
    shards = shard(source, options, tmp_path / "shards", workers=0)
    from_source = prepare(source, OPTIONS, tmp_path / "a", workers=0)
    found = resolve(str(shards.folder))
    assert isinstance(found, ShardSource)
    from_shards = prepare(found, OPTIONS, tmp_path / "b", workers=1)
    assert from_shards.names == from_source.names == list(shards.names)
    assert np.array_equal(from_shards.images, from_source.images)
    if squares:
        for i, picture in enumerate(from_source.images):
            assert np.array_equal(np.asarray(decode(shards.read(i))), picture)


def test_a_packed_set_the_demo_set_and_shards_make_shards(
    made: ShardPictures, packed_folder: Path, tmp_path: Path
) -> None:
    images = PackedImages.open(packed_folder)
    keep = PrepareOptions(16, keep_duplicates=True)
    of_set = shard(PackedSource(images), ShardOptions(keep), tmp_path / "set", workers=0)
    assert list(of_set.names) == images.names
    for i, picture in enumerate(images.images):
        assert np.array_equal(np.asarray(decode(of_set.read(i))), picture)
    of_demo = shard(DemoSource(count=3), ShardOptions(keep), tmp_path / "demo", workers=0)
    with Image.open(io.BytesIO(of_demo.read(2))) as image:
        assert np.array_equal(np.asarray(image), draw_creature(2, 256))
    source = ShardSource(made.folder)
    of_shards = shard(source, ShardOptions(OPTIONS, pictures=5), tmp_path / "again", workers=0)
    assert [path.read_bytes() for path in sorted(of_shards.folder.glob("*.tar"))] == [
        path.read_bytes() for path in sorted(made.folder.glob("*.tar"))
    ]


def test_size_in_megabytes_is_kept_about(tmp_path: Path) -> None:
    source = DemoSource(count=120)
    options = ShardOptions(PrepareOptions(32), squares=True, megabytes=0.05)
    shards = shard(source, options, tmp_path / "shards", workers=0).manifest.shards
    assert len(shards) > 3
    assert all(30_000 < size < 70_000 for _, size, _ in shards[:-1])
    with pytest.raises(ConfigError, match="--shard-size"):
        ShardOptions(OPTIONS, megabytes=0)


# Strangers' tars


def test_several_tars_of_strangers_are_a_source(tmp_path: Path) -> None:
    folder = tmp_path / "wds"
    folder.mkdir()
    colours = [(200, 30, 40), (30, 200, 40), (30, 40, 200), (90, 90, 90)]
    for shard_number in range(2):
        with tarfile.open(folder / f"train-{shard_number}.tar", "w") as tar:
            for i in range(2):
                colour = colours[2 * shard_number + i]
                png = saved(Image.new("RGB", (20, 20), colour), "PNG")
                for name, data in ((f"{i}.png", png), (f"{i}.cls", b"7"), (f"{i}.json", b"{}")):
                    info = tarfile.TarInfo(f"x/{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    (folder / "README.md").write_text("two shards")
    source = resolve(str(folder))
    assert isinstance(source, TarSource)
    images = prepare(source, OPTIONS, tmp_path / "set", workers=1)
    assert images.names == [f"train-{k}/x/{i}.png" for k in range(2) for i in range(2)]
    assert images.images[:, 8, 8].tolist() == [list(colour) for colour in colours]
    assert {row.reason for row in images.manifest.skipped} == {"not a picture: text"}
    (folder / "train-1.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(DataError, match=r"train-1\.tar is damaged or no plain tar file"):
        source.entries()


def test_one_of_our_tars_is_an_archive_like_any_other(made: ShardPictures, tmp_path: Path) -> None:
    assert extract(made.folder / "shard-000001.tar", tmp_path / "unpacked") == []
    assert len(list((tmp_path / "unpacked").iterdir())) == 5


# Damage and access


def _copy(made: ShardPictures, folder: Path) -> Path:
    folder.mkdir()
    for name, data in content(made.folder).items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "shard-000002.tar").unlink(), "is not whole: shard-000002.tar is missing"),
        (lambda p: os.truncate(p / "shard-000002.tar", 2000), "has 2,000 bytes, not"),
        (lambda p: (p / FILE).unlink(), "not a folder of shards: shards.json is missing"),
        (lambda p: (p / FILE).write_text("{"), "the manifest is damaged"),
        (lambda p: (p / FILE).write_text("[]"), "the manifest is damaged: not the manifest"),
        (lambda p: _edit(p, "version", 2), "version 2, this pokegan reads 1"),
        (lambda p: _edit(p, "count", 4), "the count is not the number of pictures"),
        (lambda p: _edit(p, "shards", []), "the manifest is damaged"),
    ],
)
def test_damage_is_one_clear_line(
    made: ShardPictures, tmp_path: Path, damage: object, message: str
) -> None:
    folder = _copy(made, tmp_path / "copy")
    damage(folder)
    with pytest.raises(DataError, match=message) as caught:
        ShardPictures(folder)
    assert "\n" not in str(caught.value)


def _edit(folder: Path, key: str, value: object) -> None:
    values = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps({**values, key: value}))


def test_a_flipped_bit_is_found_by_verify(made: ShardPictures, tmp_path: Path) -> None:
    folder = _copy(made, tmp_path / "copy")
    ShardPictures(folder, verify=True)
    tar = bytearray((folder / "shard-000000.tar").read_bytes())
    tar[700] ^= 1
    (folder / "shard-000000.tar").write_bytes(tar)
    with pytest.raises(DataError, match="does not match its checksum"):
        ShardPictures(folder, verify=True)


def test_a_shard_cut_while_in_use_is_one_line(made: ShardPictures, tmp_path: Path) -> None:
    opened = ShardPictures(_copy(made, tmp_path / "copy"))
    os.truncate(opened.folder / "shard-000000.tar", 600)
    with pytest.raises(DataError, match="ends early"):
        opened.read(4)
    (opened.folder / "shard-000003.tar").unlink()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        opened.read(17)
    for index in (-1, COUNT):
        with pytest.raises(IndexError):
            opened.read(index)


def test_threads_and_processes_read_the_same(
    made: ShardPictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pokegan.data.shards._OPEN", 2)  # fewer than there are shards
    expected = [made.read(i) for i in range(COUNT)]
    order = np.random.default_rng(0).integers(0, COUNT, 400).tolist()
    barrier = threading.Barrier(4)

    def read(part: int) -> bool:
        barrier.wait()
        return all(made.read(i) == expected[i] for i in order[part::4])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))
    sent = pickle.loads(pickle.dumps(made))
    assert [sent.read(i) for i in order[:20]] == [expected[i] for i in order[:20]]


def test_a_thread_may_open_a_file_at_any_step_of_another(
    made: ShardPictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pokegan.data.shards._OPEN", 2)
    expected = [made.read(i) for i in range(COUNT)]
    for step in itertools.count(1):
        steps = 0

        def trace(frame: FrameType, event: str, argument: Any, step: int = step) -> Any:
            nonlocal steps
            if frame.f_code.co_name != "_file":
                return None
            frame.f_trace_opcodes = True
            steps += event == "opcode"
            if steps == step and event == "opcode":
                made._files[-step] = made._files[next(reversed(made._files))]
            return trace

        sys.settrace(trace)
        try:
            found = [made.read(i) for i in (0, COUNT // 2, COUNT - 1)]
        finally:
            sys.settrace(None)
        assert found == [expected[i] for i in (0, COUNT // 2, COUNT - 1)]
        if steps < step:
            break


def test_texts_are_a_sequence_of_little_memory() -> None:
    words = ["", "a", "ünï-日本-🐉", "lone \udc80", "b" * 300]
    texts = Texts(words)
    assert list(texts) == words
    assert [texts[i] for i in (-1, 2)] == [words[-1], words[2]]
    assert texts[1:3] == words[1:3]
    assert list(Texts.joined([texts, Texts(), texts])) == words * 2
    assert pickle.loads(pickle.dumps(texts))[3] == words[3]
    with pytest.raises(IndexError):
        texts[5]
