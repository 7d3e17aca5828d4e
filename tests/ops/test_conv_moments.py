"""Moments that are summed while a convolution is written are those of what it wrote."""

import pytest
import torch
from conv_cases import (
    UNITS,
    drawn,
    every_kernel,
    gradients,
    needs_kernels,
    transposed_sizes,
    wide_maps,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from threads import with_threads

from pokegan.ops import (
    conv2d_bf16,
    conv2d_moments_bf16,
    conv_transpose2d_bf16,
    conv_transpose2d_moments_bf16,
)
from pokegan.ops.batch_norm_act import batch_norm_moments_reference


def assert_moments(found, maps):
    """As float64 has them, the mean up to a small part of the deviation."""
    mean, variance = batch_norm_moments_reference(maps.double())
    assert found.dtype == torch.float32
    assert ((found[0] - mean).abs() <= 1e-6 * (variance.sqrt() + mean.abs()) + 1e-30).all()
    torch.testing.assert_close(found[1].double(), variance, rtol=1e-5, atol=1e-12)


def layer(case, transposed):
    random = torch.Generator().manual_seed(case["seed"])
    sides = case["channels"], case["outputs"]
    x = drawn(random, case["batch"], case["channels"], *case["sizes"])
    w = drawn(random, *(sides if transposed else sides[::-1]), *case["kernel"])
    return x, w, drawn(random, case["outputs"], layout="contiguous", dtype=torch.float32)


@needs_kernels
@settings(deadline=None, max_examples=60)
@given(case=wide_maps(), biased=st.booleans())
def test_of_a_convolution(case, biased) -> None:
    """Bands of pixels: what lies between rows is written nowhere, and counts nowhere."""
    x, w, b = layer(case, False)
    numbers = (b if biased else None, case["stride"], case["padding"], case["units"])
    out, moments = conv2d_moments_bf16(x, w, *numbers)
    assert torch.equal(out, conv2d_bf16(x, w, *numbers))
    assert_moments(moments, out)


@needs_kernels
@settings(deadline=None, max_examples=60)
@given(case=wide_maps(), more=st.tuples(st.integers(0, 2), st.integers(0, 2)))
def test_of_a_transposed_convolution(case, more) -> None:
    x, w, b = layer(case, True)
    more = tuple(min(one, case["stride"] - 1) for one in more)
    if min(transposed_sizes(x, w, case["stride"], case["padding"], more)) < 1:
        return
    numbers = (b, case["stride"], case["padding"], more, case["units"])
    out, moments = conv_transpose2d_moments_bf16(x, w, *numbers)
    assert torch.equal(out, conv_transpose2d_bf16(x, w, *numbers))
    assert_moments(moments, out)


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
@every_kernel
def test_of_every_kernel(units, batch, channels, outputs, size, kernel, stride) -> None:
    random = torch.Generator().manual_seed(1)
    x = drawn(random, batch, channels, size, size)
    w = drawn(random, outputs, channels, kernel, kernel)
    numbers = (None, stride, kernel // 2, units)
    out, moments = conv2d_moments_bf16(x, w, *numbers)
    assert torch.equal(out, conv2d_bf16(x, w, *numbers))
    assert_moments(moments, out)


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("size", [8, 40])
def test_values_far_from_zero_cancel_nothing(units, size) -> None:
    """A channel of 1,000 with a deviation of a few steps of bfloat16, which are 4 there."""
    random = torch.Generator().manual_seed(2)
    x = drawn(random, 34, 32, size, size)
    w = drawn(random, 40, 32, 3, 3) / 4
    out, moments = conv2d_moments_bf16(x, w, torch.full((40,), 1000.0), 1, 1, units)
    assert (moments[0] > 900).all()
    assert (moments[1] < 100).all()
    assert_moments(moments, out)


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
def test_a_mark_in_the_corner_costs_little(units) -> None:
    """What is subtracted is a mean of the first pixels, which need not be like the others."""
    random = torch.Generator().manual_seed(7)
    x = drawn(random, 64, 32, 64, 64) / 8
    x[:, :, 0, :8] = 100
    w = torch.eye(32).view(32, 32, 1, 1)
    out, moments = conv_transpose2d_moments_bf16(x, w, None, 1, 0, (0, 0), units)
    assert torch.equal(out, x)
    mean, variance = batch_norm_moments_reference(out.double())
    torch.testing.assert_close(moments[0].double(), mean, rtol=1e-4, atol=0)
    torch.testing.assert_close(moments[1].double(), variance, rtol=1e-4, atol=0)


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
def test_the_same_bits_for_any_count_of_threads(units) -> None:
    random = torch.Generator().manual_seed(3)
    x, y = drawn(random, 40, 64, 26, 26), drawn(random, 70, 96, 8, 8)
    w, v = drawn(random, 48, 64, 4, 4), drawn(random, 96, 33, 4, 4)
    cut, many = drawn(random, 34, 256, 3, 20), drawn(random, 320, 256, 3, 3)

    def everything():
        wide = conv_transpose2d_moments_bf16(x, w.transpose(0, 1), None, 2, 1, (0, 0), units)
        small = conv_transpose2d_moments_bf16(y, v, None, 2, 1, (0, 0), units)
        columns = conv2d_moments_bf16(cut, many, None, 1, 1, units)
        return *conv2d_moments_bf16(x, w, None, 2, 1, units), *wide, *small, *columns

    first, *others = with_threads(everything, (1, 2, 3, 16))
    for other in others:
        assert all(torch.equal(one, two) for one, two in zip(first, other, strict=True))


@needs_kernels
def test_what_is_not_finite_is_not_hidden() -> None:
    x = torch.ones(33, 32, 8, 8, dtype=torch.bfloat16)
    w = torch.zeros(64, 32, 4, 4)
    w[::2] = 1
    x[32, 3, 5, 5] = float("nan")
    _, moments = conv2d_moments_bf16(x, w, None, 2, 1)
    assert moments.isnan().all()  # nothing times NaN is NaN, too


@needs_kernels
@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_are_those_of_the_convolution(transposed) -> None:
    random = torch.Generator().manual_seed(4)
    x, b = drawn(random, 5, 40, 6, 6), drawn(random, 40, layout="contiguous")
    w = drawn(random, 40, 40, 4, 4, dtype=torch.float32)
    plain, summed = (
        (conv_transpose2d_bf16, conv_transpose2d_moments_bf16)
        if transposed
        else (conv2d_bf16, conv2d_moments_bf16)
    )
    downstream = torch.ones_like(plain(x, w, b, 2, 1))
    found = gradients(lambda *leaves: summed(*leaves, 2, 1)[0], (x, w, b), downstream)
    for one, two in zip(
        found, gradients(lambda *leaves: plain(*leaves, 2, 1), (x, w, b), downstream), strict=True
    ):
        assert torch.equal(one, two)
    assert not summed(x, w.requires_grad_(), b, 2, 1)[1].requires_grad


def test_the_reference_and_compiled_code_return_both() -> None:
    random = torch.Generator().manual_seed(5)
    x, w = drawn(random, 4, 3, 8, 8), drawn(random, 5, 3, 4, 4)
    compiled = torch.compile(conv2d_moments_bf16, fullgraph=True, backend="aot_eager")
    for out, moments in (compiled(x, w, None, 2, 1), conv2d_moments_bf16(x, w, None, 2, 1)):
        assert torch.equal(out, conv2d_bf16(x, w, None, 2, 1))
        assert_moments(moments, out)


@needs_kernels
def test_opcheck() -> None:
    random = torch.Generator().manual_seed(6)
    x, w = drawn(random, 5, 3, 9, 8), drawn(random, 7, 3, 4, 4, dtype=torch.float32)
    y, ops = drawn(random, 5, 7, 4, 4), torch.ops.pokegan
    torch.library.opcheck(ops.conv2d_moments_bf16.default, (x, w, None, 2, 1))
    torch.library.opcheck(ops.conv_transpose2d_moments_bf16.default, (y, w, None, 2, 1, [1, 0]))


@needs_kernels
def test_wrong_arguments_are_named() -> None:
    x, w = torch.zeros(1, 3, 4, 4, dtype=torch.bfloat16), torch.zeros(5, 4, 4, 4)
    with pytest.raises(RuntimeError, match="conv2d_moments_bf16: input has 3 channels"):
        conv2d_moments_bf16(x, w, None, 2, 1)
    with pytest.raises(RuntimeError, match="conv2d_moments_bf16: input must not be empty"):
        conv2d_moments_bf16(x[:0], w[:, :3], None, 2, 1)
