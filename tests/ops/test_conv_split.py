"""Convolutions of float32 by split products against PyTorch's in float64, and the stated bounds."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from threads import with_threads

from pokegan.ops import conv, conv2d_split, conv_transpose2d_split, conv_units, status

needs_kernels = pytest.mark.skipif(
    conv_units() == "none", reason=f"units: none; extension: {status().cpu_reason}"
)
UNITS = [1, 2] if conv_units() == "AMX" else [1]
LAST = torch.channels_last
BOUND = {2: 2.0**-15, 3: 2.0**-24}  # of a product, by parts
ROUNDING = 2.0**-24  # of float32
TINY = 2.0**-126  # the smallest number that counts
HUGE = torch.finfo(torch.float32).max


@st.composite
def cases(draw):
    """Any small layer: odd sizes, few channels and many, a batch of one, of none, across blocks."""
    kernel = [draw(st.integers(1, 4)) for _ in range(2)]
    stride = draw(st.integers(1, 3))
    padding = draw(st.integers(0, 2))
    sizes = [draw(st.integers(max(1, side - 2 * padding), 8)) for side in kernel]
    x = (draw(st.sampled_from([0, 1, 15, 16, 17, 33])), draw(st.sampled_from([1, 3, 17, 32, 70])))
    outputs = draw(st.sampled_from([1, 3, 17, 33]))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    values = [
        torch.randn(shape, generator=random)
        for shape in ((*x, *sizes), (outputs, x[1], *kernel), (outputs,))
    ]
    units, parts = draw(st.sampled_from(UNITS)), draw(st.sampled_from([2, 3]))
    return values, stride, padding, parts, units, random


def assert_within(found, exact, sizes, terms, parts):
    """`sizes`: the same sum of absolute values, of so many terms; float32's sums err at random."""
    assert found.dtype == torch.float32
    assert found.shape == exact.shape
    allowed = BOUND[parts] + (4 + 2 * math.sqrt(terms)) * ROUNDING
    error = (found.double() - exact).abs()
    assert (error <= allowed * sizes).all(), (error / sizes).max() / allowed


def gradients(function, tensors, downstream):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, downstream.to(out.dtype))]


def assert_gradients_within(ours, stock, tensors, downstream, parts):
    found = gradients(ours, tensors, downstream)
    exact = gradients(stock, [one.double() for one in tensors], downstream)
    sizes = gradients(stock, [one.double().abs() for one in tensors], downstream.abs())
    terms = max(tensors[0].numel(), tensors[1].numel())
    for one, two, size in zip(found, exact, sizes, strict=True):
        assert_within(one, two, size, terms, parts)
    assert found[0].is_contiguous(memory_format=LAST)


@needs_kernels
@settings(deadline=None, max_examples=60)
@given(case=cases())
def test_a_convolution_and_its_gradients(case) -> None:
    (x, w, b), stride, padding, parts, units, random = case
    shape = F.conv2d(x, w, None, stride, padding).shape
    downstream = torch.randn(shape, generator=random)
    assert_gradients_within(
        lambda x, w, b: conv2d_split(x, w, b, stride, padding, parts, units),
        lambda x, w, b: F.conv2d(x, w, b, stride, padding),
        (x, w, b),
        downstream,
        parts,
    )


@needs_kernels
@settings(deadline=None, max_examples=60)
@given(case=cases(), more=st.tuples(st.integers(0, 2), st.integers(0, 2)))
def test_a_transposed_convolution_and_its_gradients(case, more) -> None:
    (x, w, _), stride, padding, parts, units, random = case
    y = F.conv2d(x, w, None, stride, padding)
    more = tuple(min(one, stride - 1) for one in more)
    sides = [
        (y.shape[axis] - 1) * stride - 2 * padding + w.shape[axis] + more[axis - 2]
        for axis in (2, 3)
    ]
    if min(sides) < 1 or len(y) == 0:  # PyTorch refuses, or has no gradient
        return
    channels = w.shape[1]
    assert_gradients_within(
        lambda y, w, b: conv_transpose2d_split(y, w, b, stride, padding, more, parts, units),
        lambda y, w, b: F.conv_transpose2d(y, w, b, stride, padding, more),
        (y, w, torch.randn(channels, generator=random)),
        torch.randn(len(y), channels, *sides, generator=random),
        parts,
    )


def products(x, w, parts, units):
    """[len(x), len(w)]: each product alone, as a convolution of one channel and one pixel."""
    return conv2d_split(x[:, None, None, None], w[:, None, None, None], None, 1, 0, parts, units)[
        :, :, 0, 0
    ]


@needs_kernels
@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("units", UNITS)
def test_the_bound_of_a_product(units, parts) -> None:
    random = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 2**23, (2, 2000), generator=random)
    worst = torch.tensor([0, 0x008000, 0x007FFF, 0x008001, 0x7F7FFF, 0x7FFFFF, 0x00807F, 0x008080])
    bits = torch.cat([bits, worst.expand(2, -1)], dim=1)
    x, w = (bits + (127 << 23)).to(torch.int32).view(torch.float32)  # every one in [1, 2)
    exact = x.double()[:, None] * w.double()
    error = ((products(x, w, parts, units).double() - exact) / exact).abs()
    assert error.max() <= BOUND[parts] + 4 * ROUNDING
    if parts == 2:
        assert error.max() > BOUND[2] / 4  # the bound is about this, and not far below


@needs_kernels
@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("units", UNITS)
def test_what_is_not_finite_and_the_ends_of_the_range(units, parts) -> None:
    inf = math.inf
    plain = [0.0, 1.0, 1.00001, 3.0e38, 3.3961e38, HUGE, 1e19, 1e-19, 1e-37, 2.0**-120 * 1.01, inf]
    signed = torch.tensor(plain + [-one for one in plain])
    patterns = torch.tensor([0x7FC00000, 0x7F800001, 0x7FFFFFFF, -1, -0x400000], dtype=torch.int32)
    values = torch.cat([signed, patterns.view(torch.float32)])
    found = products(values, values, parts, units)
    exact = values.double()[:, None] * values.double()
    finite = values.isfinite()[:, None] & values.isfinite()
    torch.testing.assert_close(
        found[~finite], exact.float()[~finite], rtol=0, atol=0, equal_nan=True
    )
    overflows = finite & (exact.abs() > HUGE)
    assert not found[overflows].isfinite().any()
    rest = finite & (exact.abs() <= HUGE * (1 - 2**-7))
    assert rest.sum() > 200
    lost = TINY * (values.double().abs()[:, None] + values.double().abs() + 1)
    allowed = (BOUND[parts] + 4 * ROUNDING) * exact.abs() + 2 * lost
    assert ((found.double() - exact).abs()[rest] <= allowed[rest]).all()


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
def test_subnormal_values_count_as_zeros(units) -> None:
    values = torch.tensor([1e-39, -1e-40, 1e-45])
    assert products(values, torch.tensor([1.0, 1e30]), 2, units).abs().max() == 0


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
def test_what_is_not_finite_stays_where_it_is(units) -> None:
    """In one image, one pixel, one channel: what it reaches, and nothing else."""
    random = torch.Generator().manual_seed(1)
    x, w = torch.randn(20, 40, 6, 6, generator=random), torch.randn(5, 40, 3, 3, generator=random)
    x[3, 7, 2, 2], x[11, 39, 5, 0] = math.inf, math.nan
    found, stock = conv2d_split(x, w, None, 1, 1, 2, units), F.conv2d(x, w, None, 1, 1)
    assert torch.equal(found.isnan(), stock.isnan())
    assert torch.equal(found.isposinf(), stock.isposinf())
    assert torch.equal(found.isneginf(), stock.isneginf())


def penalty(critic, pictures, weights):
    """mean (|grad D| - 1)^2 and its gradients by the weights."""
    pictures = pictures.clone().requires_grad_()
    weights = [one.clone().requires_grad_() for one in weights]
    (by_pictures,) = torch.autograd.grad(
        critic(pictures, weights).sum(), pictures, create_graph=True
    )
    loss = (by_pictures.flatten(1).norm(dim=1) - 1).square().mean()
    return [loss.detach(), *torch.autograd.grad(loss, weights)]


@needs_kernels
@pytest.mark.parametrize(("parts", "allowed"), [(2, 5e-5), (3, 2e-6)])
@pytest.mark.parametrize("units", UNITS)
def test_second_order(units, parts, allowed) -> None:
    """A gradient penalty through both operators and a smooth function; float64 is exact."""
    random = torch.Generator().manual_seed(2)
    x = torch.randn(20, 3, 12, 12, generator=random)
    shapes = [(24, 3, 4, 4), (40, 24, 4, 4), (40, 9, 3, 3)]
    weights = [torch.randn(shape, generator=random) / 8 for shape in shapes]

    def critic(down, up):
        def run(x, weights):
            hidden = torch.tanh(down(x, weights[0], None, 2, 1))
            hidden = torch.tanh(down(hidden, weights[1], None, 2, 1))
            return up(hidden, weights[2], None, 2, 1).square().mean((1, 2, 3))

        return run

    def ours(operator):
        return lambda *arguments: operator(*arguments, parts=parts, units=units)

    found = penalty(critic(ours(conv2d_split), ours(conv_transpose2d_split)), x, weights)
    wide = [one.double() for one in weights]
    exact = penalty(critic(F.conv2d, F.conv_transpose2d), x.double(), wide)
    for one, two in zip(found, exact, strict=True):
        assert (one.double() - two).norm() <= allowed * two.norm()


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
def test_the_same_bits_for_any_count_of_threads(units) -> None:
    random = torch.Generator().manual_seed(3)
    layers = [(70, 40, 12, 4, 2, 1), (3, 20, 12, 4, 2, 1), (40, 3, 6, 3, 1, 1)]
    tensors = [
        (
            torch.randn(80, c, size, size, generator=random),
            torch.randn(o, c, k, k, generator=random),
            (s, p, parts, units),
        )
        for c, o, size, k, s, p in layers
        for parts in (2, 3)
    ]

    def everything():
        results = []
        for x, w, numbers in tensors:
            y = conv2d_split(x, w, None, *numbers)
            results += gradients(lambda x, w: conv2d_split(x, w, None, *numbers), (x, w), y)  # noqa: B023  called at once
        return results

    first, *others = with_threads(everything)
    for other in others:
        assert all(torch.equal(one, two) for one, two in zip(first, other, strict=True))


@needs_kernels
def test_chunks_add_up() -> None:
    """More images and rows than the weight gradient takes at once, and rows cut into columns."""
    random = torch.Generator().manual_seed(4)
    x, y = (torch.randn(shape, generator=random) for shape in ((70, 40, 24, 40), (70, 33, 12, 20)))
    arguments = [one.contiguous(memory_format=LAST) for one in (x, y)]
    found = torch.ops.pokegan.conv2d_weight_split(*arguments, [4, 4], 2, 1, 2)
    shape = (33, 40, 4, 4)
    exact = torch.nn.grad.conv2d_weight(x.double(), shape, y.double(), 2, 1)
    sizes = torch.nn.grad.conv2d_weight(x.double().abs(), shape, y.double().abs(), 2, 1)
    assert_within(found, exact, sizes, 70 * 12 * 20, 2)
    x, w = (torch.randn(shape, generator=random) for shape in ((3, 70, 5, 200), (5, 70, 5, 5)))
    exact = F.conv2d(x.double(), w.double(), None, 1, 2)
    sizes = F.conv2d(x.double().abs(), w.double().abs(), None, 1, 2)
    assert_within(conv2d_split(x, w, None, 1, 2), exact, sizes, 70 * 25, 2)


@needs_kernels
def test_opcheck() -> None:
    random = torch.Generator().manual_seed(5)

    def drawn(*shape):
        values = torch.randn(shape, generator=random)
        values = values.contiguous(memory_format=LAST) if len(shape) == 4 else values
        return values.requires_grad_()

    x, w, b, y = drawn(5, 3, 9, 8), drawn(7, 3, 4, 4), drawn(7), drawn(5, 7, 4, 4)
    ops = torch.ops.pokegan
    torch.library.opcheck(ops.conv2d_split.default, (x, w, b, 2, 1, 2))
    torch.library.opcheck(ops.conv_transpose2d_split.default, (y, w, None, 2, 1, [1, 0], 3))
    torch.library.opcheck(ops.conv2d_weight_split.default, (x, y, [4, 4], 2, 1, 2))


@needs_kernels
def test_compiled_in_one_graph() -> None:
    def run(x, w, v):
        y = F.leaky_relu(conv2d_split(x, w, None, 2, 1), 0.2)
        return conv_transpose2d_split(y, v, None, 2, 1, (1, 0))

    random = torch.Generator().manual_seed(6)
    shapes = [(6, 3, 9, 8), (7, 3, 4, 4), (7, 2, 4, 4)]
    tensors = [torch.randn(shape, generator=random) for shape in shapes]
    downstream = torch.randn(6, 2, 9, 8, generator=random)
    results = [
        gradients(one, tensors, downstream)
        for one in (run, torch.compile(run, fullgraph=True, backend="aot_eager"))
    ]
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)
        assert one.stride() == two.stride()


def test_the_reference_is_float32s_own(monkeypatch) -> None:
    monkeypatch.setattr(conv, "is_compiled", lambda input: False)
    x, w, b = torch.randn(2, 3, 6, 6), torch.randn(5, 3, 3, 3), torch.randn(5)
    found = conv2d_split(x, w, b, 2, 1)
    assert torch.equal(found, F.conv2d(x, w, b, 2, 1))
    assert found.is_contiguous(memory_format=LAST)
    assert torch.equal(
        conv_transpose2d_split(found, w, None, 2, 1, (1, 1)),
        F.conv_transpose2d(found, w, None, 2, 1, (1, 1)),
    )
    with pytest.raises(RuntimeError, match=r"conv2d_split: input must be float32"):
        conv2d_split(x.double(), w.double())


X, W = torch.zeros(2, 3, 4, 4), torch.zeros(5, 3, 2, 2)


@needs_kernels
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((X[0], W), "conv2d_split: input must have 4 dimensions"),
        ((X.bfloat16(), W), "input must be float32"),
        ((X, W.bfloat16()), "weight must be float32$"),
        ((X, W[:, :2]), "input has 3 channels, weight is for 2"),
        ((X, W, None, 1, 0, 1), "parts must be 2 or 3, got 1"),
        ((X, W, None, 1, 0, 4), "parts must be 2 or 3, got 4"),
        ((X, W, None, 1, 0, 2, 3), "this processor does not have these units"),
    ],
)
def test_wrong_arguments_are_named(arguments, words) -> None:
    with pytest.raises(RuntimeError, match=words):
        conv2d_split(*arguments)
