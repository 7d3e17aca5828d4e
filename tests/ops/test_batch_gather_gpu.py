"""The CUDA kernel of batch_gather against the reference; needs a GPU."""

import pytest
import torch

from pokegan.ops import batch_gather, status
from pokegan.ops.batch_gather import batch_gather_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]


@pytest.fixture(autouse=True)
def compiled() -> None:
    if not status().cuda:
        pytest.fail(f"the CUDA kernels are not in use: {status().cuda_reason}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64, 64), (1, 1), (5, 7), (33, 17), (256, 256)])
@pytest.mark.parametrize("batch", [0, 1, 64])
def test_equals_the_reference_bit_for_bit(dtype, shape, batch) -> None:
    random = torch.Generator("cuda").manual_seed(batch)
    images = torch.randint(
        0, 256, (9, *shape, 3), dtype=torch.uint8, device="cuda", generator=random
    )
    indices = torch.randint(0, 9, (batch,), device="cuda", generator=random)
    flip = torch.rand(batch, device="cuda", generator=random) < 0.5
    shift = torch.randint(-8, 9, (batch, 2), device="cuda", generator=random)
    for choice in ((None, None), (flip, None), (None, shift), (flip, shift)):
        arguments = (images, indices, *choice, (255, 3, 128), dtype)
        assert torch.equal(batch_gather(*arguments), batch_gather_reference(*arguments))


def test_equals_the_cpu_and_makes_no_synchronisation() -> None:
    images = torch.randint(0, 256, (9, 32, 32, 3), dtype=torch.uint8)
    indices = torch.arange(9).flip(0)
    on_gpu = images.cuda(), indices.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = batch_gather(*on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(out.cpu(), batch_gather(images, indices))


def test_replays_in_a_graph_with_new_indices() -> None:
    images = torch.randint(0, 256, (9, 16, 16, 3), dtype=torch.uint8, device="cuda")
    indices = torch.zeros(4, dtype=torch.int64, device="cuda")
    batch_gather(images, indices)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = batch_gather(images, indices)
    indices.copy_(torch.tensor([3, 1, 8, 8]))
    graph.replay()
    assert torch.equal(out, batch_gather_reference(images, indices))
