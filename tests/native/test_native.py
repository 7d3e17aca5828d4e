"""The kernels' arithmetic in C++: ctest, and word for word against the Python references.

Builds in a temporary folder, without torch, so it takes seconds.
"""

import importlib.util
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pokegan.ops.diff_augment import parameters
from pokegan.ops.random import Stream, uniform, words

ROOT = Path(__file__).resolve().parents[2]
STREAM = Stream.AUGMENT_REAL


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cmake") is None:
        pytest.skip("no cmake here")
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler here")
    folder = tmp_path_factory.mktemp("native")
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    configure = ["cmake", "-S", str(ROOT), "-B", str(folder), *generator]
    configure += [f"-DPython_EXECUTABLE={sys.executable}", "-DCMAKE_BUILD_TYPE=Debug"]
    run(*configure, "-DPOKEGAN_MODULES=OFF", "-DPOKEGAN_WERROR=ON")
    run("cmake", "--build", str(folder), "--parallel", "2")
    return folder


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def kernels(built: Path):
    if importlib.util.find_spec("pybind11") is None:
        pytest.skip("no pybind11 here")
    (path,) = built.glob("pokegan_kernels*")
    spec = importlib.util.spec_from_file_location("pokegan_kernels", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ctest_passes(built: Path) -> None:
    assert "100% tests passed" in run("ctest", "--test-dir", str(built), "--output-on-failure")


def test_words_and_uniforms_are_those_of_the_reference(kernels) -> None:
    draw = random.Random(1)
    for _ in range(100):
        seed, sample = draw.randrange(2**64), draw.randrange(2**32)
        step, stream = draw.randrange(2**32), draw.choice(list(Stream))
        place = (seed, stream, step, torch.tensor([sample]), 7)
        got = kernels.words(seed, int(stream), step, sample, 7)
        assert got == words(*place)[0].tolist()
        assert [kernels.uniform_from(word) for word in got] == uniform(*place)[0].tolist()


def test_a_byte_is_normalised_as_by_the_reference(kernels) -> None:
    expected = torch.arange(256).float().mul(2).sub(255) * (1 / 255)
    assert [kernels.normalise(byte) for byte in range(256)] == expected.tolist()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 8), (64, 64), (33, 130)])
def test_the_parameters_are_those_of_the_reference(kernels, height: int, width: int) -> None:
    samples = torch.arange(2**32 - 100, 2**32)
    seed, step = 2**63 + 11, 5
    expected = parameters(seed, STREAM, step, samples, height, width)
    for i, sample in enumerate(samples.tolist()):
        got = kernels.diff_augment_parameters(seed, int(STREAM), step, sample, height, width)
        assert got[:5] == tuple(part[i].item() for part in expected[:5])
        top, left = expected.cutout_top[i].item(), expected.cutout_left[i].item()
        bottom, right = top + (height + 1) // 2, left + (width + 1) // 2
        assert got[5] == (max(top, 0), min(bottom, height), max(left, 0), min(right, width))
