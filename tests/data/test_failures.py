"""What the world does to a preparation: files that vanish, shut folders, full disks, SIGKILL."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from children import ending
from picture_files import saved
from PIL import Image

import pokegan
from pokegan.data import PackedImages, PrepareOptions, cached, prepare
from pokegan.data.entries import Entry
from pokegan.data.sources import FolderSource
from pokegan.errors import DataError

NOBODY = 65_534
ROOT = Path(pokegan.__file__).parents[1]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="users, mounts and signals of POSIX")


def noise(folder: Path, count: int, side: int = 64, seed: int = 0) -> Path:
    """`count` pictures that share nothing."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        (folder / f"{i:03d}.png").write_bytes(saved(Image.fromarray(pixels), "PNG"))
    return folder


def program(*arguments: str | Path, **options: object) -> "subprocess.Popen[str]":
    """The command line in a process of its own, with a cache of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "pokegan", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def fails(*arguments: str | Path, **options: object) -> str:
    """The one line of a command that ends with exit code 2."""
    with ending(program(*arguments, **options)) as process:
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, ""), (out, errors)
    assert len(errors.splitlines()) == 1, errors
    return errors


class Vanishing(FolderSource):
    """A folder of which files are removed, or replaced by a folder, when they have been listed."""

    def entries(self) -> list[Entry]:
        found = super().entries()
        (self.path / "001.png").unlink()
        (self.path / "003.png").unlink()
        (self.path / "003.png").mkdir()
        return found


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_vanishes_is_in_the_report(tmp_path: Path, workers: int) -> None:
    source = Vanishing(noise(tmp_path / "in", 5))
    images = prepare(source, PrepareOptions(16), tmp_path / "out", workers=workers)
    assert images.names == ["000.png", "002.png", "004.png"]
    assert {row.name: row.reason for row in images.manifest.skipped} == {
        "001.png": "cannot be read: No such file or directory",
        "003.png": "not a regular file",
    }
    again = cached(FolderSource(source.path), PrepareOptions(16), workers=0)
    assert again.manifest.checksum == images.manifest.checksum


def test_a_folder_that_vanishes_is_one_line(tmp_path: Path) -> None:
    source = FolderSource(noise(tmp_path / "in", 2))
    shutil.rmtree(source.path)
    with pytest.raises(DataError, match=r"in cannot be read: No such file"):
        prepare(source, PrepareOptions(16), tmp_path / "out", workers=0)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user of the machine can reach and write, unlike `tmp_path`."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o700)
    shutil.rmtree(folder)


def prepare_as_nobody(*arguments: str | Path) -> tuple[int, str, str]:
    """`pokegan data prepare` by a user without privileges: exit code, output, errors.

    The process warms up with the privileges it has, for they may be needed to read this Python.
    """
    flags = ("--size", "16", "--workers", "0")
    script = f"""
        import contextlib, io, os, sys, tempfile
        from pathlib import Path
        from PIL import Image
        from pokegan.cli.main import main
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            Image.new("RGB", (9, 9)).save(Path(folder) / "a.png")
            assert main(["data", "prepare", folder, "--out", f"{{folder}}/out", *{flags!r}]) == 0
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid({NOBODY})
            os.setuid({NOBODY})
        os.chdir("/")
        sys.exit(main(["data", "prepare", *sys.argv[1:], *{flags!r}]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def test_folders_that_are_shut(public: Path) -> None:
    noise(public / "in", 3).chmod(0o755)
    (noise(public / "in" / "shut", 1, seed=9)).chmod(0)
    (public / "in" / "002.png").chmod(0)
    code, out, errors = prepare_as_nobody(public / "in", "--out", public / "out")
    assert (code, errors) == (0, "")
    assert "cannot be read: Permission denied (2): 002.png, shut" in out
    assert PackedImages.open(public / "out").names == ["000.png", "001.png"]
    code, out, errors = prepare_as_nobody(public / "in" / "shut", "--out", public / "b")
    assert (code, out) == (2, "")
    shut = public / "in" / "shut"
    assert errors == f"pokegan: error: {shut} cannot be read: Permission denied\n"
    (public / "closed").mkdir(mode=0o755)
    if os.geteuid() != 0:
        (public / "closed").chmod(0o555)
    place = public / "closed" / "set"
    code, out, errors = prepare_as_nobody(public / "in", "--out", place)
    assert (code, out) == (2, "")
    assert errors == f"pokegan: error: cannot write {place}: Permission denied\n"
    assert sorted(path.name for path in public.iterdir()) == ["closed", "in", "out"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 256 KiB."""
    (place := tmp_path / "disk").mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=256k", "pokegan-test", str(place)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_full_disk(tmp_path: Path, small_disk: Path, workers: str) -> None:
    few, many = noise(tmp_path / "few", 2), noise(tmp_path / "many", 30, seed=1)
    old = prepare(FolderSource(few), PrepareOptions(64), small_disk / "set", workers=0)
    flags = ("--size", "64", "--workers", workers, "--out", small_disk / "set")
    message = fails("data", "prepare", many, *flags)
    assert "cannot write" in message
    assert "No space left on device" in message
    now = PackedImages.open(small_disk / "set", verify=True)
    assert now.manifest == old.manifest
    assert [path.name for path in small_disk.iterdir()] == ["set"]


def test_a_full_disk_under_the_contact_sheet(tmp_path: Path, small_disk: Path) -> None:
    prepare(
        FolderSource(noise(tmp_path / "in", 40)), PrepareOptions(64), tmp_path / "set", workers=0
    )
    sheet = small_disk / "sheet.png"
    message = fails("data", "inspect", tmp_path / "set", "--sheet", sheet)
    assert f"cannot write {sheet}: No space left on device" in message
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("workers", ["0", "2"])
def test_sigkill_leaves_the_older_set(tmp_path: Path, workers: str) -> None:
    old = prepare(
        FolderSource(noise(tmp_path / "few", 2)), PrepareOptions(16), tmp_path / "set", workers=0
    )
    many = noise(tmp_path / "many", 1, side=1000)
    for i in range(1, 32):
        os.link(many / "000.png", many / f"{i:03d}.png")
    flags = ("--size", "16", "--workers", workers, "--out", tmp_path / "set")
    with ending(program("data", "prepare", many, *flags)) as process:
        deadline = time.monotonic() + 60
        while (
            not any(part.stat().st_size for part in tmp_path.glob(".set-*.part/images.u8"))
            and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        children = _children(process.pid)
        assert len(children) == int(workers)
        process.kill()
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (-signal.SIGKILL, "")
    assert PackedImages.open(tmp_path / "set", verify=True).manifest == old.manifest
    while any(map(_runs, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_runs, children))
    left = list(tmp_path.glob(".set-*.part"))  # for a day, in case it is being written
    assert len(left) == 1
    assert not (left[0] / "manifest.json").exists()
    again = prepare(FolderSource(tmp_path / "few"), PrepareOptions(16), tmp_path / "set", workers=0)
    assert again.manifest.checksum == old.manifest.checksum


def _children(process: int) -> list[int]:
    """The direct children of a process, by /proc."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        found += map(int, task.read_text().split())
    return found


def _runs(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
