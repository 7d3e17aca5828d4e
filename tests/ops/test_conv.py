"""Our convolutions against PyTorch's in float64, their gradients of first and second order."""

import pytest
import torch
import torch.nn.functional as F
from conv_cases import (
    LAST,
    ROUNDING,
    UNITS,
    assert_all_near,
    assert_convolution,
    assert_near,
    drawn,
    gradients,
    needs_kernels,
    tensors_of,
    transposed_sizes,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from threads import with_threads

from pokegan.ops import conv, conv2d_bf16, conv_transpose2d_bf16, conv_units


@st.composite
def cases(draw):
    """Any small layer: odd sizes, few channels and many, a batch of one, of none, across blocks."""
    kernel = [draw(st.integers(1, 5)) for _ in range(2)]
    stride = draw(st.integers(1, 3))
    padding = draw(st.integers(0, 2))
    sizes = [draw(st.integers(max(1, side - 2 * padding), 9)) for side in kernel]
    return {
        "batch": draw(st.sampled_from([0, 1, 2, 15, 16, 17, 33, 64])),
        "channels": draw(st.sampled_from([1, 3, 16, 31, 32, 33, 70])),
        "outputs": draw(st.sampled_from([1, 3, 16, 17, 33, 64])),
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "sizes": sizes,
        "units": draw(st.sampled_from(UNITS)),
        "narrow": draw(st.booleans()),
        "layout": draw(st.sampled_from(["channels_last", "contiguous", "strided"])),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


@needs_kernels
@settings(deadline=None, max_examples=80)
@given(case=cases())
def test_a_convolution_and_its_gradients(case) -> None:
    assert_convolution(case)


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
def test_what_is_not_finite_stays_within_the_kernels_reach(units) -> None:
    y = torch.ones(1, 32, 16, 16, dtype=torch.bfloat16).contiguous(memory_format=LAST)
    y[0, 5, 8, 9] = float("inf")
    w = torch.ones(32, 3, 4, 4)
    made = conv_transpose2d_bf16(y, w, None, 2, 1, (0, 0), units)[0]
    exact = F.conv_transpose2d(y.float(), w, None, 2, 1)[0]
    touched = torch.zeros(32, 32, dtype=torch.bool)
    touched[2 * 7 : 2 * 10, 2 * 8 : 2 * 11] = True  # the pixels of this place and of its neighbours
    assert torch.equal(made[:, ~touched].float(), exact[:, ~touched])
    assert not made[:, ~exact[0].isfinite()].isfinite().any()


@needs_kernels
@settings(deadline=None, max_examples=80)
@given(case=cases(), more=st.tuples(st.integers(0, 2), st.integers(0, 2)))
def test_a_transposed_convolution_and_its_gradients(case, more) -> None:
    _, w, _, y = tensors_of(case)
    more = tuple(min(one, case["stride"] - 1) for one in more)
    numbers = (case["stride"], case["padding"], more)
    b = torch.ones(case["channels"])
    sizes = transposed_sizes(y, w, *numbers)
    if min(sizes) < 1 or y.shape[0] == 0:  # PyTorch refuses, or has no gradient
        return
    random = torch.Generator().manual_seed(case["seed"] + 1)
    downstream = drawn(random, y.shape[0], case["channels"], *sizes, layout="contiguous")
    found = gradients(
        lambda y, w, b: conv_transpose2d_bf16(y, w, b, *numbers, case["units"]),
        (y, w, b),
        downstream,
    )
    assert_all_near(
        found,
        lambda y, w, b: F.conv_transpose2d(y, w, b, *numbers),
        (y, w, b),
        downstream,
        (True, True, case["narrow"], False),
    )


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
def test_second_order(units) -> None:
    """A gradient penalty: the gradient of |dx|^2 + |dw|^2 through both operators."""
    random = torch.Generator().manual_seed(1)
    x = drawn(random, 20, 5, 9, 8)
    w = drawn(random, 7, 5, 4, 4, dtype=torch.float32) / 8
    v = drawn(random, 7, 5, 4, 4, dtype=torch.float32) / 8

    def penalty(down, up, dtypes):
        leaves = [
            one.detach().to(dtype).requires_grad_()
            for one, dtype in zip((x, w, v), dtypes, strict=True)
        ]
        loss = up(down(leaves[0], leaves[1]), leaves[2]).square().mean(dtype=torch.float64)
        inner = torch.autograd.grad(loss, leaves, create_graph=True)
        total = sum(one.square().sum(dtype=torch.float64) for one in inner)
        return torch.autograd.grad(total, leaves)

    exact = penalty(
        lambda x, w: F.conv2d(x, w, None, 2, 1),
        lambda y, w: F.conv_transpose2d(y, w, None, 2, 1, (1, 0)),
        [torch.float64] * 3,
    )
    found = penalty(
        lambda x, w: conv2d_bf16(x, w, None, 2, 1, units),
        lambda y, w: conv_transpose2d_bf16(y, w, None, 2, 1, (1, 0), units),
        [torch.bfloat16, torch.float32, torch.float32],
    )
    for one, two in zip(found, exact, strict=True):
        error = (one.double() - two).norm() / two.norm()
        assert error < 0.02


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
def test_the_same_bits_for_any_count_of_threads(units) -> None:
    random = torch.Generator().manual_seed(2)
    layers = [
        (70, 40, 12, 4, 2, 1),
        (3, 33, 20, 4, 2, 1),
        (40, 3, 9, 3, 1, 1),
        (64, 33, 26, 4, 2, 1),
    ]
    tensors = [
        (drawn(random, 80, c, size, size), drawn(random, o, c, k, k, dtype=torch.float32), s, p)
        for c, o, size, k, s, p in layers
    ]

    def everything():
        results = []
        for x, w, s, p in tensors:
            y = conv2d_bf16(x, w, None, s, p, units)
            results += gradients(lambda x, w: conv2d_bf16(x, w, None, s, p, units), (x, w), y)  # noqa: B023  called at once
        return results

    first, *others = with_threads(everything, (1, 2, 3, 2))
    for other in others:
        assert all(torch.equal(one, two) for one, two in zip(first, other, strict=True))


@needs_kernels
def test_chunks_add_up() -> None:
    """More images and rows than the weight gradient takes at once."""
    random = torch.Generator().manual_seed(3)
    x, y = drawn(random, 70, 40, 48, 40), drawn(random, 70, 33, 24, 20)
    exact = torch.nn.grad.conv2d_weight(x.double(), (33, 40, 4, 4), y.double(), 2, 1)
    for dtype in (torch.float32, torch.bfloat16):
        found = torch.ops.pokegan.conv2d_weight_bf16(x, y, [4, 4], 2, 1, dtype)
        assert_near(found, exact, dtype == torch.bfloat16)


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
def test_segments_are_shared_or_not_with_the_same_bits(units) -> None:
    """More threads than segments work on one of them together."""
    random = torch.Generator().manual_seed(5)
    x, y = drawn(random, 70, 40, 48, 40), drawn(random, 70, 33, 24, 20)
    numbers = ([4, 4], 2, 1, torch.float32, units)
    first, *others = with_threads(
        lambda: torch.ops.pokegan.conv2d_weight_bf16(x, y, *numbers), (1, 2, 3, 9)
    )
    assert all(torch.equal(first, other) for other in others)


@needs_kernels
def test_wide_maps_are_cut_into_columns() -> None:
    random = torch.Generator().manual_seed(4)
    x, w = drawn(random, 3, 70, 5, 200), drawn(random, 5, 70, 5, 5)
    exact = F.conv2d(x.double(), w.double(), None, 1, 2)
    assert_near(conv2d_bf16(x, w, None, 1, 2), exact)


@needs_kernels
def test_only_what_is_asked_for_is_computed() -> None:
    random = torch.Generator().manual_seed(5)
    x, w = drawn(random, 4, 3, 8, 8), drawn(random, 5, 3, 4, 4)
    y = conv2d_bf16(x.requires_grad_(), w, None, 2, 1)
    y.sum().backward()
    assert x.grad is not None
    assert w.grad is None


@needs_kernels
def test_opcheck() -> None:
    random = torch.Generator().manual_seed(6)
    x = drawn(random, 5, 3, 9, 8).requires_grad_()
    w = drawn(random, 7, 3, 4, 4, dtype=torch.float32).requires_grad_()
    b = torch.randn(7).requires_grad_()
    y = drawn(random, 5, 7, 4, 4).requires_grad_()
    ops = torch.ops.pokegan
    torch.library.opcheck(ops.conv2d_bf16.default, (x, w, b, 2, 1))
    torch.library.opcheck(ops.conv_transpose2d_bf16.default, (y, w, None, 2, 1, [1, 0]))
    torch.library.opcheck(ops.conv2d_weight_bf16.default, (x, y, [4, 4], 2, 1, torch.float32))


@needs_kernels
def test_compiled_in_one_graph() -> None:
    def run(x, w, v):
        y = F.leaky_relu(conv2d_bf16(x, w, None, 2, 1), 0.2)
        return conv_transpose2d_bf16(y, v, None, 2, 1, (1, 0))

    random = torch.Generator().manual_seed(7)
    tensors = [drawn(random, 6, 3, 9, 8), drawn(random, 7, 3, 4, 4), drawn(random, 7, 2, 4, 4)]
    downstream = torch.randn(6, 2, 9, 8).bfloat16()
    results = [
        gradients(one, tensors, downstream)
        for one in (run, torch.compile(run, fullgraph=True, backend="aot_eager"))
    ]
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)
        assert one.stride() == two.stride()


@needs_kernels
@settings(deadline=None, max_examples=15)
@given(case=cases())
def test_the_reference_equals_the_kernels(case) -> None:
    x, w, b, _ = tensors_of(case)
    numbers = (case["stride"], case["padding"])
    reference = conv._reference(F.conv2d, x, w, b, *numbers)
    found = conv2d_bf16(x, w, b, *numbers, case["units"])
    assert found.stride() == reference.stride() or found.numel() == 0
    torch.testing.assert_close(found, reference, rtol=2 * ROUNDING, atol=1e-4)  # one step apart


@pytest.mark.parametrize("own", [True, False])
def test_only_bfloat16_is_taken(monkeypatch, own) -> None:
    if own and conv_units() == "none":
        pytest.skip("no units")
    if not own:
        monkeypatch.setattr(conv, "is_compiled", lambda input: False)
    with pytest.raises(RuntimeError, match=r"conv2d_bf16: input must be bfloat16"):
        conv2d_bf16(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1, 1))


X, W = torch.zeros(2, 3, 4, 4).bfloat16(), torch.zeros(5, 3, 2, 2)


@needs_kernels
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((X[0], W), "input must have 4 dimensions"),
        ((X, W.double()), "weight must be float32 or bfloat16"),
        ((X, W[:, :2]), "input has 3 channels, weight is for 2"),
        ((X, W, torch.zeros(4)), r"bias must be contiguous of the shape \[5\]"),
        ((X, W, torch.zeros(5).double()), "bias must be float32 or bfloat16"),
        ((X, W, None, 0), "stride must be at least 1, got 0"),
        ((X, W, None, 1, -1), "padding must not be negative, got -1"),
        ((X, W, None, 2**59, 2**59), "stride and padding must be at most 1048576"),
        ((X, torch.zeros(5, 3, 17, 1)), "the kernel must have 1 to 16 rows and columns"),
        ((X, torch.zeros(5, 3, 5, 5)), "the maps are too small for the kernel"),
        ((X, W, None, 1, 0, 3), "this processor does not have these units"),
    ],
)
def test_wrong_arguments_are_named(arguments, words) -> None:
    with pytest.raises(RuntimeError, match=words):
        conv2d_bf16(*arguments)


@needs_kernels
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([4, 4], 2, 1, torch.float64), "dtype must be float32 or bfloat16"),
        (([4], 2, 1, torch.float32), "kernel must hold two numbers"),
        (([3, 3], 1, 0, torch.float32), "a convolution with this kernel does not make small of"),
    ],
)
def test_wrong_arguments_of_the_weight_gradient(arguments, words) -> None:
    large = drawn(torch.Generator(), 2, 3, 8, 8)
    small = drawn(torch.Generator(), 2, 5, 4, 4)
    with pytest.raises(RuntimeError, match=words):
        torch.ops.pokegan.conv2d_weight_bf16(large, small, *arguments)


@needs_kernels
def test_wrong_output_padding() -> None:
    with pytest.raises(RuntimeError, match=r"output_padding must be in \[0, stride\), got 2"):
        conv_transpose2d_bf16(X, torch.zeros(3, 5, 2, 2), None, 2, 0, (0, 2))
