"""The CUDA kernels of the spectral norm against the reference; needs a GPU."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile

from pokegan.networks.spectral_norm import spectral_norm_, spectral_norms
from pokegan.ops import spectral_iterate, spectral_scale, spectral_sigma, status
from pokegan.ops.spectral_norm_reference import iterate_reference, matrix_of, scale_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]
SHAPES = [
    ((64, 3, 4, 4), 0),
    ((96, 80, 4, 4), 0),
    ((70, 90, 4, 4), 1),
    ((33, 40, 6, 6), 1),
    ((1, 512, 4, 4), 0),
    ((1, 3000), 0),
    ((41, 17, 3), 1),
    ((5, 1), 0),
    ((0, 4), 0),
]


@pytest.fixture(autouse=True)
def compiled() -> None:
    if not status().cuda:
        pytest.fail(f"the CUDA kernels are not in use: {status().cuda_reason}")


def case(dtype=torch.float64, copies=1, memory=torch.contiguous_format):
    random = torch.Generator("cuda").manual_seed(0)
    weights, dims = [], []
    for shape, dim in SHAPES * copies:
        weight = torch.randn(shape, dtype=dtype, device="cuda", generator=random)
        weights.append(weight.to(memory_format=memory) if weight.dim() == 4 else weight)
        dims.append(dim)
    lengths = [
        (w.shape[d], w.numel() // w.shape[d] if w.shape[d] else 4)
        for w, d in zip(weights, dims, strict=True)
    ]
    u, v = (
        [
            F.normalize(torch.randn(n[i], dtype=dtype, device="cuda", generator=random), dim=0)
            for n in lengths
        ]
        for i in (0, 1)
    )
    return weights, u, v, dims


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("copies", [1, 8])  # 72 layers: more than one table
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
def test_equals_the_reference(dtype, close, copies, memory) -> None:
    weights, u, v, dims = case(dtype, copies, memory)
    reference = [[one.clone() for one in part] for part in (u, v)]
    found = spectral_iterate(weights, u, v, dims, 2)
    expected = iterate_reference(weights, *reference, dims, 2, 1e-12)
    tolerance = {"rtol": close, "atol": close}
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, **tolerance)
    torch.testing.assert_close(u + v, reference[0] + reference[1], **tolerance)
    torch.testing.assert_close(spectral_sigma(weights, u, v, dims).sigma, found.sigma, **tolerance)
    downstream = [torch.randn_like(weight) for weight in weights]
    results = []
    for run in (spectral_scale, reference_scale):
        leaves = [weight.clone().requires_grad_() for weight in weights]
        scaled = run(leaves, found, dims)
        torch.autograd.backward(scaled, downstream)
        results.append([*(one.detach() for one in scaled), *(leaf.grad for leaf in leaves)])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, **tolerance)


def reference_scale(weights, factors, dims):
    return scale_reference(list(weights), *factors, dims, weights[0].dtype)


def test_gradcheck_once_and_twice() -> None:
    weights, u, v, dims = (part[-3:-1] for part in case())
    spectral_iterate(weights, u, v, dims)

    def normalise(*weights):
        return tuple(spectral_scale(weights, spectral_sigma(weights, u, v, dims), dims))

    leaves = [weight.requires_grad_() for weight in weights]
    assert torch.autograd.gradcheck(normalise, leaves)
    assert torch.autograd.gradgradcheck(normalise, leaves)


def test_sigma_is_the_largest_singular_value() -> None:
    weights, u, v, dims = (part[:-1] for part in case())
    found = spectral_iterate(weights, u, v, dims, 400)
    for i, (weight, dim) in enumerate(zip(weights, dims, strict=True)):
        largest = torch.linalg.svdvals(matrix_of(weight, dim))[0]
        torch.testing.assert_close(found.sigma[i], largest, rtol=1e-3, atol=0)


def test_bfloat16_is_rounded_once_and_keeps_the_memory_order() -> None:
    weights, u, v, dims = case(torch.float32, memory=torch.channels_last)
    factors = spectral_iterate(weights, u, v, dims)
    narrow = spectral_scale(weights, factors, dims, torch.bfloat16)
    for one, two in zip(narrow, spectral_scale(weights, factors, dims), strict=True):
        assert one.stride() == two.stride()
        assert torch.equal(one, two.bfloat16())


def everything(weights, u, v, dims):
    leaves = [weight.clone().requires_grad_() for weight in weights]
    factors = spectral_iterate(leaves, u, v, dims)
    scaled = spectral_scale(leaves, factors, dims)
    torch.autograd.backward(scaled, [weight.cos() for weight in weights])
    return [*factors, *u, *v, *scaled, *(leaf.grad for leaf in leaves)]


def test_the_same_bits_at_every_run() -> None:
    first, second = (everything(*case(torch.float32)) for _ in range(2))
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_no_synchronisation_and_at_most_four_launches_forward() -> None:
    weights, u, v, dims = case(torch.float32)
    spectral_scale(weights, spectral_iterate(weights, u, v, dims), dims)  # loads the kernels
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            spectral_scale(weights, spectral_iterate(weights, u, v, dims), dims)
            torch.cuda.set_sync_debug_mode("default")
            torch.cuda.synchronize()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    kernels = [
        event.name
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
        and not event.name.lower().startswith("mem")
    ]
    assert 1 <= len(kernels) <= 4, kernels  # none at all: the profiler saw nothing


def test_replays_in_a_graph_with_new_weights() -> None:
    weights, u, v, dims = case(torch.float32)
    start = [[one.clone() for one in part] for part in (u, v)]
    spectral_scale(weights, spectral_iterate(weights, u, v, dims), dims)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scaled = spectral_scale(weights, spectral_iterate(weights, u, v, dims), dims)
    for part, old in zip((u, v), start, strict=True):
        torch._foreach_copy_(part, old)
    torch._foreach_mul_(weights, -3.0)
    graph.replay()
    expected = spectral_scale(weights, spectral_iterate(weights, *start, dims), dims)
    assert all(torch.equal(one, two) for one, two in zip(scaled, expected, strict=True))


def test_a_network_captured_shares_nothing_with_what_was_outside() -> None:
    network = spectral_norm_(nn.Sequential(nn.Conv2d(3, 8, 4), nn.Conv2d(8, 1, 4))).cuda()
    pictures = torch.randn(2, 3, 8, 8, device="cuda")
    with torch.no_grad():
        network(pictures)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = network(pictures)
        network[0].parametrizations.weight.original.neg_()
        graph.replay()
        norm = spectral_norms(network)[0]
        norm.forget()
        network.eval()
        torch.testing.assert_close(out, network(pictures), rtol=1e-3, atol=1e-4)
