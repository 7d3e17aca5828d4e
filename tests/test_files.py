"""Atomic files: complete or not there."""

import os
import stat
from pathlib import Path

import pytest

from pokegan.files import atomic_path, write_bytes, write_text


def test_the_content_arrives_and_nothing_else_stays(tmp_path: Path) -> None:
    write_text(tmp_path / "new/folder/a.txt", "é")
    assert (tmp_path / "new/folder/a.txt").read_bytes() == "é".encode()
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["a.txt"]


def test_an_error_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.bin", b"old")

    def fail() -> None:
        with atomic_path(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_the_temporary_name_keeps_the_ending(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.png") as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path


def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "a", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "old").write_text("old")
    for name in ("old", "new"):
        (tmp_path / name).symlink_to(Path("disk") / name)
        write_text(tmp_path / name, name)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "disk" / name).read_text() == name
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["disk", "new", "new", "old", "old"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a matter of POSIX file systems")
def test_a_pipe_or_device_is_written_and_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_bytes(tmp_path / "pipe", b"through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    with (
        pytest.raises(IsADirectoryError, match="a file is wanted"),
        atomic_path(tmp_path / "."),
    ):
        pytest.fail("the body must not run")
    assert not list(tmp_path.iterdir())
