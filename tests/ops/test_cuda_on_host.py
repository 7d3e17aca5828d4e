"""The CUDA kernels, run on the processor by csrc/tests/host_cuda; no GPU is needed.

It shows what they compute, and that threads neither race nor wait for others that never come.

Every call is made twice, with threads and blocks from the first to the last and the other way
round: a kernel whose threads race, or add in no fixed order, gives other bits then. Under
`csrc/tests/sanitize.sh`, once, an access outside of a tensor is found as well.
"""

import ctypes
import importlib.util
import os
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from pokegan.ops import spectral_norm_reference, status

ROOT = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("CXX", "c++")
STEP = torch.tensor(2**31 + 7)
EVERY = [torch.float32, torch.float64, torch.bfloat16]
CLOSE = {torch.float32: 2e-5, torch.float64: 1e-12, torch.bfloat16: 2**-7}
FLAGS = os.environ.get("POKEGAN_HOST_CUDA_FLAGS", "")  # of the compiler: sanitizers
ORDERS = ("forwards",) if FLAGS else ("forwards", "backwards")
RACE, DIVERGENT, LOST_LANE, HALF, EARLY, BEYOND = range(6)

pytestmark = [
    pytest.mark.skipif(not shutil.which(COMPILER), reason="no C++ compiler here"),
    pytest.mark.skipif(not status().cpu, reason=f"no extension: {status().cpu_reason}"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = ROOT / "csrc/tests/host_cuda/build.py"
    spec = importlib.util.spec_from_file_location("host_cuda_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    built: Path = module.build(tmp_path_factory.mktemp("host_cuda"), tuple(FLAGS.split()))
    torch.ops.load_library(str(built))
    return built


@pytest.fixture
def twice(library, monkeypatch):
    """Call an operator of the kernels in both orders; return what it gives, the same bits twice."""

    def call(name, *arguments):
        results = []
        for order in ORDERS:
            monkeypatch.setenv("POKEGAN_HOST_CUDA_ORDER", order)
            given, written = arguments, []
            if name == "spectral_iterate":
                weights, *vectors, dims, iterations, eps = arguments
                u, v = ([one.clone() for one in many] for many in vectors)
                given, written = (weights, u, v, dims, iterations, eps), u + v
            out = _all(getattr(torch.ops.pokegan_host_cuda, name)(*given))
            results.append(out + written)
        for one, two in zip(results[0], results[-1], strict=True):
            assert _bits(one) == _bits(two)
        return results[0]

    return call


def _all(out):
    return [out] if isinstance(out, torch.Tensor) else list(out)


def _bits(tensor):
    wide = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.view(wide).tolist()


def on_cpu(name, *arguments):
    return _all(getattr(torch.ops.pokegan, name)(*arguments))


def same(twice, name, *arguments, close=0.0) -> None:
    """The kernel and the CPU's operator give the same, to `close`."""
    for one, two in zip(twice(name, *arguments), on_cpu(name, *arguments), strict=True):
        assert one.stride() == two.stride()
        torch.testing.assert_close(one, two, rtol=close, atol=close, equal_nan=True)


def drawn(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=_random(seed)).to(dtype)


def _random(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("samples", [0, 1, 5, 300])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 37, 512])
def test_random_fills(twice, samples, count) -> None:
    place = (2**63 - 3, 2**31 - 1, STEP, torch.arange(samples) * 2**24, count)
    same(twice, "random_words", *place)
    same(twice, "random_uniform", *place, False)
    same(twice, "random_uniform", *place, True)
    for dtype in (torch.float32, torch.bfloat16):
        same(twice, "random_normal", *place, 0.5, 2.0, dtype)


@pytest.mark.parametrize("dtype", EVERY)
@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(5, 6, 7, 3), (10, 4, 8, 8), (5, 1, 1, 1), (5, 64, 17, 5)])
def test_dropout(twice, shape, memory, maps, dtype) -> None:
    values = drawn(*shape, dtype=dtype).to(memory_format=memory)
    samples = torch.tensor([9, 2, 2**32 - 1, 0, 77])
    same(twice, "dropout", values, STEP, samples, 5, 3, 0.3, maps)


def test_dropout_of_what_does_not_begin_at_a_vector(twice) -> None:
    values = drawn(1 + 5 * 24, dtype=torch.bfloat16)[1:].view(5, 24)
    same(twice, "dropout", values, STEP, torch.arange(5), 5, 3, 0.5, False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (12, 20), (64, 64)])
@pytest.mark.parametrize("moved", [False, True])
def test_batch_gather(twice, size, moved, dtype) -> None:
    images = torch.randint(0, 256, (9, *size, 3), dtype=torch.uint8, generator=_random(0))
    indices = torch.tensor([3, 8, 0, 1, 1])
    flip = torch.tensor([True, False, True, True, False]) if moved else None
    shift = torch.tensor([[1, -2], [0, 0], [-3, 3], [2**40, 0], [0, -7]]) if moved else None
    same(twice, "batch_gather", images, indices, flip, shift, [255, 0, 9], dtype)


def test_a_picture_that_is_not_there_stops_the_kernel(library) -> None:
    images = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    for index in (2, -1):
        with pytest.raises(RuntimeError, match="__trap"):
            torch.ops.pokegan_host_cuda.batch_gather(
                images, torch.tensor([0, index]), None, None, [0, 0, 0], torch.float32
            )


@pytest.mark.parametrize("dtype", EVERY)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(1, 1), (12, 20), (64, 64), (65, 64), (91, 100)])
def test_diff_augment(twice, size, memory, dtype) -> None:
    """Alone in a block up to 4,096 pixels, in several above; of 5 pictures a block takes two."""
    samples = torch.tensor([0, 5, 2**31, 7, 1] if size in ((12, 20), (65, 64)) else [8])
    images = drawn(len(samples), 3, *size, dtype=dtype).to(memory_format=memory)
    place = (STEP, samples, 4, 6)
    for policy in [(True, True, True), (True, False, False), (False, True, True)]:
        same(twice, "diff_augment", images, *place, *policy, -1.0, False, close=CLOSE[dtype])
        same(twice, "diff_augment_adjoint", images, *place, *policy, close=CLOSE[dtype])


@pytest.mark.parametrize("dtype", EVERY)
@pytest.mark.parametrize("count", [1, 31, 64, 256, 300, 1111])
@pytest.mark.parametrize("form", range(4))
def test_soft_labels(twice, form, count, dtype) -> None:
    real, fake = drawn(2, count, dtype=dtype) * 4
    place = (torch.arange(count) + 3, STEP, 9, 5)
    rule = [0.7, 1.2, -0.1, 0.3, 0.4]
    same(twice, "soft_labels", real, fake, *place, form, rule, close=1e-6)
    same(twice, "label_targets", *place, rule)


SHAPES = [  # of the weight, and the dimension of its rows
    ((64, 3, 4, 4), 0),
    ((33, 40, 6, 6), 1),
    ((70, 90, 4, 4), 1),
    ((1, 130, 4, 4), 0),
    ((1, 3000), 0),
    ((700, 10), 0),
    ((41, 17, 3), 1),
    ((5, 1), 0),
    ((0, 4), 0),
    ((2100, 3), 1),
]


def spectral_case(dtype, memory=torch.contiguous_format, shapes=SHAPES):
    weights, u, v, dims = [], [], [], []
    for number, (shape, dim) in enumerate(shapes):
        weight = drawn(*shape, dtype=dtype, seed=number)
        weights.append(weight.to(memory_format=memory) if weight.dim() == 4 else weight)
        rows = weight.shape[dim]
        lengths = rows, weight.numel() // rows if rows else 4
        for vectors, length in zip((u, v), lengths, strict=True):
            vectors.append(F.normalize(drawn(length, dtype=dtype, seed=100 + number), dim=0))
        dims.append(dim)
    return weights, u, v, dims


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
def test_power_iteration(twice, dtype, close, memory) -> None:
    weights, u, v, dims = spectral_case(dtype, memory)
    found = twice("spectral_iterate", weights, u, v, dims, 2, 1e-12)
    expected = spectral_norm_reference.iterate_reference(weights, u, v, dims, 2, 1e-12)
    for one, two in zip(found, [*expected, *u, *v], strict=True):
        torch.testing.assert_close(one, two, rtol=close, atol=close)
    sigma = twice("spectral_sigma", weights, u, v, dims)
    for one, two in zip(sigma, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=close, atol=close)


def test_more_layers_than_a_table_holds(twice) -> None:
    few = [((5, 3), 0), ((2, 3, 2, 2), 1), ((0, 4), 0), ((40, 2), 0)]
    weights, u, v, dims = spectral_case(torch.float64, shapes=few * 17)
    found = twice("spectral_iterate", weights, u, v, dims, 1, 1e-12)
    expected = spectral_norm_reference.iterate_reference(weights, u, v, dims, 1, 1e-12)
    for one, two in zip(found, [*expected, *u, *v], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_scaled_weights_and_their_gradient(twice, dtype, memory) -> None:
    wide = torch.float32 if dtype == torch.bfloat16 else dtype
    weights, u, v, dims = spectral_case(wide, memory)
    factors = spectral_norm_reference.iterate_reference(weights, u, v, dims, 3, 1e-12)
    scaled = twice("spectral_scale", weights, *factors, dims, dtype)
    leaves = [weight.clone().requires_grad_() for weight in weights]
    expected = spectral_norm_reference.scale_reference(leaves, *factors, dims, dtype)
    for one, two in zip(scaled, expected, strict=True):
        assert one.stride() == two.stride()
        torch.testing.assert_close(one, two.detach(), rtol=CLOSE[dtype], atol=CLOSE[dtype])
    downstream = [torch.randn_like(one) for one in scaled]
    torch.autograd.backward(expected, downstream)
    gradients = twice("spectral_scale_backward", downstream, weights, *factors, dims)
    for one, leaf in zip(gradients, leaves, strict=True):
        torch.testing.assert_close(one, leaf.grad, rtol=1e-4, atol=1e-5)


@pytest.fixture
def fault(library, monkeypatch):
    """Run a kernel of faults.cu; return what is said of it, and the first numbers it wrote."""
    run = ctypes.CDLL(str(library)).run_fault
    run.restype = ctypes.c_char_p

    def call(number, order="forwards"):
        monkeypatch.setenv("POKEGAN_HOST_CUDA_ORDER", order)
        out = torch.zeros(64, dtype=torch.int32)
        said = run(number, ctypes.c_void_p(out.data_ptr()), 1)
        return said.decode(), out[:2].tolist()

    return call


def test_a_race_shows_in_the_order(fault) -> None:
    assert fault(RACE, "forwards") != fault(RACE, "backwards")


def test_threads_that_wait_in_different_places_are_found(fault) -> None:
    assert "wait at" in fault(DIVERGENT)[0]
    assert "wait at" in fault(HALF)[0]


def test_a_shuffle_without_one_of_its_lanes_is_found(fault) -> None:
    assert "in vain" in fault(LOST_LANE)[0]


def test_threads_that_have_ended_are_not_waited_for(fault) -> None:
    assert fault(EARLY) == ("", [1, 0])
