"""Several ranks are one run: real processes under torchrun, with gloo."""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks_worker import FEWER, RUNS, name_of, train_case
from small_steps import tensors

from pokegan.monitor.stats import read_stats
from pokegan.training.distributed import Ranks
from pokegan.training.session import resume

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("ranks_worker.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
LIMIT = 300  # seconds; a run that hangs is a failure, not a stuck test
CHECKPOINT = "checkpoints/step-*.pt"
# A bias that no loss of differences sees: its gradient is rounding, which Adam makes a step of.
BLIND = {"ragan-float64": "networks.discriminator.linear.bias"}
SMALL = [
    "hpml",
    "--size",
    "16",
    "--batch",
    "12",
    "--precision",
    "fp32",
    "--device",
    "cpu",
    "--samples",
    "4",
    "--log-every",
    "10",
    "--checkpoint-every",
    "10",
    "--rank-timeout",
    "5",
    "--no-plots",
]


@contextlib.contextmanager
def torchrun(count: int, *command: str, folder: Path, restarts: int = 0) -> Iterator[Any]:
    """Start `command` on `count` ranks, in a session of its own that ends with the block."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    job = subprocess.Popen(
        [*TORCHRUN, str(count), "--max-restarts", str(restarts), *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield job
    finally:
        kill(job)
        job.wait(LIMIT)


def kill(job: Any) -> None:
    """Kill torchrun and its ranks, which write to the same pipe."""
    for worker in (*workers(job.pid).values(), job.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


def workers(parent: int) -> dict[int, int]:
    """Return the process of each rank that `parent` has started."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            status = (place / "stat").read_text().rpartition(")")[2].split()
            variables = (place / "environ").read_text().split("\0")
            ranks = [one[5:] for one in variables if one.startswith("RANK=")]
            if int(status[1]) == parent and ranks:
                found[int(ranks[0])] = int(place.name)
    return found


def wait_for(folder: Path, pattern: str, job: Any) -> Path:
    """Wait until there is what `pattern` names, and return the first of it."""
    end = time.monotonic() + LIMIT
    while not (found := sorted(folder.glob(pattern))):
        assert job.poll() is None, job.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.02)
    return found[0]


@contextlib.contextmanager
def limited(job: Any) -> Iterator[None]:
    """Kill `job` if the block takes longer than LIMIT: what waits for its words comes to an end."""
    timer = threading.Timer(LIMIT, kill, [job])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def lines(output: str, word: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith(word)]


@pytest.fixture(scope="module")
def alone(packed_folder: Path) -> dict[str, dict[str, Any]]:
    """What one process makes of every case."""
    states = {}
    for case, dtype in RUNS:
        try:
            torch.set_default_dtype(dtype)
            states[name_of(case, dtype)] = tensors(train_case(case, packed_folder, Ranks()))
        finally:
            torch.set_default_dtype(torch.float32)
    return states


@pytest.mark.parametrize(("count", "runs"), [(2, RUNS), (3, FEWER)], ids=["2", "3"])
def test_the_same_run_on_any_number_of_ranks(
    count: int,
    runs: list[tuple[str, torch.dtype]],
    alone: dict[str, dict[str, Any]],
    packed_folder: Path,
    tmp_path: Path,
) -> None:
    """The same weights, averages, strength of ADA and recorded means, for the same global batch."""
    with torchrun(count, str(WORKER), str(packed_folder), str(tmp_path), folder=tmp_path) as job:
        output = job.communicate(timeout=LIMIT)[0]
    assert job.returncode == 0, output
    for case in itertools.starmap(name_of, runs):
        expected = alone[case]
        found = [torch.load(tmp_path / f"{case}-rank-{rank}.pt") for rank in range(count)]
        first, *others = map(tensors, found)
        assert first.keys() == expected.keys()
        for name, value in first.items():
            for other in others:  # bit for bit, or the ranks would drift apart
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[name])), name
        for name, value in first.items():
            if BLIND.get(case) != name and "score" not in name:
                torch.testing.assert_close(
                    value, expected[name], rtol=1e-5, atol=1e-5, msg=f"{case} {name}"
                )


def test_a_killed_rank_costs_nothing(packed_folder: Path, tmp_path: Path) -> None:
    """torchrun starts the ranks again, which go on from the newest checkpoint to the same end."""
    command = ("-m", "pokegan", "train", *SMALL, "--data", str(packed_folder), "--steps", "40")
    with torchrun(2, *command, "--out", "whole", folder=tmp_path) as job:
        output = job.communicate(timeout=LIMIT)[0]
    assert job.returncode == 0, output
    assert len(lines(output, "done ")) == 1
    assert "strong scaling: --batch 12 divided, 6 on each; batch norm over all ranks" in output
    with torchrun(2, *command, "--note", "killed", folder=tmp_path, restarts=1) as job:
        runs = tmp_path / "runs"
        run = wait_for(runs, "*-killed", job)
        wait_for(run, CHECKPOINT, job)
        os.kill(workers(job.pid)[1], signal.SIGKILL)
        output = job.communicate(timeout=LIMIT)[0]
    assert job.returncode == 0, output
    assert re.search(r"from step [123]0\b", output)  # whichever was the newest checkpoint
    assert [path.name for path in runs.glob("2*")] == [run.name]  # it went on in the same folder
    made, expected = (
        {
            str(path.relative_to(folder)): path.read_bytes()
            for path in (folder / "generator.safetensors", *folder.glob("samples/*.png"))
        }
        for folder in (run, tmp_path / "whole")
    )
    assert made == expected
    assert len(made) > 2
    steps = [record["step"] for record in read_stats(run / "stats.jsonl")]
    assert steps == [10, 20, 30, 40]


def test_a_signal_to_one_rank_stops_all_at_one_step(packed_folder: Path, tmp_path: Path) -> None:
    command = ("-m", "pokegan", "train", *SMALL, "--data", str(packed_folder), "--steps", "90000")
    with torchrun(2, *command, "--out", "run", folder=tmp_path) as job:
        wait_for(tmp_path / "run", CHECKPOINT, job)
        os.kill(workers(job.pid)[1], signal.SIGTERM)
        output = job.communicate(timeout=LIMIT)[0]
    assert lines(output, "stopped by SIGTERM; continue with: pokegan train --resume run") != []
    assert lines(output, "pokegan: error") == []
    newest = max((tmp_path / "run/checkpoints").glob("step-*.pt"))
    state = torch.load(newest, weights_only=True)
    assert f"done      {state['step']} steps" in output
    said: list[str] = []
    done = resume(tmp_path / "run", {"length.steps": state["step"] + 3}, said.append)  # on one rank
    assert done.steps == state["step"] + 3
    assert any(f"from step {state['step']}" in line for line in said)


def test_a_stuck_rank_is_named(packed_folder: Path, tmp_path: Path) -> None:
    command = ("-m", "pokegan", "train", *SMALL, "--data", str(packed_folder), "--steps", "90000")
    with torchrun(2, *command, "--out", "run", folder=tmp_path) as job:
        wait_for(tmp_path / "run", CHECKPOINT, job)
        stuck = workers(job.pid)[1]
        os.kill(stuck, signal.SIGSTOP)
        words = ""
        with limited(job):
            while "pokegan: error" not in words:
                words = job.stdout.readline()
                assert words, "it ended without a word"
        os.kill(stuck, signal.SIGKILL)
        output = words + job.communicate(timeout=LIMIT)[0]
    assert job.returncode != 0
    told = lines(output, "pokegan: error")
    assert len(told) == 1
    assert "no progress for 5 s (--rank-timeout)" in told[0]
    assert f"rank 1 (process {stuck} on " in told[0]
    assert "rank 0" not in told[0]


def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    """Rank 0 alone finds it; the others wait for it, and end with its exit code."""
    command = ("-m", "pokegan", "train", *SMALL, "--out", "run", "--data", "nowhere")
    with torchrun(2, *command, folder=tmp_path) as job:
        output = job.communicate(timeout=LIMIT)[0]
    told = [line for line in output.splitlines() if "error:" in line and "pokegan" in line]
    assert len(told) == 1, output
    assert "there is no data 'nowhere'" in told[0]
    assert "exitcode  : 2" in output  # torchrun's own report of the first one
    assert not (tmp_path / "run").exists()
