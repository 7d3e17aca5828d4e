"""Preparing pictures on two cores against one, and with two processes against one on all cores.

`POKEGAN_BENCH_PREPARE` sets how many pictures: with few, the start of a process counts.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from pokegan.data import PrepareOptions, prepare
from pokegan.data.demo_files import write_demo
from pokegan.data.sources import FolderSource

COUNT, SIDE = int(os.environ.get("POKEGAN_BENCH_PREPARE", "750")), 256


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RGBA PNG files, as many and as large as the art that these programs were made for."""
    folder = tmp_path_factory.mktemp("pictures")
    write_demo(folder, SIDE, COUNT, seed=0, workers=None)
    return folder


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_data_prepare_on_two_cores_against_one(pair, pictures, tmp_path) -> None:
    """The goal is 1.8. As many processes as cores, which the main process shares with them."""
    source, options = FolderSource(pictures), PrepareOptions(64)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core")

    def prepare_on(chosen: Sequence[int]) -> None:
        os.sched_setaffinity(0, chosen)
        try:
            prepare(source, options, tmp_path / str(len(chosen)))
        finally:
            os.sched_setaffinity(0, cores)

    pair(lambda: prepare_on(cores[:2]), lambda: prepare_on(cores[:1]), amount=COUNT)


def test_data_prepare_with_two_processes_against_one(pair, pictures, tmp_path) -> None:
    """One process leaves the main process a core of its own, so that 2 cannot be reached."""
    source, options = FolderSource(pictures), PrepareOptions(64)

    def ours() -> None:
        prepare(source, options, tmp_path / "two", workers=2)

    def theirs() -> None:
        prepare(source, options, tmp_path / "one", workers=1)

    pair(ours, theirs, amount=COUNT)
