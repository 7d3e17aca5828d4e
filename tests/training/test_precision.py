"""--precision: flags of CUDA's libraries, and which float32 convolutions of a CPU are split."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pokegan.config import LatentConfig, NetworkConfig, RunConfig, override
from pokegan.data.packed import PackedImages
from pokegan.objectives.penalties import gradient_penalty
from pokegan.objectives.phases import StepInput
from pokegan.ops import conv_choice, conv_units
from pokegan.ops.conv_choice import split_products
from pokegan.tf32 import allow_tf32, exact_float32
from pokegan.training import hardware
from pokegan.training.build import build
from pokegan.training.compiled_step import CompiledStep, Runner
from pokegan.training.generator import Generator, GeneratorSpec
from pokegan.training.hardware import choose_precision, has_tf32
from pokegan.training.networks import build_networks
from pokegan.training.session import resume, train
from pokegan.training.step import EagerStep
from pokegan.training.whole_step import WholeStep


@pytest.fixture(autouse=True)
def flags_as_before() -> Iterator[None]:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


@pytest.mark.parametrize(("precision", "allowed"), [("tf32", True), ("fp32", False)])
def test_the_precision_sets_the_flags(tiny: RunConfig, precision: str, allowed: bool) -> None:
    allow_tf32(not allowed)
    config = override(tiny, {"training.precision": precision})
    parts = build(config, PackedImages.open(config.data.source))
    assert parts.dtype == torch.float32
    assert torch.backends.cuda.matmul.allow_tf32 is allowed
    assert torch.backends.cudnn.allow_tf32 is allowed


def test_without_amx_a_processor_has_no_tf32(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (hardware, conv_choice):
        monkeypatch.setattr(module, "conv_units", lambda: "AVX512-BF16")
    assert not has_tf32(torch.device("cpu"))
    assert choose_precision("tf32", torch.device("cpu")) == torch.float32
    said: list[str] = []
    run = train(override(tiny, {"training.precision": "tf32"}), tmp_path / "run", said.append)
    assert [line for line in said if "--precision tf32" in line and "using fp32" in line]
    assert any(line.startswith("device ") and " fp32, " in line for line in said)
    exact = train(tiny, tmp_path / "exact")
    assert run.weights.read_bytes() == exact.weights.read_bytes()
    resume(run.folder, {"length.steps": 7})  # it can go on, here or on a GPU


@pytest.fixture
def split_wherever_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    if conv_units() != "AMX":
        pytest.skip("needs AMX")
    monkeypatch.setattr(conv_choice, "_MODE", "own")


@pytest.mark.usefixtures("split_wherever_it_can_be")
def test_tf32_of_a_processor_is_float32_with_split_convolutions(
    tiny: RunConfig, tmp_path: Path
) -> None:
    said: list[str] = []
    run = train(override(tiny, {"training.precision": "tf32"}), tmp_path / "run", said.append)
    assert not [line for line in said if line.startswith("note ")]
    assert any(line.startswith("device ") and " tf32 (AMX), " in line for line in said)
    exact = train(override(tiny, {"training.precision": "fp32"}), tmp_path / "exact")
    assert run.weights.read_bytes() != exact.weights.read_bytes()


@pytest.mark.usefixtures("split_wherever_it_can_be")
@pytest.mark.parametrize(
    ("precision", "split"), [("fp32", False), ("bf16", True), ("tf32", True), ("auto", True)]
)
@pytest.mark.parametrize("whole", [False, True])
def test_penalties_are_split_but_in_fp32(
    tiny: RunConfig, monkeypatch: pytest.MonkeyPatch, precision: str, split: bool, whole: bool
) -> None:
    """What a step really calls; in `whole`, the step as it is compiled."""
    shapes = []
    ours = conv_choice._CONV
    seen = ours._replace(split=lambda x, *rest: shapes.append(x.shape) or ours.split(x, *rest))
    monkeypatch.setattr(conv_choice, "_CONV", seen)
    config = override(tiny, {"training.precision": precision, "training.compile": "off"})
    config = override(config, {"objective.loss": "wgan-gp"})
    config = override(config, {"discriminator.options": {"norm": "none"}})
    parts = build(config, PackedImages.open(config.data.source))
    step = parts.step
    assert isinstance(step, EagerStep)
    assert step.parts.split is split
    if whole:
        step = CompiledStep(Runner(WholeStep(step.parts), None))
    real = parts.source.batch(0, config.training.batch)
    recorded = step(StepInput(real.images, real.samples, torch.tensor(0)), 0)
    assert bool(shapes) is split
    assert recorded["penalty/gradient"].isfinite()


@pytest.mark.usefixtures("split_wherever_it_can_be")
def test_a_gradient_penalty_by_split_products(tiny: RunConfig) -> None:
    """Its value and its gradients by the weights, against PyTorch's float32 and float64."""
    config = override(tiny, {"discriminator.options": {"norm": "none"}})
    critic = build_networks(config)["discriminator"]
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter *= 8  # of the initial ones the gradients are near 0, and the penalty is 1
    random = torch.Generator().manual_seed(0)
    side = config.data.size
    real, fake = (torch.randn(32, 3, side, side, generator=random) for _ in range(2))
    mix = torch.rand(32, generator=random)

    def outcome(split: bool, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
        own = copy.deepcopy(critic).to(dtype)
        with torch.autocast("cpu", torch.bfloat16), split_products(split):
            loss = gradient_penalty(own, real.to(dtype), fake.to(dtype), mix)
        weights = [one for one in own.parameters() if one.dim() == 4]
        return [loss.detach(), *torch.autograd.grad(loss, weights)]

    split, plain, exact = outcome(True), outcome(False), outcome(False, torch.float64)
    assert not any(torch.equal(one, two) for one, two in zip(split[1:], plain[1:], strict=True))
    for one, two, three in zip(split, plain, exact, strict=True):
        assert one.dtype == torch.float32
        assert (one - two).norm() <= 2e-5 * two.norm()
        assert (one - three).norm() <= 2e-5 * three.norm()


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


def test_what_is_shown_is_float32_whatever_the_run_trains_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Looking(torch.nn.Module):
        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            seen.append((matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark))
            return latents.new_zeros(len(latents), 3, 8, 8)

    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    seen: list[tuple[bool, ...]] = []
    spec = GeneratorSpec(NetworkConfig("dcgan", {}), LatentConfig(size=4), 8, "hpml", 0, 0.0)
    allow_tf32(True)
    monkeypatch.setattr(cudnn, "benchmark", True)
    Generator(Looking(), spec).sample(3)
    assert seen == [(False, False, False)]
    assert (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark) == (True, True, True)
    with pytest.raises(RuntimeError), exact_float32():
        raise RuntimeError
    assert (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark) == (True, True, True)
