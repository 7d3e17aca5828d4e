"""Where commands are typed that need a folder of their own."""

from pathlib import Path

import pytest


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tests' working folder, with a cache of its own beside it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("POKEGAN_CACHE", str(tmp_path / "cache"))
    return folder
