"""The CUDA soft-label losses against the reference and the CPU; needs a GPU."""

import pytest
import torch

from pokegan.ops import label_targets, soft_labels, status
from pokegan.ops.soft_labels import FORMS, label_targets_reference, soft_labels_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]
WILD = ((0.7, 1.2), (-0.1, 0.3), 0.4)
# PyTorch's softplus(x) is x beyond 20, which leaves out 2e-9.
TOLERANCE = {torch.float32: 5e-6, torch.float64: 3e-9, torch.bfloat16: 5e-6}


@pytest.fixture(autouse=True)
def compiled() -> None:
    if not status().cuda:
        pytest.fail(f"the CUDA kernels are not in use: {status().cuda_reason}")


def logits(count: int, dtype: torch.dtype) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(count)
    both = torch.randn(2, count, dtype=torch.float64, generator=random) * 4
    return [row.to("cuda", dtype).requires_grad_() for row in both]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("count", [1, 2, 64, 255, 256, 257, 4096, 20_011])
@pytest.mark.parametrize("form", FORMS)
def test_equals_the_reference(form, count, dtype) -> None:
    real, fake = logits(count, dtype)
    arguments = (real, fake, torch.arange(count, device="cuda"), 9, 5, *WILD)
    loss, expected = soft_labels(form, *arguments), soft_labels_reference(form, *arguments)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=tolerance)
    gradients = [torch.autograd.grad(one * 3, (real, fake)) for one in (loss, expected)]
    relative = 2**-7 if dtype == torch.bfloat16 else 10 * tolerance
    for got, wanted in zip(*gradients, strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, wanted, rtol=relative, atol=10 * tolerance / count)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_bits_every_time(form) -> None:
    real, fake = logits(20_011, torch.float32)
    results = []
    for _ in range(3):
        loss = soft_labels(form, real, fake, torch.arange(20_011, device="cuda"), 9, 5, *WILD)
        results.append((loss, *torch.autograd.grad(loss, (real, fake))))
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_gradients_by_finite_differences(form) -> None:
    samples = torch.arange(7, device="cuda")
    assert torch.autograd.gradcheck(
        lambda x, y: soft_labels(form, x, y, samples, 3, 5, *WILD), logits(7, torch.float64)
    )


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_batch_has_the_mean_of_nothing(form) -> None:
    real, fake = logits(0, torch.float32)
    loss = soft_labels(form, real, fake, torch.arange(0, device="cuda"), 0, 1, *WILD)
    assert loss.isnan()
    assert torch.autograd.grad(loss, real)[0].shape == (0,)


def test_targets_equal_the_reference_and_the_cpu_bit_for_bit() -> None:
    samples = torch.arange(5000)
    got = label_targets(samples.cuda(), 3, 5, *WILD)
    expected = label_targets_reference(samples.cuda(), 3, 5, *WILD)
    on_cpu = label_targets(samples, 3, 5, *WILD)
    for one, two, three in zip(got, expected, on_cpu, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one.cpu(), three)


@pytest.mark.parametrize("form", FORMS)
def test_replays_in_a_graph_with_new_targets_and_no_synchronisation(form) -> None:
    real, fake = (row.detach() for row in logits(70, torch.float32))
    step = torch.zeros((), dtype=torch.int64, device="cuda")
    samples = torch.arange(70, device="cuda")
    soft_labels(form, real, fake, samples, step, 5, *WILD)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = soft_labels(form, real, fake, samples, step, 5, *WILD)
            step += 1
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for number in range(3):
        graph.replay()
        expected = soft_labels_reference(form, real, fake, samples, number, 5, *WILD)
        torch.testing.assert_close(out, expected, rtol=5e-6, atol=5e-6)
