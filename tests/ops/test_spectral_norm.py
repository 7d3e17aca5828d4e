"""The spectral norm's operators against plain PyTorch, singular values and finite differences."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pokegan.ops import spectral_iterate, spectral_scale, spectral_sigma, status
from pokegan.ops import spectral_norm as module
from pokegan.ops.spectral_norm_reference import Factors, iterate_reference, matrix_of, scale_plainly

needs_extension = pytest.mark.skipif(
    not status().cpu, reason=f"no extension: {status().cpu_reason}"
)
LAYOUTS = ("contiguous", "channels_last", "strided", "transposed")


@st.composite
def weights_and_dims(draw, dtype=torch.float64):
    """Weights of 2 to 5 dimensions, odd and empty sizes, any memory order."""
    weights, dims = [], []
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    for _ in range(draw(st.integers(1, 4))):
        count = draw(st.integers(2, 5))
        shape = [
            draw(st.integers(0 if axis == 0 else 1, 19 if axis < 2 else 4)) for axis in range(count)
        ]
        weight = torch.randn(shape, dtype=dtype, generator=random)
        weights.append(laid_out(weight, draw(st.sampled_from(LAYOUTS))))
        dims.append(draw(st.integers(0, min(count - 1, 2))))
    return weights, dims


def laid_out(weight, layout):
    if layout == "channels_last" and weight.dim() in (4, 5):
        form = torch.channels_last if weight.dim() == 4 else torch.channels_last_3d
        return weight.to(memory_format=form)
    if layout == "strided":
        return torch.stack([weight, weight], dim=-1)[..., 0]
    if layout == "transposed":
        return weight.transpose(0, -1).contiguous().transpose(0, -1)
    return weight


def vectors(weights, dims, seed=0):
    """Unit vectors u and v for each weight."""
    random = torch.Generator().manual_seed(seed)
    rows = [weight.shape[dim] for weight, dim in zip(weights, dims, strict=True)]
    columns = [
        int(torch.tensor([s for a, s in enumerate(w.shape) if a != d]).prod())
        for w, d in zip(weights, dims, strict=True)
    ]
    return [
        [
            F.normalize(torch.randn(n, generator=random, dtype=weights[0].dtype), dim=0)
            for n in lengths
        ]
        for lengths in (rows, columns)
    ]


def network_weights(dtype=torch.float32, seed=0):
    """A mix as a network has it, large enough for several blocks and threads."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, dtype=dtype, generator=random)

    weights = [
        draw(64, 3, 4, 4),
        draw(96, 80, 4, 4).to(memory_format=torch.channels_last),
        draw(70, 90, 4, 4),
        draw(70, 90, 4, 4).to(memory_format=torch.channels_last),
        draw(1, 300),
        draw(41, 17, 3),
        draw(33, 1000),
    ]
    return weights, [0, 0, 1, 1, 0, 1, 0]


def on_reference(monkeypatch):
    monkeypatch.setattr(module, "_is_compiled", lambda weights: False)


@needs_extension
@settings(deadline=None, max_examples=60)
@given(case=weights_and_dims(), iterations=st.integers(1, 3))
def test_the_kernels_equal_the_reference(case, iterations) -> None:
    weights, dims = case
    ours, reference = vectors(weights, dims), vectors(weights, dims)
    found = spectral_iterate(weights, *ours, dims, iterations)
    expected = iterate_reference(weights, *reference, dims, iterations, 1e-12)
    close = {"rtol": 1e-9, "atol": 1e-9}
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, **close)
    for one, two in zip(itertools.chain(*ours), itertools.chain(*reference), strict=True):
        torch.testing.assert_close(one, two, **close)
    measured = spectral_sigma(weights, *ours, dims)
    torch.testing.assert_close(measured.sigma, found.sigma, **close)
    with torch.no_grad():
        scaled = spectral_scale(weights, found, dims)
    for weight, one, sigma in zip(weights, scaled, found.sigma, strict=True):
        torch.testing.assert_close(one, weight / sigma, **close)


@needs_extension
@settings(deadline=None, max_examples=40)
@given(case=weights_and_dims(), seed=st.integers(0, 99))
def test_the_gradient_equals_the_references(case, seed) -> None:
    weights, dims = case
    u, v = vectors(weights, dims)
    spectral_iterate(weights, u, v, dims, 2)
    random = torch.Generator().manual_seed(seed)
    downstream = [torch.randn(w.shape, dtype=w.dtype, generator=random) for w in weights]
    gradients = []
    for run in (spectral_scale, reference_scale):
        leaves = [weight.detach().clone().requires_grad_() for weight in weights]
        scaled = run(leaves, spectral_sigma(leaves, u, v, dims), dims)
        torch.autograd.backward(scaled, downstream)
        gradients.append([leaf.grad for leaf in leaves])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-7, atol=1e-7)


def reference_scale(weights, factors, dims):
    """With autograd's own gradient."""
    return scale_plainly(weights, *factors, dims, weights[0].dtype)


@pytest.mark.parametrize("reference", [False, True])
def test_sigma_is_the_largest_singular_value(monkeypatch, reference) -> None:
    if reference:
        on_reference(monkeypatch)
    weights, dims = network_weights(torch.float64)
    u, v = vectors(weights, dims)
    found = spectral_iterate(weights, u, v, dims, 400)
    for i, (weight, dim) in enumerate(zip(weights, dims, strict=True)):
        largest = torch.linalg.svdvals(matrix_of(weight, dim))[0]
        torch.testing.assert_close(found.sigma[i], largest, rtol=1e-3, atol=0)
        assert found.sigma[i] <= largest * (1 + 1e-9)


@needs_extension
def test_float32_is_close_to_float64() -> None:
    weights, dims = network_weights()
    u, v = vectors(weights, dims)
    wide = [weight.double() for weight in weights]
    wide_vectors = [[one.double() for one in part] for part in (u, v)]
    found, exact = (
        spectral_iterate(weights, u, v, dims),
        spectral_iterate(wide, *wide_vectors, dims),
    )
    torch.testing.assert_close(found.sigma.double(), exact.sigma, rtol=2e-6, atol=0)
    torch.testing.assert_close(found.u.double(), exact.u, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.v.double(), exact.v, rtol=0, atol=1e-6)


@pytest.mark.parametrize("reference", [False, True])
def test_gradcheck_once_and_twice(monkeypatch, reference) -> None:
    if reference:
        on_reference(monkeypatch)
    shapes, dims = [(3, 2, 2, 2), (2, 3, 2, 1), (4, 3), (1, 5)], [0, 1, 0, 0]
    random = torch.Generator().manual_seed(3)
    weights = [torch.randn(s, dtype=torch.float64, generator=random) for s in shapes]
    weights[0] = weights[0].to(memory_format=torch.channels_last)
    u, v = vectors(weights, dims)
    spectral_iterate(weights, u, v, dims)

    def normalise(*weights):
        return tuple(spectral_scale(weights, spectral_sigma(weights, u, v, dims), dims))

    leaves = [weight.requires_grad_() for weight in weights]
    assert torch.autograd.gradcheck(normalise, leaves)
    assert torch.autograd.gradgradcheck(normalise, leaves)


@pytest.mark.parametrize("reference", [False, True])
def test_a_graph_serves_several_losses(monkeypatch, reference) -> None:
    if reference:
        on_reference(monkeypatch)
    weights, dims = network_weights(torch.float64)
    u, v = vectors(weights, dims)
    gradients = []
    for together in (True, False):
        leaves = [weight.clone().requires_grad_() for weight in weights]
        scaled = spectral_scale(leaves, spectral_sigma(leaves, u, v, dims), dims)
        losses = [sum(one.square().sum() for one in scaled), sum(one.sum() for one in scaled)]
        for loss in [sum(losses)] if together else losses:
            loss.backward()
        gradients.append([leaf.grad for leaf in leaves])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reference", [False, True])
def test_a_weight_changed_before_backward_is_refused(monkeypatch, reference) -> None:
    if reference:
        on_reference(monkeypatch)
    weights, dims = network_weights()
    u, v = vectors(weights, dims)
    leaves = [weight.requires_grad_() for weight in weights]
    scaled = spectral_scale(leaves, spectral_sigma(leaves, u, v, dims), dims)
    with torch.no_grad():
        leaves[2].add_(1)
    with pytest.raises(RuntimeError, match="changed in place between forward and backward"):
        scaled[0].sum().backward()


@needs_extension
def test_an_unused_output_has_a_zero_gradient() -> None:
    weights, dims = network_weights()
    u, v = vectors(weights, dims)
    leaves = [weight.requires_grad_() for weight in weights]
    spectral_scale(leaves, spectral_sigma(leaves, u, v, dims), dims)[4].sum().backward()
    assert leaves[4].grad.abs().max() > 0
    assert not leaves[0].grad.any()


@needs_extension
def test_opcheck() -> None:
    weights, dims = network_weights()
    u, v = vectors(weights, dims)
    ops = torch.ops.pokegan
    torch.library.opcheck(ops.spectral_iterate.default, (weights, u, v, dims, 2, 1e-12))
    torch.library.opcheck(ops.spectral_sigma.default, (weights, u, v, dims))
    factors = spectral_sigma(weights, u, v, dims)
    leaves = [weight.clone().requires_grad_() for weight in weights]
    for dtype in (torch.float32, torch.bfloat16):
        torch.library.opcheck(ops.spectral_scale.default, (leaves, *factors, dims, dtype))
    weights, dims = network_weights(torch.float64)  # its double gradient is composed of sums
    factors = spectral_sigma(weights, *vectors(weights, dims), dims)
    gradients = [torch.randn_like(weight).requires_grad_() for weight in weights]
    leaves = [weight.clone().requires_grad_() for weight in weights]
    torch.library.opcheck(ops.spectral_scale_backward.default, (gradients, leaves, *factors, dims))


@needs_extension
def test_compiled_in_one_graph() -> None:
    def normalise(weights, u, v):
        return spectral_scale(weights, spectral_iterate(weights, u, v, dims), dims)

    weights, dims = network_weights()
    results = []
    for run in (normalise, torch.compile(normalise, fullgraph=True, backend="aot_eager")):
        u, v = vectors(weights, dims)
        leaves = [weight.clone().requires_grad_() for weight in weights]
        scaled = run(leaves, u, v)
        sum(one.square().sum() * (i + 1) + one.sum() for i, one in enumerate(scaled)).backward()
        results.append([*scaled, *u, *v, *(leaf.grad for leaf in leaves)])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
        assert one.stride() == two.stride()


@needs_extension
def test_the_same_bits_for_any_count_of_threads() -> None:
    weights, dims = network_weights()
    downstream = [torch.randn_like(weight) for weight in weights]

    def everything():
        u, v = vectors(weights, dims)
        leaves = [weight.clone().requires_grad_() for weight in weights]
        factors = spectral_iterate(leaves, u, v, dims, 2)
        scaled = spectral_scale(leaves, factors, dims)
        torch.autograd.backward(scaled, downstream)
        measured = spectral_sigma(leaves, u, v, dims)
        return [*factors, *measured, *u, *v, *scaled, *(leaf.grad for leaf in leaves)]

    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            results.append(everything())
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


@pytest.mark.parametrize("reference", [False, True])
def test_full_precision_inside_autocast(monkeypatch, reference) -> None:
    if reference:
        on_reference(monkeypatch)
    weights, dims = network_weights()
    outside, inside = vectors(weights, dims), vectors(weights, dims)
    expected = spectral_iterate(weights, *outside, dims)
    with torch.autocast("cpu", torch.bfloat16):
        found = spectral_iterate(weights, *inside, dims)
        scaled = spectral_scale(weights, found, dims)
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
    assert all(one.dtype == torch.float32 for one in scaled)


@needs_extension
def test_bfloat16_is_rounded_once_and_keeps_the_memory_order() -> None:
    weights, dims = network_weights()
    weights[0][0, 0, 0, 0] = float("nan")
    u, v = vectors(weights, dims)
    factors = spectral_sigma(weights, u, v, dims)
    factors.sigma[0] = 1.5
    wide = spectral_scale(weights, factors, dims)
    narrow = spectral_scale(weights, factors, dims, torch.bfloat16)
    for one, two in zip(narrow, wide, strict=True):
        assert one.dtype == torch.bfloat16
        assert one.stride() == two.stride()
        assert torch.equal(one.nan_to_num(), two.bfloat16().nan_to_num())
    assert narrow[0][0, 0, 0, 0].isnan()


@needs_extension
def test_bfloat16_gradients() -> None:
    weights, dims = network_weights()
    u, v = vectors(weights, dims)
    spectral_iterate(weights, u, v, dims)
    gradients = []
    downstream = [torch.randn_like(weight).bfloat16() for weight in weights]
    for dtype in (torch.bfloat16, torch.float32):
        leaves = [weight.clone().requires_grad_() for weight in weights]
        scaled = spectral_scale(leaves, spectral_sigma(leaves, u, v, dims), dims, dtype)
        torch.autograd.backward(scaled, [one.to(dtype) for one in downstream])
        gradients.append([leaf.grad for leaf in leaves])
    for one, two in zip(*gradients, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reference", [False, True])
def test_a_gradient_has_its_weights_memory_order(monkeypatch, reference) -> None:
    if reference:
        on_reference(monkeypatch)
    weights, dims = network_weights()
    leaves = [weight.requires_grad_() for weight in weights]
    scaled = spectral_scale(leaves, spectral_sigma(leaves, *vectors(weights, dims), dims), dims)
    downstream = [laid_out(torch.randn(w.shape), "transposed") for w in weights]
    for one, leaf in zip(torch.autograd.grad(scaled, leaves, downstream), leaves, strict=True):
        assert one.stride() == leaf.stride()


def test_no_weights_no_work() -> None:
    factors = spectral_iterate([], [], [], [])
    assert [part.numel() for part in factors] == [0, 0, 0]
    assert spectral_scale([], factors, []) == []


FITTING = torch.zeros(3, 4)


def arguments(**changes):
    fitting = {
        "weights": [FITTING, FITTING],
        "u": [torch.zeros(3), torch.zeros(3)],
        "v": [torch.zeros(4), torch.zeros(4)],
        "dims": [0, 0],
        "iterations": 1,
        "eps": 1e-12,
    }
    return list({**fitting, **changes}.values())


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": [FITTING.half()] * 2}, "weights must be float32 or float64"),
        ({"weights": [FITTING, FITTING.double()]}, r"weights\[1\] must have the dtype"),
        ({"weights": [FITTING, torch.zeros(3)]}, r"weights\[1\] must have 2 to 8 dimensions"),
        ({"dims": [0, 2]}, r"dims\[1\] must be a dimension of weights\[1\], got 2"),
        ({"u": [torch.zeros(3)]}, "u must hold one vector a weight"),
        ({"u": [torch.zeros(3), torch.zeros(4)]}, r"u\[1\] must be contiguous of the shape \[3\]"),
        ({"v": [torch.zeros(4), torch.zeros(8)[::2]]}, r"v\[1\] must be contiguous"),
        ({"v": [torch.zeros(4).double(), torch.zeros(4)]}, r"v\[0\] must have the dtype"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"eps": 0.0}, "eps must be positive"),
        ({"eps": float("nan")}, "eps must be positive"),
    ],
)
def test_a_wrong_argument_is_named(monkeypatch, reference, changes, words) -> None:
    if reference:
        on_reference(monkeypatch)
    with pytest.raises(RuntimeError, match=words):
        spectral_iterate(*arguments(**changes))


def test_two_devices_are_refused(monkeypatch) -> None:
    on_reference(monkeypatch)  # the dispatcher takes meta tensors to the fakes, which check nothing
    with pytest.raises(RuntimeError, match=r"weights\[1\] must be on the device of weights\[0\]"):
        spectral_iterate(*arguments(weights=[FITTING, FITTING.to("meta")]))


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sigma": torch.zeros(2)}, r"sigma must be contiguous of the shape \[1\]"),
        ({"u": torch.zeros(4)}, r"u must be contiguous of the shape \[3\]"),
        ({"v": torch.zeros(4).double()}, "v must have the dtype of the weights"),
        ({"dtype": torch.float16}, "dtype must be that of the weights, or bfloat16"),
    ],
)
def test_a_wrong_factor_is_named(monkeypatch, reference, changes, words) -> None:
    if reference:
        on_reference(monkeypatch)
    fitting = {"sigma": torch.zeros(1), "u": torch.zeros(3), "v": torch.zeros(4), "dtype": None}
    *factors, dtype = {**fitting, **changes}.values()
    with pytest.raises(RuntimeError, match=words):
        spectral_scale([FITTING], Factors(*factors), [0], dtype)


@needs_extension
@pytest.mark.parametrize(
    ("gradient", "words"),
    [
        (torch.zeros(4, 3), r"gradients\[0\] must have the shape of its weight"),
        (torch.zeros(3, 4).half(), "gradients must have the dtype of the weights"),
    ],
)
def test_a_wrong_gradient_is_named(gradient, words) -> None:
    factors = torch.ones(1), torch.zeros(3), torch.zeros(4)
    with pytest.raises(RuntimeError, match=words):
        torch.ops.pokegan.spectral_scale_backward([gradient], [FITTING], *factors, [0])
