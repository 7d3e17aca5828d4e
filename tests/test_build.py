"""The install: what happens without a compiler, and which toolkit is believed."""

import importlib.util
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from pokegan.errors import ConfigError
from pokegan.ops import extension
from pokegan.ops.extension import Status, build_facts, runs_on, status
from pokegan.training.hardware import choose_device

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


def compiled_for(monkeypatch: pytest.MonkeyPatch, *targets: str) -> None:
    monkeypatch.setattr(extension, "build_facts", lambda: {"cuda_targets": list(targets)})
    monkeypatch.setattr(extension, "status", lambda: Status(True, True, "compiled", "compiled"))


@pytest.mark.parametrize(
    ("targets", "runs", "fails"),
    [
        # CUDA C++ Programming Guide, "Binary Compatibility", "PTX Compatibility" and, for the
        # letters, "Architecture- and Family-Specific Features".
        (["sm_80"], [(8, 0), (8, 6), (8, 9)], [(7, 5), (9, 0), (10, 0)]),
        (["sm_86"], [(8, 6), (8, 9)], [(8, 0), (9, 0)]),
        (["compute_80"], [(8, 0), (8, 6), (9, 0), (12, 0)], [(7, 0), (7, 5)]),
        (["sm_80", "sm_90", "compute_90"], [(8, 0), (9, 0), (10, 3), (12, 1)], [(7, 5), (6, 1)]),
        (["sm_90a"], [(9, 0)], [(8, 9), (10, 0)]),
        (["compute_90a"], [(9, 0)], [(8, 0), (10, 0)]),
        (["sm_103f"], [(10, 3)], [(10, 0), (12, 0)]),
        (["sm_120"], [(12, 0), (12, 1)], [(10, 0), (9, 0)]),
    ],
)
def test_the_gpus_that_run_what_was_compiled(
    monkeypatch: pytest.MonkeyPatch,
    targets: list[str],
    runs: list[tuple[int, int]],
    fails: list[tuple[int, int]],
) -> None:
    compiled_for(monkeypatch, *targets)
    assert [capability for capability in runs if not runs_on(capability)] == []
    assert [capability for capability in fails if runs_on(capability)] == []


def test_a_gpu_that_the_operators_were_not_compiled_for_is_told_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # There is no such GPU here: what PyTorch says of it stands in.
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda index: (7, 5))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda index: "Tesla T4")
    compiled_for(monkeypatch, "sm_80", "sm_90", "compute_90")
    with pytest.raises(ConfigError) as told:
        choose_device("auto")
    assert "Tesla T4" in str(told.value)
    assert "TORCH_CUDA_ARCH_LIST=7.5 pip install -e ." in str(told.value)
    assert choose_device("cpu").type == "cpu"
    compiled_for(monkeypatch, "sm_75")
    assert choose_device("auto").type == "cuda"


def compiled_into(module: bytes) -> set[str]:
    """The targets in nvcc's fat binaries: each a header, then entries of PTX (1) or code (2)."""
    found = set()
    at = 0
    while (at := module.find(b"\x50\xed\x55\xba", at)) >= 0:
        header, length = struct.unpack_from("<HQ", module, at + 6)
        entry, at = at + header, at + header + length
        while entry < at:
            kind, _, header, length = struct.unpack_from("<HHIQ", module, entry)
            (capability,) = struct.unpack_from("<I", module, entry + 28)
            found.add(f"{'compute' if kind == 1 else 'sm'}_{capability}")
            entry += header + length
    return found


def test_what_the_operators_were_compiled_for_is_written_down() -> None:
    facts = build_facts()
    if facts.get("modules", {}).get("_C_cuda") != "built":
        pytest.skip("the CUDA operators were not built")
    (module,) = (ROOT / "pokegan").glob("_C_cuda*.so")
    targets = compiled_into(module.read_bytes())
    assert targets
    assert {str(target).rstrip("af") for target in facts["cuda_targets"]} == targets
