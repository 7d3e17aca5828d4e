"""Convolutions by minimal filtering against PyTorch's, where nothing is rounded, and elsewhere."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from conv_cases import LAST, UNITS, drawn, gradients, needs_kernels, transposed_sizes
from hypothesis import given, settings
from hypothesis import strategies as st
from threads import with_threads

from pokegan.ops import conv2d_bf16, conv_transpose2d_bf16
from pokegan.ops.conv_gradients import Winograd

pytestmark = needs_kernels
KINDS = [(4, 2), (4, 1), (3, 1)]  # kernel and stride
BACK = {"convolve": 0, "transpose": 1, "weight": 2}


def whole(random, *shape, dtype=torch.bfloat16):
    """Small whole numbers: every sum of four of them is a bfloat16, and every product exact."""
    values = torch.randint(-3, 4, shape, generator=random)
    return values.to(dtype).contiguous(memory_format=LAST)


def side_of(side, kernel, stride):
    """Of what a convolution with padding 1 makes."""
    return (side + 2 - kernel) // stride + 1


@st.composite
def layers(draw):
    """Odd sizes, any padding, channels that fill no block, more and fewer tiles than a block."""
    return {
        "batch": draw(st.sampled_from([0, 1, 2, 5, 33])),
        "channels": draw(st.sampled_from([32, 33, 48, 64, 70])),
        "outputs": draw(st.sampled_from([32, 40, 50, 64])),
        "kernel": (kind := draw(st.sampled_from(KINDS)))[0],
        "stride": kind[1],
        "padding": (padding := draw(st.integers(0, 3))),
        "sizes": [draw(st.integers(max(1, kind[0] - 2 * padding), 11)) for _ in range(2)],
        "more": [draw(st.integers(0, kind[1] - 1)) for _ in range(2)],
        "units": draw(st.sampled_from(UNITS)),
        "narrow": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


def tensors_of(case):
    """x, w and the gradient of y, all whole numbers."""
    random = torch.Generator().manual_seed(case["seed"])
    dtype = torch.bfloat16 if case["narrow"] else torch.float32
    x = whole(random, case["batch"], case["channels"], *case["sizes"])
    w = whole(random, case["outputs"], case["channels"], *[case["kernel"]] * 2, dtype=dtype)
    y = F.conv2d(x.float(), w.float(), None, case["stride"], case["padding"])
    return x, w, whole(random, *y.shape)


@settings(deadline=None, max_examples=60)
@given(case=layers())
def test_of_whole_numbers_a_convolution_and_its_gradients_are_exact(case) -> None:
    x, w, downstream = tensors_of(case)
    bias = torch.arange(case["outputs"], dtype=torch.float32)
    numbers = (case["stride"], case["padding"])
    found = gradients(
        lambda x, w: conv2d_bf16(x, w, bias, *numbers, case["units"], True), (x, w), downstream
    )
    exact = gradients(
        lambda x, w: F.conv2d(x, w, bias.double(), *numbers), (x.double(), w.double()), downstream
    )
    assert found[0].is_contiguous(memory_format=LAST)
    for one, other in zip(found, exact, strict=True):
        assert torch.equal(one, other.float().to(one.dtype))


@settings(deadline=None, max_examples=60)
@given(case=layers())
def test_of_whole_numbers_a_transposed_one_and_its_gradients_are_exact(case) -> None:
    _, w, y = tensors_of(case)
    numbers = (case["stride"], case["padding"], tuple(case["more"]))
    sizes = transposed_sizes(y, w, *numbers)
    if min(sizes) < 1 or y.shape[0] == 0:  # PyTorch refuses, or has no gradient
        return
    random = torch.Generator().manual_seed(case["seed"] + 1)
    downstream = whole(random, y.shape[0], case["channels"], *sizes)
    found = gradients(
        lambda y, w: conv_transpose2d_bf16(y, w, None, *numbers, case["units"], True),
        (y, w),
        downstream,
    )
    exact = gradients(
        lambda y, w: F.conv_transpose2d(y, w, None, *numbers), (y.double(), w.double()), downstream
    )
    for one, other in zip(found, exact, strict=True):
        assert torch.equal(one, other.float().to(one.dtype))


@pytest.mark.parametrize(("kernel", "stride"), KINDS)
def test_the_second_derivative_of_whole_numbers_is_exact(kernel, stride) -> None:
    random = torch.Generator().manual_seed(3)
    x, w = whole(random, 3, 32, 6, 6), whole(random, 32, 32, kernel, kernel, dtype=torch.float32)
    y = whole(random, 3, 32, *[side_of(6, kernel, stride)] * 2)

    def second(x, w, y, convolve):
        x, w, y = (one.detach().clone().requires_grad_() for one in (x, w, y))
        out = convolve(x, w)
        by_input, by_weight = torch.autograd.grad(out, (x, w), y, create_graph=True)
        scale = torch.arange(6, dtype=by_input.dtype)  # not the same for all pixels
        of_input = torch.autograd.grad(by_input, (w, y), scale.expand_as(x), retain_graph=True)
        return *of_input, *torch.autograd.grad(by_weight.sum(), (x, y))

    found = second(x, w, y, lambda x, w: conv2d_bf16(x, w, None, stride, 1, winograd=True))
    wide = [one.double() for one in (x, w, y)]
    exact = second(*wide, lambda x, w: F.conv2d(x, w, None, stride, 1))
    for one, other in zip(found, exact, strict=True):
        assert torch.equal(one, other.float().to(one.dtype))


def rounded(values):
    return values.float().to(torch.bfloat16).double()


def matrix(rows):
    return torch.tensor(rows, dtype=torch.float64)


# What neighbours are multiplied as, what taps are, and the pixels of the products; by taps.
MATRICES = {
    2: (
        matrix([[1, -1, 0], [0, 1, 0], [0, 1, -1]]),
        matrix([[1, 0], [1, 1], [0, 1]]),
        matrix([[1, 1, 0], [0, 1, -1]]),
    ),
    3: (  # arXiv 1509.09308, equation 7
        matrix([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
        matrix([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
        matrix([[1, 1, 1, 0], [0, 1, -1, -1]]),
    ),
}


def filtered(x, w, stride, padding):
    """The published algorithm by its matrices, on float64 but for what it multiplies."""
    b, g, a = MATRICES[2 if w.shape[2] == 4 else 3]
    taps = g.shape[1]
    size = (x.shape[2] + 2 * padding - w.shape[2]) // stride + 1
    tiles = (size + 1) // 2
    right = stride * (2 * tiles + 4) - x.shape[3] - padding
    x = F.pad(x.double(), [padding, right, padding, right])
    made = 0
    firsts = range(2) if stride == 2 else range(0, w.shape[2], taps)
    for i, j in itertools.product(firsts, repeat=2):
        d = x[:, :, i::stride, j::stride].unfold(2, len(b), 2).unfold(3, len(b), 2)
        d = rounded(torch.einsum("ki,nchwij,lj->nchwkl", b, d[:, :, :tiles, :tiles], b))
        part = w.double()[:, :, i::stride, j::stride][:, :, :taps, :taps]
        part = rounded(torch.einsum("ki,ocij,lj->ockl", g, part, g))
        made = made + torch.einsum("nchwkl,ockl->nohwkl", d, part)
    pixels = torch.einsum("ik,nohwkl,jl->nohiwj", a, made, a)
    return pixels.flatten(4, 5).flatten(2, 3)[:, :, :size, :size]


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize(("kernel", "stride"), KINDS)
def test_it_is_the_published_algorithm(kernel, stride, padding, units) -> None:
    random = torch.Generator().manual_seed(padding)
    x = drawn(random, 3, 40, 12, 12)
    w = torch.randn(36, 40, kernel, kernel, generator=random).contiguous(memory_format=LAST)
    found = conv2d_bf16(x, w, None, stride, padding, units, True).double()
    exact = filtered(x, w, stride, padding)
    # Float32 sums in another order, and the last rounding.
    allowed = 2.0**-8 * exact.abs() + 1e-5 * exact.abs().max()
    assert ((found - exact).abs() <= allowed).all()


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize(("kernel", "stride"), KINDS)
def test_how_far_results_are_from_exact_ones(kernel, stride, units) -> None:
    random = torch.Generator().manual_seed(1)
    x, y = drawn(random, 8, 64, 16, 16), drawn(random, 8, 96, *[side_of(16, kernel, stride)] * 2)
    w = torch.randn(96, 64, kernel, kernel, generator=random).contiguous(memory_format=LAST)
    errors = []
    for winograd in (False, True):
        found = gradients(
            lambda x, w, winograd=winograd: conv2d_bf16(x, w, None, stride, 1, units, winograd),
            (x, w),
            y,
        )
        wide = (x.double(), w.double())
        exact = gradients(lambda x, w: F.conv2d(x, w, None, stride, 1), wide, y)
        found, exact = ([one.detach() for one in some] for some in (found, exact))
        errors.append(
            [((a.double() - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True)]
        )
    direct, ours = errors
    assert max(ours) < 0.006
    # Result and gradient by the input are rounded themselves; the weight's gradient is not.
    assert all(1.2 < b / a < 3 for a, b in zip(direct[:2], ours[:2], strict=True))
    assert direct[2] < 1e-6


@pytest.mark.parametrize("used", BACK)
def test_each_operator_has_a_switch_of_its_own(used) -> None:
    random = torch.Generator().manual_seed(2)
    x, y = drawn(random, 2, 32, 8, 8), drawn(random, 2, 32, 4, 4)
    w = torch.randn(32, 32, 4, 4, generator=random).contiguous(memory_format=LAST)

    def run(layer, input, downstream, winograd):
        return gradients(
            lambda x, w: layer(x, w, None, 2, 1, winograd=winograd), (input, w), downstream
        )

    direct = run(conv2d_bf16, x, y, False)
    found = run(conv2d_bf16, x, y, Winograd(**{used: True}))
    same = [torch.equal(one, other) for one, other in zip(found, direct, strict=True)]
    assert same == [place != BACK[used] for place in range(3)]
    direct = run(conv_transpose2d_bf16, y, x, False)
    found = run(conv_transpose2d_bf16, y, x, Winograd(**{used: True}))
    same = [torch.equal(one, other) for one, other in zip(found, direct, strict=True)]
    changed = {"transpose": 0, "convolve": 1, "weight": 2}[used]
    assert same == [place != changed for place in range(3)]


@pytest.mark.parametrize("batch", [3, 40])
@pytest.mark.parametrize(("kernel", "stride"), KINDS)
def test_threads_change_no_bit(kernel, stride, batch) -> None:
    random = torch.Generator().manual_seed(4)
    x, y = (
        drawn(random, batch, 64, 16, 16),
        drawn(random, batch, 64, *[side_of(16, kernel, stride)] * 2),
    )
    w = torch.randn(64, 64, kernel, kernel, generator=random).contiguous(memory_format=LAST)

    def run():
        down = gradients(lambda x, w: conv2d_bf16(x, w, None, stride, 1, winograd=True), (x, w), y)
        return [*down, conv_transpose2d_bf16(y, w, None, stride, 1, winograd=True)]

    alone, *others = with_threads(run)
    for other in others:
        assert all(map(torch.equal, alone, other))


@pytest.mark.parametrize("units", UNITS)
def test_what_is_not_finite_stays_within_its_tiles(units) -> None:
    x = torch.ones(1, 32, 16, 16, dtype=torch.bfloat16).contiguous(memory_format=LAST)
    x[0, 5, 8, 9] = float("inf")
    w = torch.ones(32, 32, 4, 4)
    made = conv2d_bf16(x, w, None, 2, 1, units, True)[0].float()
    exact = F.conv2d(x.float(), w, None, 2, 1)[0]
    assert not made[:, ~exact[0].isfinite()].isfinite().any()
    touched = torch.zeros(8, 8, dtype=torch.bool)
    touched[2:6, 4:6] = True  # the tiles of 2 x 2 pixels that pixel (8, 9) is part of
    assert torch.equal(made[:, ~touched], exact[:, ~touched])


@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "stride"),
    [(31, 32, 4, 2), (32, 31, 3, 1), (32, 32, 3, 2), (32, 32, 5, 1)],
)
def test_other_layers_are_refused(channels, outputs, kernel, stride) -> None:
    x = torch.zeros(1, channels, 8, 8, dtype=torch.bfloat16)
    w = torch.zeros(outputs, channels, kernel, kernel)
    with pytest.raises(
        RuntimeError, match="winograd needs a kernel of 4 x 4 and stride 1 or 2, or"
    ):
        conv2d_bf16(x, w, None, stride, 1, winograd=True)
    y = torch.zeros(1, outputs, 4, 4, dtype=torch.bfloat16)
    with pytest.raises(
        RuntimeError, match="winograd needs a kernel of 4 x 4 and stride 1 or 2, or"
    ):
        conv_transpose2d_bf16(y, w, None, stride, 1, winograd=True)


def test_inside_a_compiled_function() -> None:
    random = torch.Generator().manual_seed(5)
    x, y = whole(random, 2, 32, 8, 8), whole(random, 2, 32, 4, 4)
    w = whole(random, 32, 32, 4, 4, dtype=torch.float32)

    def layer(x, w):
        return conv2d_bf16(x, w, None, 2, 1, winograd=True)

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for one, other in zip(gradients(compiled, (x, w), y), gradients(layer, (x, w), y), strict=True):
        assert torch.equal(one, other)
