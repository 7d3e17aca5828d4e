"""benchmarks/gpu_checks.sh with tools that only pretend: what it asks of them, what it makes of it.

A `python` that stands in writes down each call and does what `ANSWERS`, shell commands by a word of
the call, say; other tools do nothing.
"""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks/gpu_checks.sh"
TOOL = """#!/usr/bin/env bash
call="$(basename "$0") $*"
printf '%s\\n' "$call" >>"$ASKED"
while IFS=$'\\t' read -r -u 3 word answer; do
  [[ -z "$word" || "$call" != *"$word"* ]] || eval "$answer"
done 3<<<"$ANSWERS"
exit 0
"""
FOUND = "echo '========= Invalid write at pokegan::planted_write'; exit 1"
TRAINED = 'for word; do run=$word; done; mkdir -p "$run"; echo "{}" >"$run/stats.jsonl"'
CLEAN = "echo '========= ERROR SUMMARY: 0 errors'"


class Machine:
    """A machine with stand-ins for everything that needs a GPU."""

    def __init__(self, folder: Path) -> None:
        self.tools, self.out, self.asked = folder / "tools", folder / "out", folder / "asked"
        self.tools.mkdir()
        self.asked.touch()
        for name in ("python", "nvidia-smi", "nvcc", "compute-sanitizer"):
            self.add(name)

    def add(self, name: str) -> None:
        (self.tools / name).write_text(TOOL)
        (self.tools / name).chmod(0o755)

    def run(
        self, *stages: str, answers: dict[str, str] | None = None, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        answered = "\n".join(f"{word}\t{answer}" for word, answer in (answers or {}).items())
        given = {"PYTHON": str(self.tools / "python"), "OUT": str(self.out), "ANSWERS": answered}
        kept = {key: os.environ[key] for key in ("HOME", "LANG", "TMPDIR") if key in os.environ}
        path = f"{self.tools}{os.pathsep}/usr/bin{os.pathsep}/bin"
        return subprocess.run(
            [shutil.which("bash") or "bash", str(SCRIPT), *stages],
            env=kept | {"PATH": path, "CUDA_HOME": "/nowhere", "ASKED": str(self.asked)}
            | given | environment,
            capture_output=True,
            text=True,
            timeout=60,
        )  # fmt: skip

    def calls(self, word: str) -> list[str]:
        return [line for line in self.asked.read_text().splitlines() if word in line]

    def packed(self) -> set[str]:
        with tarfile.open(self.out / "results.tar.gz") as archive:
            return {Path(name).as_posix() for name in archive.getnames()}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_a_gpu_one_line_says_so(machine: Machine) -> None:
    done = machine.run("tests", answers={"torch.cuda.is_available": "exit 1"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("is missing, or sees no CUDA GPU\n")
    (machine.tools / "nvidia-smi").unlink()
    done = machine.run("tests")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "gpu_checks.sh: error: nvidia-smi is not in PATH: there is no NVIDIA GPU here\n"
    )
    assert not machine.out.exists()


@pytest.mark.parametrize(
    ("stages", "environment", "message"),
    [
        (["tests", "ship"], {}, "ship: choose of build tests sanitize train"),
        (["tests"], {"STAGE_SECONDS": "soon"}, "soon: STAGE_SECONDS and FILE_SECONDS are"),
    ],
)
def test_wrong_use_is_told_before_anything_runs(
    machine: Machine, stages: list[str], environment: dict[str, str], message: str
) -> None:
    done = machine.run(*stages, **environment)
    assert done.returncode == 2
    assert message in done.stderr
    assert machine.calls("") == []


def test_what_is_not_built_is_built_first(machine: Machine) -> None:
    done = machine.run("ranks", answers={"status().cuda": "exit 1"})
    assert done.returncode == 0, done.stdout
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("===")] == [
        *("build", "ranks", "done")
    ]


def test_all_stages_pass_and_leave_two_files(machine: Machine) -> None:
    answers = {"import ctypes": FOUND, "-m pytest": CLEAN, "pokegan train": TRAINED}
    answers |= {"--list-gpus": "echo one; echo two"}
    done = machine.run(answers=answers)
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("failed: none\n")
    assert {path.name for path in machine.out.iterdir()} == {"results.tar.gz", "gpu_checks.log"}
    assert (machine.out / "gpu_checks.log").read_text() == done.stdout
    stages = [
        "build",
        "tests",
        "sanitize",
        "train",
        "modes",
        "profile",
        "bench",
        "recipes",
        "ranks",
    ]
    assert {f"{name}.log" for name in stages} | {"machine.txt"} <= machine.packed()
    assert len(machine.calls("--weak")) == 1
    assert [line.partition("--counts ")[2][:3] for line in machine.calls("scaling.py")] == [
        "1 2",
        "1 2",
    ]
    checks = machine.calls("compute-sanitizer --tool")
    assert [line.split()[2] for line in checks] == ["memcheck"] * 2 + ["racecheck"] * 2
    assert all("--kernel-name kns=pokegan --error-exitcode 1" in line for line in checks)
    shown = machine.run("ranks", answers={"--list-gpus": "echo one"})
    assert shown.returncode == 0
    assert len(machine.calls("--weak")) == 1  # not of one GPU


def test_the_environment_of_a_stage(machine: Machine, tmp_path: Path) -> None:
    tell = 'echo "told $POKEGAN_OPS $POKEGAN_CACHE $POKEGAN_BENCH_DEVICE $POKEGAN_BENCH_COMPILE"'
    mine = tmp_path / "mine"
    for stage, last in (("tests", ""), ("bench", "cuda "), ("compiled", "cuda 1")):
        done = machine.run(stage, answers={"pytest": tell}, POKEGAN_CACHE=str(mine))
        told = {line for line in done.stdout.splitlines() if line.startswith("told")}
        assert {line.rstrip() for line in told} == {f"told compiled {mine} {last}".rstrip()}


def test_a_build_that_fails_ends_the_call(machine: Machine) -> None:
    done = machine.run("build", "train", answers={"setup.py": "exit 3"})
    assert done.returncode == 1
    assert "the build failed: nothing else is run" in done.stdout
    assert machine.calls("pokegan train") == []
    assert "build.log" in machine.packed()


def test_an_old_setuptools_is_named(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "setuptools").mkdir()
    (tmp_path / "setuptools/__init__.py").write_text("__version__ = '70.2.0'\n")
    real = f"PYTHONPATH={tmp_path} exec {shutil.which('python3')} -"
    done = machine.run("build", answers={"python -": f'[ "$*" != - ] || {real}'})
    assert "the build needs setuptools 77 or later, here is 70.2.0" in done.stdout
    assert done.returncode == 1
    assert machine.calls("setup.py") == []


def test_each_file_of_tests_is_a_process_with_a_limit(machine: Machine) -> None:
    answers = {
        "test_random_gpu.py": "exit 5",  # nothing was collected
        "test_dropout_gpu.py": "exit 1",
        "test_soft_labels_gpu.py": "exec sleep 30",
    }
    done = machine.run("tests", answers=answers, FILE_SECONDS="1")
    assert done.returncode == 1
    files = [line.split()[-1] for line in machine.calls("-m pytest")]
    assert files == [*sorted(set(files[:-1])), "tests/training/test_captured_step.py"]
    assert "ended after 1 s: " in done.stdout
    assert (
        "files of tests that failed: tests/ops/test_dropout_gpu.py "
        "tests/ops/test_soft_labels_gpu.py\n"
    ) in done.stdout


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"-m pytest": CLEAN}, "memcheck did not find the fault that was planted for it"),
        ({"import ctypes": FOUND, "-m pytest": "exit 0"}, "did not say that it found no fault"),
        ({"import ctypes": FOUND, "-m pytest": f"{CLEAN}; exit 5"}, "failed: sanitize"),
        ({"nvcc -arch": "exit 1"}, "the planted faults were not built"),
    ],
)
def test_a_sanitizer_that_checks_nothing_fails(
    machine: Machine, answers: dict[str, str], message: str
) -> None:
    done = machine.run("sanitize", answers=answers)
    assert done.returncode == 1
    assert message in done.stdout
    tools = [line.split()[2] for line in machine.calls("compute-sanitizer --tool")]
    assert set(tools) in (set(), {"memcheck", "racecheck"})  # one's failure leaves the other


def test_both_precisions_are_compared_whatever_the_first_says(machine: Machine) -> None:
    done = machine.run("modes", answers={"modes-fp32": "exit 1"})
    assert done.returncode == 1
    assert len(machine.calls("step_modes.py --device cuda")) == 2


def test_what_is_large_is_not_packed(machine: Machine) -> None:
    answer = (
        f'{TRAINED}; cd "$run"; mkdir checkpoints samples; touch checkpoints/a.pt samples/a.png '
        "generator.safetensors events.out.tfevents.1 config.json"
    )
    done = machine.run("train", answers={"pokegan train": answer})
    assert done.returncode == 0, done.stdout
    run = {name for name in machine.packed() if name.startswith("run-hpml")}
    assert run == {"run-hpml", "run-hpml/config.json", "run-hpml/stats.jsonl"}


def test_a_stage_ends_in_its_time_and_the_next_one_runs(machine: Machine) -> None:
    answers = {"pokegan train": "exec sleep 30"}
    done = machine.run("train", "modes", answers=answers, STAGE_SECONDS="2")
    assert done.returncode == 1
    assert "failed: train\n" in done.stdout
    assert len(machine.calls("step_modes.py")) == 2
