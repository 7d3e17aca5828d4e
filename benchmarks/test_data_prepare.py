"""Preparing pictures with two processes against one."""

from pathlib import Path

import pytest

from pokegan.data import PrepareOptions, prepare
from pokegan.data.demo_files import write_demo
from pokegan.data.sources import FolderSource

COUNT, SIDE = 750, 256


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RGBA PNG files, as many and as large as the art that these programs were made for."""
    folder = tmp_path_factory.mktemp("pictures")
    write_demo(folder, SIDE, COUNT, seed=0, workers=None)
    return folder


def test_data_prepare_with_two_processes_against_one(pair, pictures, tmp_path) -> None:
    """The goal is 1.8 on two cores."""
    source, options = FolderSource(pictures), PrepareOptions(64)

    def ours() -> None:
        prepare(source, options, tmp_path / "two", workers=2)

    def theirs() -> None:
        prepare(source, options, tmp_path / "one", workers=1)

    pair(ours, theirs, amount=COUNT)
