"""What the ranks' watch takes for a rank that is stuck, and what not."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore

from pokegan.config import RunConfig, override
from pokegan.data.packed import PackedImages
from pokegan.errors import ConfigError, DivergedError, PeerError
from pokegan.training import watch as watch_module
from pokegan.training.distributed import Ranks
from pokegan.training.growth import Growth
from pokegan.training.joining import _told_first
from pokegan.training.launch import Launch
from pokegan.training.quality import Quality
from pokegan.training.run_folder import create
from pokegan.training.trainer import Trainer
from pokegan.training.watch import Watch


class Telling(Watch):
    """A watch that keeps what it would end its process with."""

    def __init__(self, store: HashStore, rank: int, count: int) -> None:
        self.told: list[str] = []
        super().__init__(store, rank, count, f"process {rank} on here")
        self.timeout = 0.5

    def _stuck(self) -> str:
        return "stuck"

    def _end(self, message: str) -> None:
        self.told.append(message)


@pytest.fixture
def pair() -> Iterator[list[Ranks]]:
    """Two ranks that are threads of this process, each with its watch."""
    store = HashStore()
    watches = [Telling(store, rank, 2) for rank in range(2)]
    for watch in watches:
        watch.start()
    yield [Ranks(Launch(rank, 2), store, watch) for rank, watch in enumerate(watches)]
    for watch in watches:
        watch.close()


def told(ranks: Ranks) -> list[str]:
    assert isinstance(ranks.watch, Telling)
    return ranks.watch.told


def test_work_of_rank_0_may_take_longer_than_the_limit(pair: list[Ranks]) -> None:
    done: list[str] = []

    def work() -> None:
        time.sleep(1.5)
        done.append("work")

    def follow() -> None:
        with pair[1].watched():
            pair[1].on_main(lambda: done.append("by the wrong one"))
            done.append("rank 1")

    other = threading.Thread(target=follow)
    other.start()
    with pair[0].watched():
        pair[0].on_main(work)
    other.join(20)
    assert done == ["work", "rank 1"]
    assert told(pair[0]) == told(pair[1]) == []


def test_rank_0_waits_until_all_are_there(pair: list[Ranks]) -> None:
    done: list[str] = []

    def follow() -> None:
        time.sleep(0.5)
        done.append("rank 1")
        pair[1].await_all()

    other = threading.Thread(target=follow)
    other.start()
    pair[0].await_all()
    done.append("rank 0")
    other.join(20)
    assert done == ["rank 1", "rank 0"]


def test_rank_0_does_not_wait_for_one_that_has_failed(
    pair: list[Ranks], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "GRACE_SECONDS", 60.0)  # the process shall not end
    pair[1].fails(ConfigError("no GPU for it"))
    with pytest.raises(PeerError) as caught:
        pair[0].await_all()
    assert caught.value.code == 2


def test_a_rank_that_does_nothing_is_told(pair: list[Ranks]) -> None:
    with pair[0].watched():
        time.sleep(1.2)
    assert told(pair[0]) != []
    assert told(pair[1]) == []


def test_a_divergence_is_told_before_it_is_drawn(
    pair: list[Ranks], tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "GRACE_SECONDS", 60.0)  # the process shall not end
    main, other = pair[0].watch, pair[1].watch
    assert main is not None
    assert other is not None
    packed = PackedImages.open(tiny.data.source)
    ranks = Lone(Launch(), pair[0].store, main)
    folder = create(tiny, tmp_path / "run")
    trainer = Trainer(tiny, Growth(tiny, packed), folder, packed.checksum, ranks)
    failed_when_drawn: list[int | None] = []

    def draw() -> None:
        end = time.monotonic() + 10
        while other.failed is None and time.monotonic() < end:
            time.sleep(0.02)
        failed_when_drawn.append(other.failed)

    def diverge(*_: object) -> None:
        raise DivergedError("not finite")

    monkeypatch.setattr(trainer, "_draw", draw)
    monkeypatch.setattr(trainer, "_loop", diverge)
    with pytest.raises(DivergedError) as caught:
        trainer.train()
    assert failed_when_drawn == [2]
    assert _told_first(main, 0, caught.value) == (caught.value, True)  # and it says why


class Gone(HashStore):
    """A store that is lost once a rank has told of itself."""

    def set(self, key: str, value: str) -> None:
        if self.num_keys():
            raise RuntimeError("Connection reset by peer")
        super().set(key, value)


@pytest.mark.parametrize(("failed", "told"), [(None, 1), (2, 0)])
def test_a_rank_that_waits_without_a_store_ends_and_says_so(
    failed: int | None,
    told: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(watch_module, "GRACE_SECONDS", 0.1)
    codes: list[int] = []
    watch = Watch(Gone(), 3, 4, "process 3 on here")
    watch.failed = failed

    def end(code: int) -> None:
        codes.append(code)
        watch._closing.set()

    monkeypatch.setattr(watch_module.os, "_exit", end)
    watch.start()
    watch.join(20)
    assert codes == [1]
    text = "pokegan: error: rank 3: the job's store is gone: torchrun on the host of rank 0 ended"
    assert capsys.readouterr().err.splitlines().count(text) == told


class Lone(Ranks):
    """A rank that is watched, with nobody to exchange anything with."""

    @property
    def several(self) -> bool:
        return False


def test_a_measurement_may_take_longer_than_the_limit(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = HashStore()
    watch = Telling(store, 0, 1)
    changes = {"output.metrics_every": 0.02, "output.metrics_features": "pyramid"}
    config = override(tiny, {**changes, "output.metrics_samples": 10, "length.steps": 3})
    packed = PackedImages.open(config.data.source)
    folder = create(config, tmp_path / "run")
    ranks = Lone(Launch(), store, watch)
    trainer = Trainer(config, Growth(config, packed), folder, packed.checksum, ranks)
    measure, armed = Quality.measure, []

    def note(*arguments: object) -> object:
        armed.append(watch.armed)
        return measure(*arguments)

    monkeypatch.setattr(Quality, "measure", note)
    monkeypatch.setattr(ranks, "mean", lambda values: torch.clone(values))
    assert trainer.train().steps == 3
    assert armed == [False]
    assert folder.best.is_file()
