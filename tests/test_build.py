"""The install: what happens without a compiler, and which toolkit is believed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pokegan.ops.extension import Status, build_facts, status

ROOT = Path(__file__).resolve().parent.parent


def run_setup(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run setup.py's build, into `tmp_path`."""
    return subprocess.run(
        [
            *(sys.executable, "setup.py", "-q", "build_ext"),
            *(f"--build-lib={tmp_path}", f"--build-temp={tmp_path}"),
        ],
        cwd=ROOT,
        env=os.environ | {"FORCE_CUDA": "0", "POKEGAN_REQUIRE_BUILD": "0"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_compiler_the_build_succeeds_and_says_so(tmp_path: Path) -> None:
    done = run_setup(tmp_path, CC="/no/such/cc", CXX="/no/such/c++")
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("*.so"))
    modules = json.loads((tmp_path / "pokegan/_build.json").read_text())["modules"]
    assert modules["_C"].startswith("not built: ")
    assert modules["_C_cuda"] == "not built: FORCE_CUDA=0"
    assert "pokegan._C was not built" in done.stderr


def test_a_required_build_that_fails_is_an_error(tmp_path: Path) -> None:
    done = run_setup(tmp_path, POKEGAN_SKIP_BUILD="1", POKEGAN_REQUIRE_BUILD="1")
    assert done.returncode != 0


def test_forcing_cuda_without_a_toolkit_is_an_error(tmp_path: Path) -> None:
    # A folder with an nvcc and nothing else is a wrapper, not a toolkit.
    code = (
        "import runpy, sys; sys.argv = ['setup.py', '--version']; import pathlib;"
        "real = pathlib.Path.exists;"
        "pathlib.Path.exists = lambda p: p.name != 'cuda_runtime.h' and real(p);"
        "runpy.run_path('setup.py', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"FORCE_CUDA": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "FORCE_CUDA=1, but" in done.stderr


def test_the_build_in_use_is_described() -> None:
    if not build_facts():
        pytest.skip("this pokegan was never built here (no _build.json)")
    modules = build_facts()["modules"]
    for name, in_use in (("_C", status().cpu), ("_C_cuda", status().cuda)):
        found = importlib.util.find_spec(f"pokegan.{name}") is not None
        assert (modules[name] == "built") == found
        assert not in_use or found


def test_what_is_in_use_is_told_with_its_reason() -> None:
    use = Status(True, False, "compiled", "no CUDA toolkit found")
    assert use.describe("cpu") == "compiled"
    assert use.describe("cuda") == "reference (no CUDA toolkit found)"


@pytest.mark.parametrize("choice", ["auto", "compiled", "reference", "fast"])
def test_the_choice_of_operators(choice: str) -> None:
    code = "from pokegan.ops import status; print(status())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"POKEGAN_OPS": choice},
        capture_output=True,
        text=True,
        check=False,
    )
    if choice == "fast":
        assert "POKEGAN_OPS=fast: use one of auto, compiled, reference" in done.stderr
    elif choice == "reference":
        assert "cpu=False, cuda=False, cpu_reason='POKEGAN_OPS=reference'" in done.stdout
    elif choice == "auto" or status().cpu:
        assert f"cpu={status().cpu}" in done.stdout
    else:
        assert "POKEGAN_OPS=compiled, but" in done.stderr
