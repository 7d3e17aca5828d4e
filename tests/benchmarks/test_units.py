"""`benchmarks/matrix_units.cpp` and `vector_units.cpp` stay programs."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COMPILER = shutil.which("c++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")


@needs_compiler
@pytest.mark.parametrize(
    ("source", "processor"),
    [("matrix_units.cpp", "sapphirerapids"), ("vector_units.cpp", "x86-64")],
)
def test_the_compiler_takes_it_without_a_warning(source: str, processor: str) -> None:
    command = [COMPILER, "-std=c++17", f"-march={processor}", "-pthread", "-fsyntax-only"]
    if subprocess.run([*command, "-x", "c++", "/dev/null"], check=False).returncode:
        pytest.skip("this compiler does not know the processor")
    done = subprocess.run(
        [*command, "-Wall", "-Wextra", BENCHMARKS / source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="its units are those of x86-64")
def test_the_vector_units_are_measured_or_missed_in_words(tmp_path: Path) -> None:
    program = tmp_path / "vector_units"
    command = [COMPILER, "-O2", "-std=c++17", "-pthread", BENCHMARKS / "vector_units.cpp"]
    subprocess.run([*command, "-o", program], check=True)
    done = subprocess.run([program, "1"], capture_output=True, text=True, check=False)
    if done.returncode:
        assert (done.returncode, done.stderr) == (2, "no AVX512-BF16 here\n")
    else:
        narrow, wide = (float(one) for one in done.stdout.splitlines()[-1].split("|")[2:4])
        assert narrow > 0
        assert wide > 0
    wrong = subprocess.run([program, "none"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr) == (2, "usage: vector_units [THREADS]\n")
