"""benchmarks/profile.sh: what it leaves of a real run, what it asks of nsys, what it refuses."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pokegan.config import RunConfig, override
from pokegan.monitor import spans
from pokegan.training.session import train

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks/profile.sh"
STEPS = 3
NSYS = """#!/usr/bin/env bash
printf '%s\\n' "$@" >>"$ASKED"
echo . >>"$ASKED"
for word in "$@"; do
  case $word in --output=*) echo report >"${word#--output=}.nsys-rep" ;; esac
done
echo "a table"
"""


def run(
    arguments: Sequence[str | Path], path: str | None = None, **environment: str
) -> "subprocess.CompletedProcess[str]":
    given = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [str(SCRIPT), *map(str, arguments)],
        env=given | ({} if path is None else {"PATH": path}),
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory, packed_folder: Path) -> Path:
    out = tmp_path_factory.mktemp("profile") / "profile"
    own = ["--from-step", "2", f"--steps={STEPS}", "--out", out, "--tool", "torch"]
    flags = ["--size", "16", "--batch", "4", "--samples", "4", "--log-every", "2"]
    done = run(["house-dcgan", "--data", packed_folder, "--device", "cpu", *own, *flags])
    assert done.returncode == 0, done.stderr
    assert (out / "shares.txt").read_text() in done.stdout
    return out


def events(folder: Path, category: str) -> list[dict]:
    with gzip.open(folder / "trace.json.gz", "rt") as file:
        found = json.load(file)["traceEvents"]
    return [one for one in found if one.get("cat") == category]


def test_the_trace_has_the_ranges_of_the_window_and_operators_in_them(profiled: Path) -> None:
    ranges = events(profiled, "user_annotation")
    count = {name: sum(one["name"] == name for one in ranges) for name in NAMES}
    assert count == NAMES
    steps = [one for one in ranges if one["name"] == "step"]
    for name in ("discriminator", "generator", "loss", "backward", "optimiser"):
        assert all(any(holds(step, one) for step in steps) for one in ranges if one["name"] == name)
    backward = [one for one in ranges if one["name"] == "backward"]
    convolutions = [one for one in events(profiled, "cpu_op") if "conv" in one["name"].lower()]
    assert any(holds(one, convolution) for one in backward for convolution in convolutions)


NAMES = {
    "data": STEPS,
    "step": STEPS,
    "discriminator": STEPS,
    "generator": STEPS,
    "loss": 2 * STEPS,
    "backward": 2 * STEPS,
    "optimiser": 2 * STEPS,
    "logging": 2,  # steps 4 and 5
    "sampling": 1,
    "checkpoint": 1,
}


def holds(outer: dict, inner: dict) -> bool:
    end = outer["ts"] + outer["dur"]
    return bool(outer["ts"] <= inner["ts"] and inner["ts"] + inner["dur"] <= end + 1)


def test_the_tables_say_what_the_trace_says(profiled: Path) -> None:
    lines = (profiled / "shares.txt").read_text().splitlines()
    rows = {line[: len(line) - len(line.lstrip())] + line.split()[0]: line for line in lines}
    spent = sum(
        one["dur"] / 1e3 for one in events(profiled, "user_annotation") if one["name"] == "step"
    )
    assert float(rows["step"].split()[2]) == pytest.approx(spent, abs=0.01)
    assert int(rows["step"].split()[1]) == STEPS
    assert "  discriminator" in rows
    assert "    backward" in rows
    top = [line for line in lines[1:-1] if not line.startswith(" ")]
    assert sum(float(line.split()[-2]) for line in top) == pytest.approx(100, abs=0.5)
    operators = (profiled / "operators.txt").read_text().splitlines()
    assert operators[0].split()[0] == "operator"
    own = [float(line.split()[-3]) for line in operators[1:-1]]
    assert own == sorted(own, reverse=True)
    assert 0 < sum(own) <= float(operators[-1].split()[-3]) + 0.1
    assert float(operators[-1].split()[-3]) * STEPS <= spent  # nothing is counted twice


def test_the_run_ends_with_the_window_and_is_whole(profiled: Path) -> None:
    records = (profiled / "run/stats.jsonl").read_text().splitlines()
    assert json.loads(records[-1])["step"] == 2 + STEPS
    assert (profiled / "run/checkpoints/step-00000005.pt").exists()
    assert not (profiled / "run/plots").exists()


def test_what_nsys_is_asked(tmp_path: Path) -> None:
    tools, out, asked = tmp_path / "tools", tmp_path / "out", tmp_path / "asked"
    tools.mkdir()
    (tools / "nsys").write_text(NSYS)
    (tools / "nsys").chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    flags = ["--tool", "nsys", "--from-step", "7", "--steps", "4", "--out", out, "--batch", "8"]
    done = run(["hpml", *flags, "--note", "two words"], path, ASKED=str(asked))
    assert done.returncode == 0, done.stderr
    profile, *reports = [call.splitlines() for call in asked.read_text().split("\n.\n") if call]
    assert profile[0] == "profile"
    assert {
        "--trace=cuda,nvtx,osrt",
        "--capture-range=cudaProfilerApi",
        "--capture-range-end=stop",
        "--cuda-graph-trace=node",
        f"--output={out}/profile",
    } <= set(profile)
    program = profile.index(sys.executable)
    assert all(word.startswith("--") for word in profile[1:program])
    assert profile[program + 1 :] == [
        str(ROOT / "benchmarks/profile_steps.py"),
        *("--from-step", "7", "--steps", "4", "--out", str(out), "--tool", "nvtx", "--"),
        *("hpml", "--batch", "8", "--note", "two words", "--no-plots"),
    ]
    assert [call[call.index("--report") + 1] for call in reports] == [
        "nvtx_sum",
        "cuda_gpu_kern_sum",
    ]
    assert all(call[0] == "stats" and call[-1] == f"{out}/profile.nsys-rep" for call in reports)
    assert (out / "shares.txt").read_text() == "a table\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps 0: a whole number of at least 1 is wanted"),
        (["--from-step=x"], "--from-step x: a whole number of at least 0 is wanted"),
        (["--steps"], "--steps: a value is wanted"),
        (["--tool", "perf"], "--tool perf: choose one of auto, nsys, torch"),
        (["--resume", "runs/latest"], "--resume: what is profiled is a new run; leave it out"),
        (["--epochs=3"], "--epochs: the run is as long as --from-step and --steps say"),
        (["--tool", "nsys"], "nsys is not in PATH; install Nsight Systems or use --tool torch"),
        (["--out", "."], "--out . exists and is not empty; choose another name"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").write_text("kept")
    monkeypatch.chdir(tmp_path)
    done = run(["hpml", *arguments], "/usr/bin:/bin")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_program_that_fails_leaves_nothing(tmp_path: Path) -> None:
    done = run(["hpml", "--tool", "torch", "--out", tmp_path / "out"], PYTHON="false")
    assert done.returncode == 1
    assert not (tmp_path / "out").exists()


class Witness:
    def __init__(self) -> None:
        self.begun: list[int] = []
        self.spans: list[tuple[str, ...]] = []
        self.open: list[str] = []

    def begin(self, step: int) -> None:
        assert not self.open
        self.begun.append(step)

    def span(self, name: str):
        outer = self

        class Span:
            def __enter__(self) -> None:
                outer.open.append(name)
                outer.spans.append(tuple(outer.open))

            def __exit__(self, *error: object) -> None:
                assert outer.open.pop() == name

        return Span()


def test_a_run_is_the_same_watched_or_not(tiny: RunConfig, tmp_path: Path) -> None:
    tiny = override(tiny, {"training.compile": "off"})  # has ranges within a step
    witness = Witness()
    with spans.watched_by(witness):
        watched = train(tiny, tmp_path / "watched")
        with pytest.raises(RuntimeError, match="already"), spans.watched_by(witness):
            pass
    told = len(witness.spans)
    alone = train(tiny, tmp_path / "alone")
    assert len(witness.spans) == told
    assert watched.weights.read_bytes() == alone.weights.read_bytes()
    assert witness.begun == list(range(6))
    assert witness.spans.count(("step", "generator", "backward")) == 6
    assert witness.spans.count(("checkpoint",)) == 1
    assert not witness.open


def test_nobody_watching_spans_are_one_object_that_does_nothing() -> None:
    assert spans.span("a") is spans.span("b")
    with spans.span("a"), spans.span("b"):
        spans.begin(3)


def test_a_run_says_where_its_time_went(tiny: RunConfig, tmp_path: Path) -> None:
    run = train(tiny, tmp_path / "run")
    assert {"data", "step", "logging", "sampling", "checkpoint", "other"} <= set(run.spent)
    assert all(seconds >= 0 for seconds in run.spent.values())
    assert sum(run.spent.values()) >= run.seconds * (1 - 1e-6)  # the last checkpoint is in it
