"""What `--data` can mean, and which files of a folder are pictures."""

import io
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from pokegan.cache_folder import cache_folder
from pokegan.data import prepare
from pokegan.data.entries import DrawnEntry, FileEntry
from pokegan.data.options import PrepareOptions
from pokegan.data.packed import PackedImages
from pokegan.data.sources import DemoSource, FolderSource, open_data, resolve
from pokegan.data.streamed import open_streamed
from pokegan.errors import ConfigError, DataError

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="a matter of POSIX file systems")


def _png(colour: tuple[int, int, int] = (200, 30, 40), side: int = 12) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(content, "PNG")
    return content.getvalue()


PNG = _png()


def _write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def _names(source: FolderSource) -> list[str]:
    return [entry.name for entry in source.entries()]


@pytest.fixture
def said() -> list[str]:
    return []


# Folders


def test_a_note_with_a_strange_encoding_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    note = '<?xml version="1.0" encoding="idna"?><a>' + "\u00fc" * 80 + "..</a>"
    (tmp_path / "note.xml").write_text(note, encoding="utf-8")
    source = FolderSource(tmp_path)
    assert [entry.name for entry in source.entries()] == ["a.png"]
    assert source.rejected == [("note.xml", "not a picture: HTML or XML")]


def test_pictures_are_taken_by_content(tmp_path: Path) -> None:
    folder = _write(
        tmp_path / "my pics",
        {
            "10.png": PNG,
            "2.JPG": PNG,
            "1": PNG,
            "deep/er/ünï code.gif": PNG,
            "note.txt": PNG,
            ".hidden.png": PNG,
            "drawing.xml": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>",
            "broken.png": b"whatever is called a picture is judged in preparation",
        },
    )
    source = FolderSource(folder)
    expected = [".hidden.png", "1", "2.JPG", "10.png", "broken.png", "deep/er/ünï code.gif"]
    assert sorted(_names(source)) == sorted([*expected, "drawing.xml", "note.txt"])
    assert _names(source).index("2.JPG") < _names(source).index("10.png")
    assert source.rejected == []
    assert source.name == "my pics"
    entry = source.entries()[0]
    assert isinstance(entry, FileEntry)
    assert entry.path.read_bytes() == PNG


def test_what_lies_beside_pictures_is_counted(tmp_path: Path) -> None:
    folder = _write(
        tmp_path,
        {
            "a.png": PNG,
            "labels.CSV": b"a,b",
            "Thumbs.db": b"\xd0\xcf\x11\xe0" + bytes(100),
            ".DS_Store": bytes(10) + b"\xff" * 200,
            "data.json": b"{}",
            "__MACOSX/._a.png": b"\0\5\x16\7",
            ".git/objects/ab": PNG,
        },
    )
    source = FolderSource(folder)
    assert _names(source) == ["a.png"]
    reasons = dict(source.rejected)
    assert set(reasons) == {
        *("labels.CSV", "Thumbs.db", ".DS_Store", "data.json"),
        *("__MACOSX", ".git"),
    }
    assert reasons["__MACOSX"] == reasons[".git"] == "hidden folder"
    assert reasons["labels.CSV"].startswith("not a picture")
    assert reasons["Thumbs.db"].startswith("not a picture")


@posix_only
def test_links_are_followed_once(tmp_path: Path) -> None:
    outside = _write(tmp_path / "outside", {"o.png": PNG})
    folder = _write(tmp_path / "in", {"sub/a.png": PNG, "zsub/b.png": PNG})
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "above").symlink_to(tmp_path)
    (folder / "self").symlink_to("self")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "a twin").symlink_to("zsub")
    (folder / "out").symlink_to(outside)
    (folder / "out again").symlink_to(outside)
    (folder / "file.png").symlink_to(outside / "o.png")
    source = FolderSource(folder)
    assert sorted(_names(source)) == ["file.png", "out/o.png", "sub/a.png", "zsub/b.png"]
    assert dict(source.rejected) == {
        "above": "link: in a loop",
        "sub/up": "link: in a loop",
        "self": "link: in a loop",
        "gone.png": "link: to nothing",
        "a twin": "link: to a folder that is read already",
        "out again": "link: to a folder that is read already",
    }


@posix_only
def test_pipes_are_never_opened(tmp_path: Path) -> None:
    folder = _write(tmp_path, {"a.png": PNG})
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe.txt")
    source = FolderSource(folder)
    assert _names(source) == ["a.png"]
    assert {reason for _, reason in source.rejected} == {"not a regular file"}


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no UTF-8 exist on Linux")
def test_names_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"pika\xff.png")).write_bytes(PNG)
    images = prepare(FolderSource(tmp_path), PrepareOptions(8), tmp_path / "set", workers=0)
    assert images.names == ["pika\\xff.png"]


def test_prepared_sets_below_are_not_pictures(tmp_path: Path, packed_folder: Path) -> None:
    folder = _write(tmp_path, {"a.png": PNG})
    shutil.copytree(packed_folder, folder / "set-16")
    (folder / "set-16" / "contact-sheet.png").write_bytes(PNG)
    source = FolderSource(folder)
    assert _names(source) == ["a.png"]
    assert source.rejected == [("set-16", "prepared set")]


def test_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it is empty"):
        FolderSource(tmp_path).entries()
    _write(tmp_path, {"a.txt": b"text", "b.csv": b"text"})
    with pytest.raises(DataError, match=r"2 left out, the first is a\.txt: not a picture"):
        FolderSource(tmp_path).entries()


def test_entries_are_read_anew(tmp_path: Path) -> None:
    source = FolderSource(_write(tmp_path, {"a.png": PNG, "b.txt": b"text"}))
    assert len(source.entries()) == 1
    _write(tmp_path, {"c.png": PNG})
    assert len(source.entries()) == 2
    assert len(source.rejected) == 1


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user of the machine can reach, unlike `tmp_path`."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _as_nobody(check: Callable[[], bool]) -> bool:
    """Run `check` as a user without privileges, in a child where this process is root."""
    if os.geteuid() != 0:
        return check()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitpid(child, 0)[1] == 0


@posix_only
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_unreadable_files_and_folders_are_listed(public_folder: Path) -> None:
    folder = _write(public_folder, {"a.png": PNG, "b.png": PNG, "shut/c.png": PNG, "d.txt": b"d"})
    for name in ("b.png", "d.txt", "shut"):
        (folder / name).chmod(0)

    def check() -> bool:
        source = FolderSource(folder)
        reason = "cannot be read: Permission denied"
        listed = {"b.png": reason, "d.txt": reason, "shut": reason}
        return _names(source) == ["a.png"] and dict(source.rejected) == listed

    assert _as_nobody(check)

    def check_root() -> bool:
        with pytest.raises(DataError, match="Permission denied"):
            FolderSource(folder / "shut").entries()
        return True

    assert _as_nobody(check_root)
    (folder / "shut").chmod(0o700)


# The demo set


def test_demo_source() -> None:
    source = DemoSource(seed=3)
    entries = source.entries()
    assert len(entries) == 1024
    assert entries[7] == DrawnEntry("creature-0007", 7, 3)
    assert len(DemoSource(count=5).entries()) == 5
    many = DemoSource(count=20_001).entries()
    assert [many[i].name for i in (0, 9_999, 10_000, 20_000)] == [
        *("00/creature-000000", "00/creature-009999"),
        *("01/creature-010000", "02/creature-020000"),
    ]
    assert [entry.name for entry in many] == sorted(entry.name for entry in many)
    for wrong in ({"count": 0}, {"count": 1_000_001}, {"seed": -1}, {"seed": 2**64}):
        with pytest.raises(DataError):
            DemoSource(**wrong)


# What a text means


def test_names_and_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed_folder: Path, said: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(resolve("demo", said.append), DemoSource)
    assert said == []
    _write(tmp_path, {"demo/a.png": PNG})
    assert isinstance(resolve("demo", said.append), DemoSource)
    assert "./demo" in said[0]
    assert isinstance(resolve("./demo"), FolderSource)
    assert isinstance(resolve(str(packed_folder)), PackedImages)


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ("pokeapy", "did you mean pokeapi"),
        ("pictuers", "did you mean pictures"),
        ("", "kaggle:OWNER/NAME"),
        ("quite/another", "there is no data"),
    ],
)
def test_unknown_data_says_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    _write(tmp_path, {"pictures/a.png": PNG})
    with pytest.raises(DataError, match=hint) as caught:
        resolve(data)
    message = str(caught.value)
    assert "\n" not in message
    assert "a folder of pictures" in message


def test_a_user_that_there_is_not_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for function in (resolve, partial(open_streamed, options=PrepareOptions(8))):
        with pytest.raises(DataError, match="~nosuch/pictures: no folder is known for ~nosuch"):
            function("~nosuch/pictures")
    monkeypatch.setenv("POKEGAN_CACHE", "~nosuch/cache")
    with pytest.raises(ConfigError, match="POKEGAN_CACHE=~nosuch/cache"):
        cache_folder()


def test_one_file_is_not_a_set(tmp_path: Path) -> None:
    _write(tmp_path, {"a.png": PNG})
    with pytest.raises(DataError, match="the folder it is in"):
        resolve(str(tmp_path / "a.png"))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file that nobody can read")
@pytest.mark.parametrize("name", ["a.zip", "a"])
def test_a_file_that_cannot_be_read_is_not_the_caches_fault(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/proc/self/mem")
    with pytest.raises(DataError, match=rf"/{name} cannot be read: [^;]*$"):
        resolve(str(tmp_path / name))


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_archive_is_unpacked_once(tmp_path: Path, cache: Path, said: list[str], kind: str) -> None:
    path = tmp_path / f"my set.{kind}"
    files = {"in/a.png": PNG, "in/b.png": _png((1, 2, 3)), "../evil.png": PNG}
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    for _ in range(2):
        source = resolve(str(path), said.append)
        assert isinstance(source, FolderSource)
        assert _names(source) == ["in/a.png", "in/b.png"]
        assert source.name == "my set"
        assert source.rejected == [("../evil.png", "unsafe path: leaves the archive")]
    assert len(said) == 1
    assert [folder.name for folder in cache.iterdir()] == ["archives"]
    assert len(list((cache / "archives").iterdir())) == 1
    assert not (tmp_path / "evil.png").exists()


def test_damaged_archive_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(DataError, match="damaged"):
        resolve(str(tmp_path / "a.zip"), lambda message: None)
    assert not any((cache / "archives").iterdir())


# Pictures for training


def test_open_data_prepares_once(tmp_path: Path, cache: Path, said: list[str]) -> None:
    folder = _write(tmp_path / "pics", {"a.png": PNG, "b.txt": b"text", "c.png": b"broken"})
    first = open_data(str(folder), PrepareOptions(8), workers=0, say=said.append)
    assert first.names == ["a.png"]
    assert first.images[0, 4, 4].tolist() == [200, 30, 40]
    assert len(said) == 1
    again = open_data(str(folder), PrepareOptions(8), workers=0, say=said.append)
    assert again.path == first.path
    assert cache in again.path.parents
    assert len(said) == 1
    other = open_data(str(folder), PrepareOptions(16), workers=0, say=said.append)
    assert other.size == 16


def test_open_data_counts_progress(tmp_path: Path, cache: Path) -> None:
    folder = _write(tmp_path / "pics", {"a.png": PNG, "b.png": _png((0, 9, 0))})
    seen: list[tuple[int, int]] = []
    open_data(str(folder), PrepareOptions(8), lambda *done: seen.append(done), workers=0)
    assert seen == [(1, 2), (2, 2)]


def test_prepared_set_of_another_size(packed_folder: Path) -> None:
    assert open_data(str(packed_folder), PrepareOptions(16)).size == 16
    with pytest.raises(DataError, match="prepared at 16 px, not at 64 px: use --size 16"):
        open_data(str(packed_folder), PrepareOptions(64))
