"""Shards begun, killed, and gone on with; folders that are left as they are."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from picture_files import saved
from PIL import Image

from pokegan.data import PrepareOptions, prepare
from pokegan.data.manifest import Manifest
from pokegan.data.packed import MANIFEST
from pokegan.data.sharding import ShardOptions, shard
from pokegan.data.shards import ShardPictures
from pokegan.data.sources import DemoSource, FolderSource, resolve
from pokegan.errors import DataError

OPTIONS = PrepareOptions(16)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _start(mixed: Path, out: Path, task: str) -> "subprocess.Popen[bytes]":
    """Shards in a process of its own, in which `task` replaces `sharding.write_task`."""
    root = Path(__file__).resolve().parents[2]
    script = f"""
        import sys, os, time; sys.path.insert(0, {str(root)!r})
        from pathlib import Path
        from pokegan.data import PrepareOptions, sharding
        from pokegan.data.sources import FolderSource
        write = sharding.write_task
        {task}
        options = sharding.ShardOptions(PrepareOptions(16), pictures=5)
        sharding.shard(FolderSource(Path({str(mixed)!r})), options, Path({str(out)!r}), 0)
    """
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])


def test_killed_between_shards_it_goes_on_and_ends_with_the_same_bytes(
    made: ShardPictures, mixed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    task = "sharding.write_task = lambda t: write(t) if t.first < 10 else os.abort()"
    assert _start(mixed, out, task).wait(timeout=60) == -signal.SIGABRT
    finished = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert len(finished) == 2
    with pytest.raises(DataError, match=r"not complete: run .* again"):
        resolve(str(out))
    (out / ".shard-000002-17-abcdef01.tar").write_bytes(b"half")
    told: list[tuple[int, int]] = []
    again = shard(
        FolderSource(mixed),
        ShardOptions(OPTIONS, pictures=5),
        out,
        workers=0,
        examining=lambda *done: pytest.fail("the pictures were examined before"),
        writing=lambda *done: told.append(done),
    )
    assert content(again.folder) == content(made.folder)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert told == [(5, 23), (10, 23), (15, 23), (20, 23), (23, 23)]


def test_killed_at_any_moment(made: ShardPictures, mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for delay in (0.3, 0.45, 0.6):
        task = "sharding.write_task = lambda t: time.sleep(.02) or write(t)"
        process = _start(mixed, out, task)
        time.sleep(delay)
        process.kill()
        process.wait()
    again = shard(FolderSource(mixed), ShardOptions(OPTIONS, pictures=5), out, workers=0)
    assert content(again.folder) == content(made.folder)


def test_a_complete_folder_is_left_and_one_of_another_job_refused(
    made: ShardPictures, mixed: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.folder.iterdir()}
    source = FolderSource(mixed)
    again = shard(source, ShardOptions(OPTIONS, pictures=5), made.folder, workers=0)
    assert again.checksum == made.checksum
    for options, words in (
        (ShardOptions(OPTIONS, pictures=6), "pictures_per_shard 5, not 6"),
        (ShardOptions(PrepareOptions(17), pictures=5), "size 16, not 17"),
        (ShardOptions(OPTIONS, squares=True, pictures=5), "squares False, not True"),
    ):
        with pytest.raises(DataError, match=f"holds shards of {words}: name another folder"):
            shard(source, options, made.folder, workers=0)
    with pytest.raises(DataError, match="source 'mixed', not 'demo'"):
        shard(DemoSource(count=3), ShardOptions(OPTIONS, pictures=5), made.folder, workers=0)
    assert {path: path.stat().st_mtime_ns for path in made.folder.iterdir()} == before


def test_a_lost_shard_is_made_again(made: ShardPictures, mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ShardOptions(OPTIONS, pictures=5)
    shard(FolderSource(mixed), options, out, workers=0)
    (out / "shard-000001.tar").unlink()
    os.truncate(out / "shard-000003.tar", 1000)
    again = shard(FolderSource(mixed), options, out, workers=0)
    assert content(again.folder) == content(made.folder)


def test_other_files_are_not_written_among(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match=r"holds 'thesis\.txt': name a new or empty folder"):
        shard(FolderSource(mixed), ShardOptions(OPTIONS), tmp_path, workers=0)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_nothing_usable_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"text")
    source = FolderSource(tmp_path / "in")
    with pytest.raises(DataError, match="no picture of in can be used"):
        shard(source, ShardOptions(OPTIONS), tmp_path / "out", workers=0)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_file_that_changes_meanwhile_is_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(3):
        (tmp_path / "in" / f"{i}.png").write_bytes(saved(Image.new("L", (9, 9), 80 * i), "PNG"))

    def change(done: int, total: int) -> None:
        if done == total:
            (tmp_path / "in" / "1.png").write_bytes(saved(Image.new("L", (9, 9), 50), "PNG"))

    source = FolderSource(tmp_path / "in")
    with pytest.raises(DataError, match=r"1\.png changed while shards were made"):
        shard(source, ShardOptions(OPTIONS), tmp_path / "out", workers=0, examining=change)


def test_two_processes_do_not_write_one_folder(mixed: Path, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "out").mkdir()
    handle = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(DataError, match="is being written by another process"):
            shard(FolderSource(mixed), ShardOptions(OPTIONS), tmp_path / "out", workers=0)
    finally:
        os.close(handle)


def test_the_plan_of_a_killed_run_is_a_manifest(mixed: Path, tmp_path: Path) -> None:
    """What `.making` holds is what `prepare` would have written, less the pixels."""
    out = tmp_path / "out"
    assert _start(mixed, out, "sharding.write_task = lambda t: os.abort()").wait(60)
    kept = Manifest.from_json((out / ".making" / "set" / MANIFEST).read_text())
    images = prepare(FolderSource(mixed), OPTIONS, tmp_path / "set", workers=0)
    assert kept.pictures == images.manifest.pictures
