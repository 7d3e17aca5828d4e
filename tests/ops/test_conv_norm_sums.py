"""A convolution that makes the gradient of a norm sums what the norm would read it again for."""

import pytest
import torch
from conv_cases import UNITS, drawn, every_kernel, needs_kernels, transposed_sizes, wide_maps
from hypothesis import given, settings
from hypothesis import strategies as st
from threads import with_threads

from pokegan.ops import (
    batch_norm_act_sums,
    batch_norm_moments,
    conv2d_bf16,
    conv2d_norm_sums_bf16,
    conv_transpose2d_bf16,
    conv_transpose2d_norm_sums_bf16,
)
from pokegan.ops.batch_norm_act import batch_norm_act_sums_reference

EPS = 1e-5
SLOPES = [0.0, 0.2, 1.0]


def norm_of(maps, random, slope=0.2, affine=True):
    """Maps like these that were normalised, and what with."""
    channels = maps.shape[1]
    given = (torch.randn(maps.shape, generator=random) * 2 + 1).bfloat16()
    given = given.contiguous(memory_format=torch.channels_last)
    numbers = [torch.randn(channels, generator=random) if affine else None for _ in range(2)]
    moments = torch.stack((torch.ones(channels), torch.rand(channels, generator=random) + 3))
    return given, moments, *numbers, EPS, slope


def assert_sums(found, gradient, norm):
    """As float64 has them, up to a small part of what was summed."""
    given, moments, weight, bias, eps, slope = norm
    wide = [None if one is None else one.double() for one in (moments, weight, bias)]
    exact = batch_norm_act_sums_reference(gradient.double(), given.double(), *wide, eps, slope)
    normal = (given.double() - wide[0][0].view(1, -1, 1, 1)) / (
        wide[0][1].view(1, -1, 1, 1) + eps
    ).sqrt()
    size = gradient.double().abs()
    terms = torch.stack([(size * one).sum((0, 2, 3)) for one in (normal.abs(), size * 0 + 1)])
    assert ((found - exact).abs() <= 2e-6 * terms + 1e-30).all()


@needs_kernels
@settings(deadline=None, max_examples=60)
@given(
    case=wide_maps(), transposed=st.booleans(), slope=st.sampled_from(SLOPES), affine=st.booleans()
)
def test_of_wide_maps(case, transposed, slope, affine) -> None:
    """Bands of pixels: what lies between rows is written nowhere, and counts nowhere."""
    random = torch.Generator().manual_seed(case["seed"])
    sides = case["channels"], case["outputs"]
    x = drawn(random, case["batch"], case["channels"], *case["sizes"])
    w = drawn(random, *(sides if transposed else sides[::-1]), *case["kernel"])
    numbers, more = (case["stride"], case["padding"]), (0, case["stride"] - 1)
    if transposed:
        if min(transposed_sizes(x, w, *numbers, more)) < 1:
            return
        out = conv_transpose2d_bf16(x, w, None, *numbers, more, case["units"])
    else:
        out = conv2d_bf16(x, w, None, *numbers, case["units"])
    norm = norm_of(out, random, slope, affine)
    if transposed:
        numbers = (*numbers, more)
        found, sums = conv_transpose2d_norm_sums_bf16(x, w, *numbers, *norm, case["units"])
    else:
        found, sums = conv2d_norm_sums_bf16(x, w, *numbers, *norm, case["units"])
    assert torch.equal(found, out)
    assert_sums(sums, out, norm)


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("slope", SLOPES)
@every_kernel
def test_of_every_kernel(units, slope, batch, channels, outputs, size, kernel, stride) -> None:
    random = torch.Generator().manual_seed(1)
    x = drawn(random, batch, channels, size, size)
    w = drawn(random, outputs, channels, kernel, kernel)
    numbers = (stride, kernel // 2)
    out = conv2d_bf16(x, w, None, *numbers, units)
    norm = norm_of(out, random, slope)
    found, sums = conv2d_norm_sums_bf16(x, w, *numbers, *norm, units)
    assert torch.equal(found, out)
    assert_sums(sums, out, norm)


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
def test_the_same_bits_for_any_count_of_threads(units) -> None:
    random = torch.Generator().manual_seed(3)
    x, w = drawn(random, 40, 64, 26, 26), drawn(random, 48, 64, 4, 4)
    small, v = drawn(random, 70, 96, 8, 8), drawn(random, 96, 33, 4, 4)
    down = norm_of(conv2d_bf16(x, w, None, 2, 1), random)
    up = norm_of(conv_transpose2d_bf16(small, v, None, 2, 1), random)

    def everything():
        return (
            *conv2d_norm_sums_bf16(x, w, 2, 1, *down, units),
            *conv_transpose2d_norm_sums_bf16(small, v, 2, 1, (0, 0), *up, units),
        )

    first, *others = with_threads(everything, (1, 2, 3, 16))
    for other in others:
        assert all(torch.equal(one, two) for one, two in zip(first, other, strict=True))


@needs_kernels
@pytest.mark.parametrize("slope", SLOPES)
def test_what_is_not_finite_is_as_when_read_again(slope) -> None:
    random = torch.Generator().manual_seed(4)
    x, w = drawn(random, 20, 32, 8, 8), drawn(random, 64, 32, 4, 4)
    x[3, 2, 4, 4], x[5, 2, 1, 1] = float("nan"), float("inf")
    out = conv2d_bf16(x, w, None, 2, 1)
    norm = norm_of(out, random, slope)
    norm[0][2, 7], norm[0][6, 9] = float("nan"), float("inf")
    found, sums = conv2d_norm_sums_bf16(x, w, 2, 1, *norm)
    torch.testing.assert_close(found, out, rtol=0, atol=0, equal_nan=True)
    again = batch_norm_act_sums(out, *norm)
    assert torch.equal(sums.isfinite(), again.isfinite())
    assert torch.equal(sums.isnan(), again.isnan())


def test_the_reference_returns_both(monkeypatch) -> None:
    from pokegan.ops import conv, conv_summed

    monkeypatch.setattr(conv, "is_compiled", lambda input: False)
    monkeypatch.setattr(conv_summed, "is_compiled", lambda input: False)
    random = torch.Generator().manual_seed(5)
    x, w, v = (drawn(random, 4, 3, 8, 8), *(drawn(random, *s, 4, 4) for s in ((5, 3), (3, 5))))
    out = conv2d_bf16(x, w, None, 2, 1)
    norm = norm_of(out, random)
    found, sums = conv2d_norm_sums_bf16(x, w, 2, 1, *norm)
    assert torch.equal(found, out)
    assert_sums(sums, out, norm)
    out = conv_transpose2d_bf16(x, v, None, 2, 1)
    norm = norm_of(out, random)
    found, sums = conv_transpose2d_norm_sums_bf16(x, v, 2, 1, (0, 0), *norm)
    assert torch.equal(found, out)
    assert_sums(sums, out, norm)


@needs_kernels
def test_opcheck() -> None:
    random, ops = torch.Generator().manual_seed(6), torch.ops.pokegan
    x, w = drawn(random, 5, 3, 9, 8), drawn(random, 7, 3, 4, 4)
    norm = norm_of(conv2d_bf16(x, w, None, 2, 1), random)
    torch.library.opcheck(ops.conv2d_norm_sums_bf16.default, (x, w, 2, 1, *norm))
    y = norm[0]
    norm = norm_of(conv_transpose2d_bf16(y, w, None, 2, 1, (1, 0)), random)
    torch.library.opcheck(ops.conv_transpose2d_norm_sums_bf16.default, (y, w, 2, 1, [1, 0], *norm))


@needs_kernels
def test_wrong_arguments_are_named() -> None:
    random = torch.Generator().manual_seed(7)
    x, w = drawn(random, 2, 3, 8, 8), drawn(random, 5, 3, 4, 4)
    maps, *rest = norm_of(conv2d_bf16(x, w, None, 2, 1), random)
    with pytest.raises(RuntimeError, match="maps must have the shape of the result"):
        conv2d_norm_sums_bf16(x, w, 2, 1, maps[:1], *rest)
    with pytest.raises(RuntimeError, match="conv2d_norm_sums_bf16: maps must be bfloat16"):
        conv2d_norm_sums_bf16(x, w, 2, 1, maps.float(), *rest)
    with pytest.raises(RuntimeError, match=r"moments must be contiguous float32 of the shape"):
        conv2d_norm_sums_bf16(x, w, 2, 1, maps, batch_norm_moments(x), *rest[1:])
    with pytest.raises(RuntimeError, match="norm_bias must be contiguous float32"):
        conv2d_norm_sums_bf16(x, w, 2, 1, maps, *rest[:2], rest[2][:1], *rest[3:])
    with pytest.raises(RuntimeError, match="stride must be at least 1"):
        conv2d_norm_sums_bf16(x, w, 0, 1, maps, *rest)
