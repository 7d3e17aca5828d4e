"""The cache: at once the second time, never stale, mended when damaged."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from awkward import Files
from children import ending
from picture_files import saved
from PIL import Image

from pokegan.data import DrawnEntry, Entry, PackedImages, PrepareOptions, cached, prepare
from pokegan.data import cache as cache_module
from pokegan.data import square as square_module
from pokegan.data.refusals import DecodeError
from pokegan.errors import DataError

OPTIONS = PrepareOptions(8)


@pytest.fixture
def pictures(tmp_path: Path) -> Files:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(5):
        paint(folder / f"{i}.png", i)
    return Files(folder)


def paint(path: Path, level: int) -> None:
    """A picture whose file has the same length for every level."""
    path.write_bytes(saved(Image.new("RGB", (8, 8), (50 * level, 0, 0)), "BMP"))


def age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the cache believe that all files are old (their change times cannot be set)."""
    monkeypatch.setattr(cache_module, "_SETTLED_SECONDS", -1e9)


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records each time a set is really prepared."""
    calls: list[str] = []
    real = cache_module.pack

    def pack(*arguments: object) -> object:
        calls.append("pack")
        return real(*arguments)

    monkeypatch.setattr(cache_module, "pack", pack)
    return calls


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records each file that is read for its hash."""
    names: list[str] = []
    real = cache_module.content_hash

    def content_hash(entry: Entry, limit: int) -> str | None:
        if not isinstance(entry, DrawnEntry):
            names.append(entry.name)
        return real(entry, limit)

    monkeypatch.setattr(cache_module, "content_hash", content_hash)
    return names


def test_second_time_prepares_nothing(cache: Path, pictures: Files, packs: list[str]) -> None:
    first = cached(pictures, OPTIONS, workers=0)
    second = cached(pictures, OPTIONS, workers=0)
    assert len(packs) == 1
    assert first.path == second.path
    assert cache in first.path.parents
    assert (first.images == second.images).all()
    assert prepare(pictures, OPTIONS, workers=0).path == first.path


def test_unchanged_old_files_are_not_even_read(
    cache: Path, pictures: Files, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(pictures, OPTIONS, workers=0)
    cached(pictures, OPTIONS, workers=0)
    assert len(reads) == 10  # the files are seconds old: their times prove nothing
    age(monkeypatch)
    cached(pictures, OPTIONS, workers=0)
    assert len(reads) == 15
    cached(pictures, OPTIONS, workers=0)
    assert len(reads) == 15


def test_changed_content_of_the_same_length_and_time_is_noticed(
    cache: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(monkeypatch)
    path = pictures.folder / "3.png"
    before = cached(pictures, OPTIONS, workers=0)
    status = path.stat()
    paint(path, 5)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = cached(pictures, OPTIONS, workers=0)
    assert after.path != before.path
    assert after.images[3, 0, 0, 0] == 250
    paint(path, 3)
    assert cached(pictures, OPTIONS, workers=0).path == before.path


def test_every_option_name_and_removal_makes_another_set(cache: Path, pictures: Files) -> None:
    paths = {cached(pictures, OPTIONS, workers=0).path}
    paths.add(cached(pictures, PrepareOptions(9), workers=0).path)
    paths.add(cached(pictures, PrepareOptions(8, background=(0, 0, 0)), workers=0).path)
    (pictures.folder / "0.png").rename(pictures.folder / "9.png")
    paths.add(cached(pictures, OPTIONS, workers=0).path)
    (pictures.folder / "9.png").unlink()
    paths.add(cached(pictures, OPTIONS, workers=0).path)
    pictures.rejected.append(("x", "cannot be read"))
    paths.add(cached(pictures, OPTIONS, workers=0).path)
    assert len(paths) == 6


def test_another_tool_makes_another_set(
    cache: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set made without resvg is not used any more when resvg has been installed."""
    before = cached(pictures, OPTIONS, workers=0)
    monkeypatch.setattr(cache_module, "tool_versions", lambda: {"resvg_py": "99"})
    assert cached(pictures, OPTIONS, workers=0).path != before.path


@pytest.mark.parametrize("name", ["images.u8", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_set_is_made_anew(
    cache: Path, pictures: Files, packs: list[str], name: str, damage: str
) -> None:
    first = cached(pictures, OPTIONS, workers=0)
    expected = first.images[:].tolist()
    path = first.path / name
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(b"?" + content[1:] if damage == "flip" else content[:10])
    second = cached(pictures, OPTIONS, workers=0)
    assert len(packs) == 2
    assert second.images[:].tolist() == expected
    PackedImages.open(second.path, verify=True)


def test_refresh_prepares_again(cache: Path, pictures: Files, packs: list[str]) -> None:
    cached(pictures, OPTIONS, workers=0)
    cached(pictures, OPTIONS, workers=0, refresh=True)
    assert len(packs) == 2


def test_a_file_that_changes_while_it_is_read_is_prepared_as_it_is_then(
    cache: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cache_module.pack
    levels = iter([5, 4])

    def pack(*arguments: object) -> object:
        if level := next(levels, None):
            paint(pictures.folder / "0.png", level)
        return real(*arguments)

    monkeypatch.setattr(cache_module, "pack", pack)
    options = PrepareOptions(8, keep_duplicates=True)
    assert cached(pictures, options, workers=0).images[0, 0, 0, 0] == 200
    levels = iter([3, 2, 1])
    with pytest.raises(DataError, match="change while they are read"):
        cached(pictures, options, workers=0, refresh=True)


@pytest.mark.parametrize(
    "reason", ["took too long: over 10 s", "out of memory", "crashed the decoder"]
)
def test_what_the_machine_had_a_part_in_is_tried_again(
    cache: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    age(monkeypatch)
    real = square_module.upright_original

    def decode(content: bytes, *rest: object) -> object:
        if content == (pictures.folder / "2.png").read_bytes():
            raise DecodeError(reason)
        return real(content, *rest)

    monkeypatch.setattr(square_module, "upright_original", decode)
    first = cached(pictures, OPTIONS, workers=0)
    assert [row.reason for row in first.manifest.skipped] == [reason]
    monkeypatch.setattr(square_module, "upright_original", real)
    assert len(cached(pictures, OPTIONS, workers=0)) == len(first) + 1


def test_what_is_wrong_with_a_file_is_remembered(
    cache: Path, pictures: Files, packs: list[str]
) -> None:
    (pictures.folder / "2.png").write_bytes(b"text")
    for _ in range(2):
        assert len(cached(pictures, OPTIONS, workers=0).manifest.skipped) == 1
    assert len(packs) == 1


def test_a_set_of_the_same_content_has_the_name_that_was_asked_for(
    cache: Path, pictures: Files, packs: list[str]
) -> None:
    twin = Files(pictures.folder)
    twin.name, twin.origin = "twin", "elsewhere"
    first = cached(pictures, OPTIONS, workers=0)
    second = cached(twin, OPTIONS, workers=0)
    assert len(packs) == 1
    assert (first.manifest.source, second.manifest.source) == ("pictures", "twin")
    assert first.manifest.origin != second.manifest.origin
    assert cached(pictures, OPTIONS, workers=0).manifest.source == "pictures"


def test_drawn_sets_are_cached(cache: Path, packs: list[str]) -> None:
    class Drawn:
        name = origin = "drawn"
        rejected: ClassVar[list[tuple[str, str]]] = []

        def entries(self) -> list[Entry]:
            return [DrawnEntry(f"creature-{i}", i, 0) for i in range(3)]

    assert len(cached(Drawn(), OPTIONS, workers=0)) == 3
    assert len(cached(Drawn(), OPTIONS, workers=0)) == 3
    assert len(packs) == 1


def test_abandoned_work_is_removed_after_a_day(cache: Path, pictures: Files) -> None:
    for name, hours in ((".old-1.part", 25), (".new-1.part", 1)):
        folder = cache / "prepared" / name
        folder.mkdir(parents=True)
        then = folder.stat().st_mtime - 3600 * hours
        os.utime(folder, (then, then))
    cached(pictures, OPTIONS, workers=0)
    hidden = [path.name for path in (cache / "prepared").glob(".*")]
    assert hidden == [".new-1.part"]


def test_several_processes_at_once_get_the_same_set(cache: Path, pictures: Files) -> None:
    root = Path(__file__).resolve().parents[2]
    script = (
        f"import sys; sys.path[:0] = [{str(root)!r}, {str(Path(__file__).parent)!r}]\n"
        "from pathlib import Path\nfrom awkward import Files\n"
        "from pokegan.data import PrepareOptions, cached\n"
        f"s = cached(Files(Path({str(pictures.folder)!r})), PrepareOptions(8), workers=0)\n"
        "print(len(s), int(s.images.sum()), s.path)\n"
    )
    command = [sys.executable, "-c", script]
    with contextlib.ExitStack() as stack:
        runs = [
            stack.enter_context(
                ending(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            )
            for _ in range(4)
        ]
        said = {run.communicate(timeout=60)[0] for run in runs}
    assert len(said) == 1
    assert said.pop().startswith("5 ")
    assert not list((cache / "prepared").glob(".*"))
