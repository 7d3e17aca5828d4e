"""The CUDA kernels of diff_augment against the reference; needs a GPU."""

import pytest
import torch

from pokegan.ops import diff_augment, status
from pokegan.ops.diff_augment import diff_augment_reference
from pokegan.ops.random import Stream

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]
STREAM = Stream.AUGMENT_REAL
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2**-6, torch.float64: 1e-12}


@pytest.fixture(autouse=True)
def compiled() -> None:
    if not status().cuda:
        pytest.fail(f"the CUDA kernels are not in use: {status().cuda_reason}")


def with_gradient(augment, images, gradient, **choice):
    images = images.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    samples = torch.arange(len(images), device=images.device) + 7
    out = augment(images, 3, STREAM, 11, samples, **choice)
    return out.detach(), *torch.autograd.grad(out, images, gradient)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "shape", [(0, 8, 8), (3, 1, 1), (5, 5, 7), (64, 64, 64), (2, 65, 64), (3, 256, 131)]
)
def test_it_and_its_gradient_equal_the_reference(dtype, memory, shape) -> None:
    random = torch.Generator("cuda").manual_seed(1)
    size = (shape[0], 3, *shape[1:])
    images = torch.randn(size, device="cuda", generator=random).to(dtype)
    images = images.contiguous(memory_format=memory)
    gradient = torch.randn(size, device="cuda", generator=random).to(dtype)
    for policy in range(8):
        choice = {
            "colour": bool(policy & 1),
            "translation": bool(policy & 2),
            "cutout": bool(policy & 4),
            "fill": 1.0,
        }
        ours = with_gradient(diff_augment, images, gradient, **choice)
        theirs = with_gradient(diff_augment_reference, images, gradient, **choice)
        tolerance = TOLERANCES[dtype]
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
        assert all(map(torch.equal, ours, with_gradient(diff_augment, images, gradient, **choice)))


@pytest.mark.parametrize("side", [5, 70])
def test_gradients_of_both_orders(side) -> None:
    images = torch.randn(1, 3, side, 3, dtype=torch.float64, device="cuda", requires_grad=True)
    samples = torch.tensor([4], device="cuda")

    def augment(images):
        return diff_augment(images, 5, STREAM, 3, samples, fill=1.0)

    assert torch.autograd.gradcheck(augment, images)
    assert torch.autograd.gradgradcheck(augment, images)


def test_equals_the_cpu_and_makes_no_synchronisation() -> None:
    images, samples, step = torch.randn(9, 3, 32, 32), torch.arange(9), torch.tensor(5)
    on_gpu = images.cuda(), step.cuda(), samples.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = diff_augment(on_gpu[0], 3, STREAM, *on_gpu[1:])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(out.cpu(), diff_augment(images, 3, STREAM, step, samples))


def test_replays_in_a_graph_with_a_new_step() -> None:
    images = torch.randn(4, 3, 16, 16, device="cuda")
    samples = torch.arange(4, device="cuda")
    step = torch.zeros((), dtype=torch.int64, device="cuda")
    diff_augment(images, 3, STREAM, step, samples)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = diff_augment(images, 3, STREAM, step, samples)
    step.fill_(9)
    graph.replay()
    torch.testing.assert_close(out, diff_augment_reference(images, 3, STREAM, 9, samples))
