"""Archives of strangers: nothing leaves the target and nothing is half written."""

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from pokegan.data.archives import extract, is_archive, stem
from pokegan.errors import DataError

CONTENT = {"a.png": b"first", "deep/er/b.png": b"second" * 400, "ünï code.svg": b"third"}


def _add(archive: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    archive.addfile(member, io.BytesIO(content))


def _tar(path: Path, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in CONTENT.items():
            _add(archive, name, content)
    return path


def _zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in CONTENT.items():
            archive.writestr(name, content)
    return path


def _read(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _only(folder: Path, *names: str) -> None:
    """The folder holds these names and nothing else: nothing leaked, no temporary is left."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_of_every_compression(tmp_path: Path, mode: str) -> None:
    archive = _tar(tmp_path / "no-ending-at-all", mode)
    assert extract(archive, tmp_path / "out") == []
    assert _read(tmp_path / "out") == CONTENT
    _only(tmp_path, "no-ending-at-all", "out")


def test_zip(tmp_path: Path) -> None:
    assert extract(_zip(tmp_path / "a.zip"), tmp_path / "out") == []
    assert _read(tmp_path / "out") == CONTENT


def test_keep_chooses_files(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar")
    extract(archive, tmp_path / "out", keep=lambda path: path.parent.name == "er")
    assert list(_read(tmp_path / "out")) == ["deep/er/b.png"]


UNSAFE = ["../x", "a/../../x", "/x/y", "\\x", "C:\\x", "c:x", "..\\x", "..", "a/.."]


@pytest.mark.parametrize("name", UNSAFE)
def test_paths_that_leave_are_skipped(tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with tarfile.open(home / "a.tar", "w") as archive:
        _add(archive, name, b"evil")
        _add(archive, "good.png", b"good")
    with zipfile.ZipFile(home / "a.zip", "w") as packed:
        member = zipfile.ZipInfo("placeholder")
        member.filename = name
        packed.writestr(member, b"evil")
        packed.writestr("good.png", b"good")
    for kind in ("tar", "zip"):
        skipped = extract(home / f"a.{kind}", home / f"out-{kind}")
        assert len(skipped) == 1
        assert "path" in skipped[0][1]
        assert _read(home / f"out-{kind}") == {"good.png": b"good"}
    _only(tmp_path, "home")
    _only(home, "a.tar", "a.zip", "out-tar", "out-zip")


def test_links_and_devices_are_not_made(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        _add(archive, "way", type=tarfile.SYMTYPE, linkname=str(outside))
        _add(archive, "way/through.png", b"stays inside")
        _add(archive, "hard", type=tarfile.LNKTYPE, linkname="../outside/secret")
        _add(archive, "device", type=tarfile.CHRTYPE, devmajor=1, devminor=5)
        _add(archive, "pipe", type=tarfile.FIFOTYPE)
    skipped = dict(extract(tmp_path / "a.tar", tmp_path / "out"))
    assert skipped == {
        "way": "link: not unpacked",
        "hard": "link: not unpacked",
        "device": "not a regular file",
        "pipe": "not a regular file",
    }
    assert _read(tmp_path / "out") == {"way/through.png": b"stays inside"}
    assert _read(outside) == {"secret": b"secret"}


def test_link_in_a_zip_is_not_made(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("way")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc")
        archive.writestr("way/x.png", b"inside")
    assert extract(tmp_path / "a.zip", tmp_path / "out") == [("way", "link: not unpacked")]
    assert not (tmp_path / "out" / "way").is_symlink()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_second_entry_of_a_name_is_skipped(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    names = ("x.png", "x.png", "x.png/below.png")
    if kind == "tar":
        with tarfile.open(path, "w") as archive:
            for name in names:
                _add(archive, name, name.encode())
    else:
        with zipfile.ZipFile(path, "w") as packed:
            for name in names:
                packed.writestr(name, name.encode())
    skipped = extract(path, tmp_path / "out")
    assert [name for name, _ in skipped] == ["x.png", "x.png/below.png"]
    assert _read(tmp_path / "out") == {"x.png": b"x.png"}


def test_name_too_long_is_skipped(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        _add(archive, "n" * 300, b"1")
        _add(archive, "good", b"2")
    skipped = extract(tmp_path / "a.tar", tmp_path / "out")
    assert len(skipped) == 1
    assert "cannot be written" in skipped[0][1]


def test_escape_codes_do_not_reach_the_list(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        _add(archive, "../\x1b[31mred", b"1")
        _add(archive, "good", b"2")
    assert "\x1b" not in extract(tmp_path / "a.tar", tmp_path / "out")[0][0]


def _bomb(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(4 << 20))
    return path


def _lie_about_size(path: Path) -> None:
    """Write a small uncompressed size in both headers of a one-entry zip."""
    with zipfile.ZipFile(path) as archive:
        true = archive.infolist()[0].file_size
    content = path.read_bytes()
    path.write_bytes(content.replace(true.to_bytes(4, "little"), (100).to_bytes(4, "little")))


@pytest.mark.parametrize("lying", [False, True])
def test_zip_bomb_is_bounded(tmp_path: Path, lying: bool) -> None:
    bomb = _bomb(tmp_path / "a.zip")
    if lying:
        _lie_about_size(bomb)
    with pytest.raises(DataError, match=r"refused|damaged"):
        extract(bomb, tmp_path / "out", max_bytes=1 << 20)
    _only(tmp_path, "a.zip")


@pytest.mark.parametrize("name", ["big.png", "../big.png"])
def test_tar_bomb_is_bounded_also_where_it_is_skipped(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        _add(archive, name, bytes(4 << 20))
    with pytest.raises(DataError, match="1,048,576 bytes"):
        extract(tmp_path / "a.tar.gz", tmp_path / "out", max_bytes=1 << 20)
    _only(tmp_path, "a.tar.gz")


def test_huge_header_is_not_read_into_memory(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type = tarfile.XHDTYPE
    header.size = 1 << 30
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(header.tobuf())
        file.truncate(512 + (1 << 30))  # sparse: takes no room
    with pytest.raises(DataError, match="header"):
        extract(path, tmp_path / "out")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_number_of_entries_is_bounded(tmp_path: Path, kind: str) -> None:
    make = _tar if kind == "tar" else _zip
    archive = make(tmp_path / f"a.{kind}")
    with pytest.raises(DataError, match="more than 2 entries"):
        extract(archive, tmp_path / "out", max_files=2)
    _only(tmp_path, archive.name)


def test_a_zip_of_an_unknown_compression_says_so(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        place = content.find(mark) + offset
        content[place : place + 2] = b"\x09\x00"  # Deflate64, as Windows makes of large files
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read here \(method 9\): unpack it"):
        extract(path, tmp_path / "out")
    _only(tmp_path, "a.zip")


def test_encrypted_zip_says_so(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        found = content.find(mark)
        while found >= 0:
            content[found + at] |= 1
            found = content.find(mark, found + 4)
    path.write_bytes(content)
    with pytest.raises(DataError, match="encrypted"):
        extract(path, tmp_path / "out")
    _only(tmp_path, "a.zip")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_archive_is_one_error(tmp_path: Path, mode: str, damage: str) -> None:
    path = tmp_path / "a"
    if mode == "zip":
        _zip(path)
    else:
        _tar(path, mode)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        at = len(content) // 2 if mode != "w" else 700
        path.write_bytes(content[:at])
    else:
        at = 30 if mode != "w" else 3 * 512 // 2 + 300  # inside the second header of the plain tar
        content[at : at + 40] = bytes(byte ^ 0x5A for byte in content[at : at + 40])
        path.write_bytes(content)
    with pytest.raises(DataError, match="damaged") as caught:
        extract(path, tmp_path / "out")
    assert "\n" not in str(caught.value)
    _only(tmp_path, "a")


@pytest.mark.parametrize("content", [b"", b"hello", os.urandom(5000), b"\x1f\x8bno", b"PK\x03\x04"])
def test_what_is_no_archive_is_one_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError):
        extract(tmp_path / "a.zip", tmp_path / "out")
    _only(tmp_path, "a.zip")


def test_empty_archive_and_existing_target(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w"):
        pass
    with pytest.raises(DataError, match="no file"):
        extract(tmp_path / "a.zip", tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="exists"):
        extract(_zip(tmp_path / "b.zip"), tmp_path / "out")
    with pytest.raises(DataError, match="cannot be unpacked"):
        extract(tmp_path / "missing.zip", tmp_path / "new")


@pytest.mark.parametrize("name", ["a.ZIP", "b.tar", "c.Tar.Gz", "d.tgz", "e.txz"])
def test_endings_in_any_case(name: str) -> None:
    assert is_archive(Path(name))
    assert stem(name) == name[0]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_archives_are_told_by_content(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    assert is_archive(_zip(path) if mode == "zip" else _tar(path, mode))
    path.write_bytes(b"\x89PNG" + bytes(1000))
    assert not is_archive(path)
