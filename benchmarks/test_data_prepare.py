"""Preparing pictures on two cores against one, and with two processes against one on all cores.

`POKEGAN_BENCH_PREPARE` sets how many pictures: 750, as a small collection has. There the
quarter of a second counts in which processes start and the set is put in its place; the goal is
asked of 3,000.
"""

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pokegan.data import PrepareOptions, prepare
from pokegan.data.demo_files import write_demo
from pokegan.data.sources import FolderSource
from pokegan.data.store import Store
from pokegan.data.workers import WorkerPool

COUNT, SIDE = int(os.environ.get("POKEGAN_BENCH_PREPARE", "750")), 256


@pytest.fixture(scope="module", params=[COUNT])
def pictures(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RGBA PNG files, as many and as large as the art that these programs were made for."""
    folder = tmp_path_factory.mktemp("pictures")
    write_demo(folder, SIDE, request.param, seed=0, workers=None)
    return folder


@pytest.fixture(scope="module")
def cores() -> Iterator[list[int]]:
    """Two cores of this process; it has its own again afterwards."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("cores cannot be chosen here")
    own = os.sched_getaffinity(0)
    if len(own) < 2:
        pytest.skip("one core")
    yield sorted(own)[:2]
    os.sched_setaffinity(0, own)


@pytest.mark.parametrize("pictures", [COUNT, 4 * COUNT], indirect=True)
def test_data_prepare_on_two_cores_against_one(pair, pictures, cores, tmp_path) -> None:
    """The goal is 1.8 with 3,000. As many processes as cores, which the main process shares.

    Both cores take turns at being the one: where others use the machine, one may be the slower.
    """
    source, options = FolderSource(pictures), PrepareOptions(64)
    turns = itertools.cycle(cores)

    def prepare_on(*chosen: int) -> None:
        os.sched_setaffinity(0, chosen)
        prepare(source, options, tmp_path / str(len(chosen)))

    count = len(source.entries())
    pair(lambda: prepare_on(*cores), lambda: prepare_on(next(turns)), amount=count)


def test_data_prepare_on_two_cores_but_for_start_and_end(pair, pictures, cores, tmp_path) -> None:
    """What the two cores give to processes that are there already: no ratio is higher."""
    entries, options = FolderSource(pictures).entries(), PrepareOptions(64)
    store = Store(tmp_path / "images", tmp_path / "thumbnails")
    for path in store:
        path.touch()
    turns = itertools.cycle(cores)
    with ExitStack() as stack:
        pools = {}
        for chosen in (tuple(cores), *((core,) for core in cores)):
            os.sched_setaffinity(0, chosen)
            pools[chosen] = stack.enter_context(WorkerPool(options, len(chosen), store))
            list(pools[chosen].map(entries[:64]))

        def map_on(*chosen: int) -> None:
            os.sched_setaffinity(0, chosen)
            list(pools[chosen].map(entries))

        pair(lambda: map_on(*cores), lambda: map_on(next(turns)), amount=COUNT)


def test_data_prepare_with_two_processes_against_one(pair, pictures, tmp_path) -> None:
    """One process leaves the main process a core of its own, so that 2 cannot be reached."""
    source, options = FolderSource(pictures), PrepareOptions(64)

    def ours() -> None:
        prepare(source, options, tmp_path / "two", workers=2)

    def theirs() -> None:
        prepare(source, options, tmp_path / "one", workers=1)

    pair(ours, theirs, amount=COUNT)
