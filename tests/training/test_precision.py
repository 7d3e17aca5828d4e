"""--precision tf32: flags of CUDA's libraries, and float32 with a note on other hardware."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pokegan.config import RunConfig, override
from pokegan.data.packed import PackedImages
from pokegan.training.build import build
from pokegan.training.hardware import allow_tf32, choose_precision, has_tf32
from pokegan.training.session import resume, train


@pytest.fixture(autouse=True)
def float32_again() -> Iterator[None]:
    yield
    allow_tf32(False)


@pytest.mark.parametrize(("precision", "allowed"), [("tf32", True), ("fp32", False)])
def test_the_precision_sets_the_flags(tiny: RunConfig, precision: str, allowed: bool) -> None:
    allow_tf32(not allowed)
    config = override(tiny, {"training.precision": precision})
    parts = build(config, PackedImages.open(config.data.source))
    assert parts.dtype == torch.float32
    assert torch.backends.cuda.matmul.allow_tf32 is allowed
    assert torch.backends.cudnn.allow_tf32 is allowed


def test_a_processor_has_no_tf32(tiny: RunConfig, tmp_path: Path) -> None:
    assert not has_tf32(torch.device("cpu"))
    assert choose_precision("tf32", torch.device("cpu")) == torch.float32
    said: list[str] = []
    run = train(override(tiny, {"training.precision": "tf32"}), tmp_path / "run", said.append)
    assert [line for line in said if "--precision tf32" in line and "using fp32" in line]
    assert any(line.startswith("device ") and " fp32, " in line for line in said)
    exact = train(tiny, tmp_path / "exact")
    assert run.weights.read_bytes() == exact.weights.read_bytes()
    resume(run.folder, {"length.steps": 7})  # it can go on, here or on a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_tf32_rounds_products_to_ten_bits() -> None:
    if not has_tf32(torch.device("cuda")):
        pytest.skip("needs compute capability 8.0")
    a = torch.randn(256, 256, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    exact = a.double() @ a.double()
    errors = []
    for allowed in (False, True):
        allow_tf32(allowed)
        errors.append(float((a @ a - exact).norm() / exact.norm()))
    assert errors[0] < 1e-6
    assert 1e-5 < errors[1] < 1e-2
