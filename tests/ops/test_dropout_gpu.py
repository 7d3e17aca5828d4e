"""The CUDA dropout against the reference and the CPU; needs a GPU."""

import pytest
import torch

from pokegan.ops import dropout, status
from pokegan.ops.dropout import dropout_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]
STREAM = 70_000
DTYPES = (torch.float32, torch.bfloat16, torch.float64)
FORMATS = (torch.contiguous_format, torch.channels_last)


@pytest.fixture(autouse=True)
def compiled() -> None:
    if not status().cuda:
        pytest.fail(f"the CUDA kernels are not in use: {status().cuda_reason}")


def with_gradient(drop, values, maps):
    values = values.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    device = values.device
    samples = torch.arange((len(values) + 1) // 2, device=device) + 2**32 - 3
    if len(values) % 2:
        samples = torch.arange(len(values), device=device)
    step = torch.tensor(11, device=device)
    out = drop(values, 0.3, (3 << 40) + 5, STREAM, step, samples, maps=maps)
    return out.detach(), *torch.autograd.grad(out.square().sum(), values)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize(
    "shape", [(0, 8, 8, 8), (3, 1, 1, 1), (6, 5, 5, 7), (64, 64, 16, 16), (5, 129, 3, 4)]
)
def test_it_and_its_gradient_have_the_bits_of_the_reference(dtype, memory, maps, shape) -> None:
    values = torch.randn(shape).to(dtype).contiguous(memory_format=memory)
    ours = with_gradient(dropout, values.cuda(), maps)
    assert all(map(torch.equal, ours, with_gradient(dropout_reference, values.cuda(), maps)))
    on_cpu = with_gradient(dropout, values, maps)
    assert torch.equal(ours[0].cpu(), on_cpu[0])
    assert ours[0].stride() == on_cpu[0].stride()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 100, 101])
def test_rows_of_any_length_and_alignment(count) -> None:
    values = torch.randn(7 * count + 1, device="cuda")[1:].view(7, count)
    place = (0.5, 1, STREAM, torch.tensor(2, device="cuda"), torch.arange(7, device="cuda"))
    assert torch.equal(dropout(values, *place), dropout_reference(values, *place))


@pytest.mark.parametrize("maps", [False, True])
def test_gradients_of_both_orders(maps) -> None:
    values = torch.randn(2, 3, 5, 3, dtype=torch.float64, device="cuda", requires_grad=True)
    samples = torch.arange(2, device="cuda")

    def drop(values):
        return dropout(values, 0.4, 5, STREAM, 3, samples, maps=maps)

    assert torch.autograd.gradcheck(drop, values)
    assert torch.autograd.gradgradcheck(drop, values)


def test_replays_in_a_graph_with_a_new_step_and_no_synchronisation() -> None:
    values = torch.randn(8, 16, 4, 4, device="cuda", requires_grad=True)
    samples = torch.arange(8, device="cuda")
    step = torch.zeros((), dtype=torch.int64, device="cuda")

    def both():
        out = dropout(values, 0.5, 3, STREAM, step, samples)
        return out, torch.autograd.grad(out, values, torch.ones_like(out))[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        both()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out, gradient = both()
            step += 1
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for number in range(3):
        graph.replay()
        expected = dropout_reference(values, 0.5, 3, STREAM, number, samples)
        assert torch.equal(out, expected)
        assert torch.equal(gradient != 0, expected != 0)
