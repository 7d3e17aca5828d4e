"""Which signals end a run in a checkpoint, and which at once."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pokegan.config import RunConfig
from pokegan.training import checkpoint
from pokegan.training.growth import Growth
from pokegan.training.interrupt import Interruption
from pokegan.training.session import train


@pytest.fixture
def reached() -> Iterator[list[int]]:
    """The signals that came through to the handlers of before; here they end nothing."""
    numbers: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: numbers.append(number))
        for number in Interruption.SIGNALS
    }
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("forwarded", [False, True])
@pytest.mark.parametrize("first", Interruption.SIGNALS)
def test_a_second_signal(reached: list[int], first: int, forwarded: bool) -> None:
    with Interruption(forwarded) as interruption:
        signal.raise_signal(first)
        assert (interruption.signal, reached) == (first, [])
        signal.raise_signal(signal.SIGTERM)
        assert reached == ([] if forwarded else [signal.SIGTERM])
        signal.raise_signal(signal.SIGINT)
        assert reached[-1:] == [signal.SIGINT]
        assert interruption.signal == first
    reached.clear()
    signal.raise_signal(signal.SIGTERM)
    assert reached == [signal.SIGTERM]


@pytest.mark.parametrize("job", ["", "a job"])
def test_what_torchrun_sends_on_does_not_cost_the_checkpoint(
    tiny: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reached: list[int],
    job: str,
) -> None:
    real = Growth.prepare

    def prepare(self: Growth, parts: object, index: int, step: int) -> None:
        real(self, parts, index, step)
        if step == 2:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", job)
    monkeypatch.setattr(Growth, "prepare", prepare)
    run = train(tiny, tmp_path / "run")
    assert (run.steps, run.signal) == (3, signal.SIGTERM)
    assert checkpoint.newest(run.folder / "checkpoints")[1]["step"] == 3
    assert reached == ([] if job else [signal.SIGTERM])
