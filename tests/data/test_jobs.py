"""Jobs in child processes: order, errors, death, and an early end."""

import os
import platform
import time
from pathlib import Path

import pytest

from pokegan.data import jobs
from pokegan.data.jobs import in_order
from pokegan.errors import PokeganError


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_answers_come_in_order(workers: int) -> None:
    assert list(in_order(abs, range(-40, 0), workers)) == list(range(40, 0, -1))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_the_function_raises_is_raised_here(workers: int, tmp_path: Path) -> None:
    answers = in_order(os.stat, [str(tmp_path), str(tmp_path / "missing"), str(tmp_path)], workers)
    assert next(answers).st_ino == tmp_path.stat().st_ino
    with pytest.raises(FileNotFoundError) as caught:
        next(answers)
    assert caught.value.filename == str(tmp_path / "missing")


def test_a_child_that_dies_is_one_line() -> None:
    with pytest.raises(PokeganError, match="a worker process died: try again") as caught:
        list(in_order(os._exit, [3], 1))
    assert "\n" not in str(caught.value)


def test_an_early_end_does_not_wait_for_jobs() -> None:
    answers = in_order(time.sleep, [0, 60, 60, 60], 1)
    start = time.monotonic()
    next(answers)
    answers.close()
    assert time.monotonic() - start < 30


def test_jobs_are_taken_as_they_are_needed() -> None:
    taken = []

    def endless():
        i = 0
        while True:
            taken.append(i)
            yield i
            i += 1

    answers = in_order(abs, endless(), 2)
    for i in range(10):
        assert next(answers) == i
    answers.close()
    assert len(taken) <= 10 + (1 + jobs._AHEAD) * 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others have no such setting")
def test_a_process_keeps_the_memory_that_it_needs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each picture has the system give, and clear, the pages of the one before it."""
    code = """
import resource, sys
def faults():
    blocks = [bytearray(1 << 20) for _ in range(3)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = faults()
for _ in range(50):
    last = faults()
sys.stdout.write(str(last - first))
"""

    def faults() -> int:
        return int(jobs.spawn(code).communicate(timeout=60)[0])

    assert faults() < 50 * 100
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", str(1 << 20))  # who sets it, has it
    assert faults() > 50 * 300
