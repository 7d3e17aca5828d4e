"""stats.jsonl: round trip, strict JSON, cut on resume, killed in the middle."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pokegan.errors import DataError
from pokegan.monitor.stats import StatsWriter, read_stats


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "stats.jsonl"


def fill(path, steps):
    with StatsWriter(path) as writer:
        for step in steps:
            writer.write(step, {"kimg": step / 10, "loss/generator": 1.0 / step})


def test_round_trip(path):
    with StatsWriter(path) as writer:
        writer.write(10, {"kimg": 0.64, "device": "cpu", "graph": True, "rank": 3, "none": None})
        writer.write(20, {"kimg": np.float32(1.28), "count": np.int64(7)})
    assert read_stats(path) == [
        {"step": 10, "kimg": 0.64, "device": "cpu", "graph": True, "rank": 3, "none": None},
        {"step": 20, "kimg": 1.28, "count": 7},
    ]
    assert path.read_bytes().count(b"\n") == 2


def test_strict_json(path):
    def refuse(name):
        raise AssertionError(name)

    with StatsWriter(path) as writer:
        writer.write(1, {"a": float("nan"), "b": float("inf"), "c": np.float32("-inf"), "d": 0.5})
    record = json.loads(path.read_text(), parse_constant=refuse)
    assert record == {"step": 1, "a": None, "b": None, "c": None, "d": 0.5}


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_float32_comes_back_to_its_precision(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("stats") / "stats.jsonl"
    with StatsWriter(path) as writer:
        writer.write(1, {"value": value})
    assert read_stats(path)[0]["value"] == pytest.approx(value, rel=5e-7, abs=0)


def test_floats_are_short(path):
    with StatsWriter(path) as writer:
        writer.write(1, {"loss": 0.1 + 0.2, "kimg": 1234.5678949})
    assert path.read_text() == '{"step": 1, "loss": 0.3, "kimg": 1234.568}\n'


def test_each_line_is_there_at_once(path):
    with StatsWriter(path) as writer:
        for step in (1, 2, 3):
            writer.write(step, {})
            assert [record["step"] for record in read_stats(path)] == list(range(1, step + 1))


@pytest.mark.parametrize("value", [torch.tensor(1.0), [1.0], {"a": 1}, 1 + 2j])
def test_other_values_are_refused_by_name(path, value):
    with StatsWriter(path) as writer:
        with pytest.raises(TypeError, match="loss/generator"):
            writer.write(1, {"loss/generator": value})
        writer.write(2, {})
    assert read_stats(path) == [{"step": 2}]


def test_a_second_step_is_refused(path):
    with StatsWriter(path) as writer, pytest.raises(ValueError, match="step"):
        writer.write(1, {"step": 2})


def test_resume_cuts_later_records_and_goes_on(path):
    fill(path, [10, 20, 30, 40])
    kept = path.read_bytes().splitlines(keepends=True)[:2]
    with StatsWriter(path, resume_step=25) as writer:
        assert path.read_bytes() == b"".join(kept)
        writer.write(30, {"kimg": 99.0})
    assert [record["step"] for record in read_stats(path)] == [10, 20, 30]
    assert read_stats(path)[-1]["kimg"] == 99.0


def test_resume_keeps_the_step_itself(path):
    fill(path, [10, 20])
    StatsWriter(path, resume_step=20).close()
    assert [record["step"] for record in read_stats(path)] == [10, 20]


def test_resume_without_a_file(path):
    with StatsWriter(path, resume_step=5) as writer:
        writer.write(6, {})
    assert read_stats(path) == [{"step": 6}]


def test_a_new_run_starts_empty(path):
    fill(path, [10, 20])
    StatsWriter(path).close()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("lost", [1, 2, 10, 30])
def test_half_a_last_line(path, lost):
    fill(path, [10, 20, 30])
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    # with nothing but its line end lost the record is still whole
    steps = [10, 20, 30] if lost == 1 else [10, 20]
    assert [record["step"] for record in read_stats(path)] == steps
    with StatsWriter(path, resume_step=30) as writer:
        writer.write(40, {})
    assert [record["step"] for record in read_stats(path)] == [*steps, 40]


@pytest.mark.parametrize("line", [b"nonsense", b'{"kimg": 1}', b"[1]", b"", b"\x00\xff"])
def test_damage_elsewhere_is_told_with_its_line(path, line):
    fill(path, [10, 20])
    first, second = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, line, second, b""]))
    before = path.read_bytes()
    for read in (lambda: read_stats(path), lambda: StatsWriter(path, resume_step=20)):
        with pytest.raises(DataError, match="line 2"):
            read()
    assert path.read_bytes() == before


def test_a_missing_file_has_no_records(path):
    assert read_stats(path) == []


def test_a_failed_cut_leaves_the_old_file(path, monkeypatch):
    fill(path, [10, 20])
    before = path.read_bytes()

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        StatsWriter(path, resume_step=10)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_killed_while_writing(path):
    """What was written before a SIGKILL can be read, and the run resumed."""
    code = (
        "import sys; from pathlib import Path; from pokegan.monitor.stats import StatsWriter\n"
        "writer = StatsWriter(Path(sys.argv[1]))\n"
        "for step in range(1, 10**9):\n"
        "    writer.write(step, {'loss/generator': 1 / step})\n"
        "    if step == 500: print('ready', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "ready\n"
        os.kill(child.pid, signal.SIGKILL)
    found = [record["step"] for record in read_stats(path)]
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= 500
    StatsWriter(path, resume_step=400).close()
    assert [record["step"] for record in read_stats(path)] == list(range(1, 401))
