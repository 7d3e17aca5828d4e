"""`benchmarks/matrix_units.cpp` stays a program."""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "benchmarks" / "matrix_units.cpp"


def test_the_compiler_takes_it_without_a_warning() -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    command = [compiler, "-std=c++17", "-march=sapphirerapids", "-pthread", "-fsyntax-only"]
    if subprocess.run([*command, "-x", "c++", "/dev/null"], check=False).returncode:
        pytest.skip("this compiler does not know the processor")
    done = subprocess.run(
        [*command, "-Wall", "-Wextra", SOURCE], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
