"""The CUDA random fills against the reference and the CPU; needs a GPU."""

import pytest
import torch

from pokegan.ops import random, status
from pokegan.ops.random import Stream

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]
FILLS = {
    "words": (random.words, random.words_reference),
    "uniform": (random.uniform, random.uniform_reference),
    "normal": (random.normal, random.normal_reference),
}


@pytest.fixture(autouse=True)
def compiled() -> None:
    if not status().cuda:
        pytest.fail(f"the CUDA kernels are not in use: {status().cuda_reason}")


@pytest.mark.parametrize("count", [0, 1, 3, 4, 64, 101])
@pytest.mark.parametrize("batch", [0, 1, 64, 5000])
@pytest.mark.parametrize("name", FILLS)
def test_equals_the_reference_and_the_cpu_bit_for_bit(name, batch, count) -> None:
    compiled, reference = FILLS[name]
    step = torch.tensor(7)
    samples = torch.arange(batch) + 2**32 - 70
    out = compiled((3 << 40) + 5, Stream.LATENT, step.cuda(), samples.cuda(), count)
    on_gpu = reference((3 << 40) + 5, Stream.LATENT, step.cuda(), samples.cuda(), count)
    assert torch.equal(out, on_gpu)
    assert torch.equal(out.cpu(), compiled((3 << 40) + 5, Stream.LATENT, step, samples, count))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [(0.0, 1.0), (1.0, 0.1), (-0.3, 2.7)])
def test_scaled_normals_equal_the_reference_and_the_cpu_bit_for_bit(scale, dtype) -> None:
    place = (3, Stream.LATENT, 7)
    samples = torch.arange(3000)
    out = random.normal(*place, samples.cuda(), 101, *scale, dtype)
    assert out.dtype == dtype
    assert torch.equal(out, random.normal_reference(*place, samples.cuda(), 101, *scale, dtype))
    assert torch.equal(out.cpu(), random.normal(*place, samples, 101, *scale, dtype))


def test_symmetric_uniforms_are_the_uniforms_stretched() -> None:
    arguments = (3, Stream.LATENT, 1, torch.arange(1000, device="cuda"), 7)
    assert torch.equal(random.symmetric_uniform(*arguments), random.uniform(*arguments) * 2 - 1)


@pytest.mark.parametrize("name", FILLS)
def test_replays_in_a_graph_with_new_numbers_and_no_synchronisation(name) -> None:
    compiled, reference = FILLS[name]
    step = torch.zeros((), dtype=torch.int64, device="cuda")
    samples = torch.arange(70, device="cuda")
    compiled(1, Stream.LATENT, step, samples, 9)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = compiled(1, Stream.LATENT, step, samples, 9)
            step += 1
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for number in range(3):
        graph.replay()
        assert torch.equal(out, reference(1, Stream.LATENT, number, samples, 9))
