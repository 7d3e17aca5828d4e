"""Batch norm with an activation: the kernels against PyTorch in float64, at any shape."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pokegan.ops import (
    batch_norm_act,
    batch_norm_act_backward,
    batch_norm_act_sums,
    batch_norm_moments,
    status,
)
from pokegan.ops.batch_norm_act import (
    batch_norm_act_backward_reference,
    batch_norm_act_reference,
    batch_norm_act_sums_reference,
    batch_norm_moments_reference,
    batch_norm_track_,
    can_fuse,
    channels_last,
)

needs_kernels = pytest.mark.skipif(not status().cpu, reason=f"extension: {status().cpu_reason}")
EPS = 1e-5
SLOPES = [0.0, 0.2, 1.0]
UNITS = [0, 1]
ROUNDING = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8}


def drawn(shape, dtype=torch.float32, seed=0, mean=0.5, std=2.0):
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, dtype=torch.float64, generator=random) * std + mean
    return channels_last(values.to(dtype))


def parameters_of(channels, seed=0):
    random = torch.Generator().manual_seed(seed + 1)
    return torch.rand(channels, generator=random) - 0.3, torch.randn(channels, generator=random)


def kernels(x, w, b, dy, slope, units=0):
    """Output, moments, and the gradients by input, weight and bias."""
    moments = batch_norm_moments(x, units)
    given = (moments, w, b)
    out = batch_norm_act(x, *given, EPS, slope, units)
    sums = batch_norm_act_sums(dy, x, *given, EPS, slope, units)
    count = x.numel() // x.shape[1]
    dx = batch_norm_act_backward(dy, x, *given, sums, count, EPS, slope, units)
    return out, moments, dx, *sums


def activation(before, slope):
    if slope == 1:
        return before
    return F.leaky_relu(before, slope) if slope else F.relu(before)


def pytorch(x, w, b, dy, slope):
    """The same from PyTorch's own functions, in float64."""
    leaves = [one.detach().double().contiguous().requires_grad_() for one in (x, w, b)]
    out = activation(F.batch_norm(leaves[0], None, None, *leaves[1:], True, 0.1, EPS), slope)
    dims = [dim for dim in range(x.dim()) if dim != 1]
    variance, mean = torch.var_mean(x.double(), dims, correction=0)
    gradients = torch.autograd.grad(out, leaves, dy.double())
    return out.detach(), torch.stack((mean, variance)), *gradients


def assert_near(found, exact, rounding, size):
    """Equal up to one rounding of the result, and of numbers as large as `size`."""
    error = (found.double() - exact).abs()
    allowed = rounding * exact.abs() + 4e-6 * size
    assert (error <= allowed).all(), (error - allowed).max()


cases = st.fixed_dictionaries(
    {
        "batch": st.sampled_from([1, 2, 3, 7, 8, 17, 64, 65]),
        "channels": st.sampled_from([1, 3, 15, 16, 17, 64, 100]),
        "pixels": st.sampled_from([(), (1,), (4, 4), (1, 1), (3, 5), (2, 3, 4)]),
        "dtype": st.sampled_from([torch.float32, torch.bfloat16]),
        "slope": st.sampled_from(SLOPES),
        "units": st.sampled_from(UNITS),
        "seed": st.integers(0, 2**32 - 1),
    }
)
LARGE = {"dtype": torch.bfloat16, "slope": 0.2, "seed": 1}


@needs_kernels
@settings(deadline=None, max_examples=100)
@given(case=cases)
@example(case={**LARGE, "batch": 64, "channels": 512, "pixels": (4, 4), "units": 0})
@example(case={**LARGE, "batch": 3, "channels": 64, "pixels": (32, 32), "units": 0})
@example(case={**LARGE, "batch": 3, "channels": 64, "pixels": (32, 32), "units": 1})
def test_equals_pytorch_in_float64(case) -> None:
    shape = (case["batch"], case["channels"], *case["pixels"])
    if math.prod(shape) == case["channels"]:  # PyTorch refuses one value a channel
        return
    x, dy = (drawn(shape, case["dtype"], case["seed"] + k, std=0.5) for k in (0, 1))
    pictures = torch.arange(case["batch"]).view(-1, *[1] * (len(shape) - 1))
    x += 4 * (pictures % 5)  # two values that happen to be equal cannot be normalised well
    w, b = parameters_of(case["channels"], case["seed"])
    wide = [one.double() for one in (x, w, b)]
    before = F.batch_norm(wide[0], None, None, *wide[1:], True, 0.1, EPS)
    assume(case["slope"] == 1 or before.abs().min() > 2e-6)  # else rounding chooses the gradient
    found = kernels(x, w, b, dy, case["slope"], case["units"])
    exact = pytorch(x, w, b, dy, case["slope"])
    assert [one.dtype for one in found] == [x.dtype, torch.float32, x.dtype, *[torch.float32] * 2]
    assert found[0].shape == found[2].shape == x.shape
    scale = (wide[1] * torch.rsqrt(exact[1][1] + EPS)).abs().max()
    sums = dy.double().abs().sum() / x.shape[1]
    sizes = (exact[0].abs().max(), exact[1].max(), scale * dy.abs().max(), sums, sums)
    roundings = (ROUNDING[x.dtype], 0.0, ROUNDING[x.dtype], 0.0, 0.0)
    for one, two, rounding, size in zip(found, exact, roundings, sizes, strict=True):
        assert_near(one, two, rounding, size)


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
def test_far_from_zero_nothing_cancels(units) -> None:
    """Mean 100, deviation 1, 65,536 values a channel: a mean of squares loses four digits here."""
    x = drawn((16, 16, 64, 64), mean=100.0, std=1.0)
    moments = batch_norm_moments(x, units).double()
    variance, mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    torch.testing.assert_close(moments[0], mean, rtol=1e-7, atol=0)
    torch.testing.assert_close(moments[1], variance, rtol=1e-6, atol=0)
    ones = torch.ones(16)
    out = batch_norm_act(x, moments.float(), ones, 0 * ones, EPS, 1.0, units).double()
    exact = F.batch_norm(x.double(), None, None, None, None, True, 0.1, EPS)
    torch.testing.assert_close(out, exact, rtol=1e-5, atol=1e-5)


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
def test_an_outlier_where_the_sums_begin(units) -> None:
    """The first values' mean is subtracted from all; here one is 1,000 deviations away."""
    x = drawn((32, 3, 16, 16), mean=0.0, std=1.0)
    x[0, :, 0, 0] = 1000
    variance, mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    moments = batch_norm_moments(x, units).double()
    torch.testing.assert_close(moments, torch.stack((mean, variance)), rtol=5e-6, atol=1e-6)


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_constant_channel_has_no_variance(units, dtype) -> None:
    x = channels_last(torch.full((9, 5, 7, 7), 3.140625).to(dtype))
    moments = batch_norm_moments(x, units)
    assert torch.equal(moments, torch.tensor([[3.140625], [0.0]]).expand(2, 5))


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_spoils_its_channel_alone(units, slope, bad) -> None:
    x, dy = drawn((5, 20, 3, 3)), drawn((5, 20, 3, 3), seed=1)
    x[2, 17, 1, 1] = bad
    w, b = parameters_of(20)
    found, exact = kernels(x, w, b, dy, slope, units), pytorch(x, w, b, dy, slope)
    for place in (0, 2, 3):  # result, and gradients by input and weight
        assert torch.equal(found[place].isnan(), exact[place].isnan())
    assert found[0][:, 17].isnan().all()
    assert found[0][:, :17].isfinite().all()


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("slope", SLOPES)
def test_infinite_results_and_gradients_pass_as_in_pytorch(units, slope) -> None:
    x = drawn((4, 3, 2, 2))
    moments = torch.tensor([[0.0] * 3, [1.0] * 3])
    w, b = torch.ones(3), torch.tensor([math.inf, -math.inf, 0.0])
    before = F.batch_norm(x, *moments, w, b, False, 0.0, EPS)
    out = batch_norm_act(x, moments, w, b, EPS, slope, units)
    torch.testing.assert_close(out, activation(before, slope), equal_nan=True)
    dy = torch.full_like(x, math.inf)
    leaf = before.clone().requires_grad_()
    (behind,) = torch.autograd.grad(activation(leaf, slope), leaf, dy)
    sums = batch_norm_act_sums(dy, x, moments, w, b, EPS, slope, units)
    torch.testing.assert_close(sums[1], behind.sum((0, 2, 3)), equal_nan=True)


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_weight_and_bias(units, dtype) -> None:
    x, dy = drawn((6, 19, 5, 4), dtype), drawn((6, 19, 5, 4), dtype, 1)
    plain = kernels(x, None, None, dy, 0.2, units)
    ones = kernels(x, torch.ones(19), torch.zeros(19), dy, 0.2, units)
    assert all(torch.equal(one, two) for one, two in zip(plain, ones, strict=True))


@needs_kernels
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_bits_for_any_count_of_threads(units, dtype) -> None:
    shapes = [(33, 40, 24, 24), (64, 512, 4, 4), (700, 128)]
    before = torch.get_num_threads()
    runs = []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            results = []
            for shape in shapes:
                x, dy = drawn(shape, dtype), drawn(shape, dtype, 1)
                results += kernels(x, *parameters_of(shape[1]), dy, 0.2, units)
            runs.append(results)
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(torch.equal(one, two) for one, two in zip(runs[0], other, strict=True))


def references(x, w, b, dy, slope):
    moments = batch_norm_moments_reference(x)
    given = (moments, w, b)
    out = batch_norm_act_reference(x, *given, EPS, slope)
    sums = batch_norm_act_sums_reference(dy, x, *given, EPS, slope)
    count = x.numel() // x.shape[1]
    dx = batch_norm_act_backward_reference(dy, x, *given, sums, count, EPS, slope)
    return out, moments, dx, *sums


@needs_kernels
@pytest.mark.parametrize("slope", SLOPES)
def test_the_reference_equals_the_kernels(slope) -> None:
    x, dy = drawn((5, 6, 3, 4)), drawn((5, 6, 3, 4), seed=1)
    w, b = parameters_of(6)
    found, expected = kernels(x, w, b, dy, slope), references(x, w, b, dy, slope)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("slope", SLOPES)
def test_the_reference_in_float64_equals_pytorch(slope) -> None:
    x, dy = (torch.randn(4, 3, 2, 5, dtype=torch.float64) for _ in range(2))
    w, b = (torch.randn(3, dtype=torch.float64) for _ in range(2))
    found, expected = references(x, w, b, dy, slope), pytorch(x, w, b, dy, slope)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype) -> None:
    for shape in ((5, 3, 4, 2), (3, 2, 1, 1)):
        x, dy = drawn(shape, dtype), drawn(shape, dtype, 1)
        w, b = parameters_of(shape[1])
        moments = batch_norm_moments(x)
        sums = torch.randn(2, shape[1])
        ops = torch.ops.pokegan
        given, numbers = (moments, w, b), (EPS, 0.2)
        torch.library.opcheck(ops.batch_norm_moments.default, (x,))
        torch.library.opcheck(ops.batch_norm_act.default, (x, *given, *numbers))
        torch.library.opcheck(ops.batch_norm_act_sums.default, (dy, x, moments, w, None, *numbers))
        torch.library.opcheck(
            ops.batch_norm_act_backward.default, (dy, x, *given, sums, 7, *numbers)
        )


@needs_kernels
def test_other_layouts_are_copied() -> None:
    x, dy = drawn((3, 5, 4, 2)), drawn((3, 5, 4, 2), seed=1)
    w, b = parameters_of(5)
    expected = kernels(x, w, b, dy, 0.2)
    strided = torch.stack((x, x), -1)[..., 0]
    for other in (x.contiguous(), strided):
        found = kernels(other, w, b, dy.contiguous(), 0.2)
        assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


@needs_kernels
def test_what_can_be_fused() -> None:
    x, w = drawn((3, 5, 4, 2)), torch.ones(5)
    assert can_fuse(x, w, w)
    assert can_fuse(x.bfloat16(), w, None)
    assert can_fuse(torch.zeros(4, 5), w, w)
    assert not can_fuse(x.contiguous(), w, w)
    assert not can_fuse(x.double(), w, w)
    assert not can_fuse(x, w.double(), w)
    assert not can_fuse(x, w, w.bfloat16())
    assert not can_fuse(torch.zeros(1, 5), w, w)  # one value a channel, which PyTorch refuses
    assert not can_fuse(torch.zeros(0, 5), w, w)
    assert not can_fuse(torch.zeros(5), w, w)
    assert not can_fuse(x.to("meta"), w, w)


X, W = torch.zeros(2, 3, 1, 1), torch.zeros(3)
M = torch.zeros(2, 3)


@needs_kernels
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((X[0, :, 0, 0], M, W, W, EPS, 0.2), "input must have at least 2 dimensions"),
        ((X.half(), M, W, W, EPS, 0.2), "input must be float32 or bfloat16"),
        ((X[:0], M, W, W, EPS, 0.2), "input must not be empty"),
        (
            (X, M[:, :2], W, W, EPS, 0.2),
            r"moments must be contiguous float32 of the shape \[2, 3\]",
        ),
        ((X, M.double(), W, W, EPS, 0.2), "moments must be contiguous float32"),
        ((X, M, W[:2], W, EPS, 0.2), r"weight must be contiguous float32 of the shape \[3\]"),
        ((X, M, W, W.bfloat16(), EPS, 0.2), "bias must be contiguous float32"),
        ((X, M, W, W, EPS, 0.2, 2), "units must be 0 or 1, got 2"),
    ],
)
def test_wrong_arguments_are_named(arguments, words) -> None:
    with pytest.raises(RuntimeError, match=f"batch_norm_act: {words}"):
        batch_norm_act(*arguments)


@needs_kernels
def test_wrong_arguments_of_the_gradients() -> None:
    x, given = drawn((2, 3, 2, 2)), (M, W, W)
    operator = torch.ops.pokegan.batch_norm_act_backward
    with pytest.raises(RuntimeError, match="gradient must have the dtype and shape of input"):
        batch_norm_act_sums(x.bfloat16(), x, *given, EPS, 0.2)
    with pytest.raises(RuntimeError, match="gradient must have the dtype and shape of input"):
        batch_norm_act_backward(x[:1], x, *given, M, 8, EPS, 0.2)
    with pytest.raises(RuntimeError, match="sums must be contiguous float32"):
        batch_norm_act_backward(x, x, *given, M[:1], 8, EPS, 0.2)
    with pytest.raises(RuntimeError, match="count must be at least 1, got 0"):
        batch_norm_act_backward(x, x, *given, M, 0, EPS, 0.2)
    with pytest.raises(RuntimeError, match="input must be dense with the channels last"):
        operator(x, x.contiguous(), *given, M, 8, EPS, 0.2)


@pytest.mark.parametrize("momentum", [0.1, 1.0, None])
def test_running_statistics_are_pytorchs(momentum) -> None:
    """Those that its batch norm keeps after two batches; None is the mean of all."""
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm1d(5, momentum=momentum)
    mean, variance = torch.zeros(5), torch.ones(5)
    for number in (1, 2):
        batch = torch.randn(7, 5) * number + number
        norm(batch)
        weight = 1 / torch.tensor(number) if momentum is None else momentum
        batch_norm_track_(mean, variance, batch_norm_moments(batch), weight, 7)
    torch.testing.assert_close(mean, norm.running_mean)
    torch.testing.assert_close(variance, norm.running_var)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.999, 1.0])
def test_running_statistics_end_exactly_where_they_should(share) -> None:
    mean, variance = torch.tensor([1e8, -3.0]), torch.tensor([1.0, 1e20])
    moments = torch.tensor([[1.0, 2.0], [1e-9, 4.0]])
    wanted = mean.lerp(moments[0], share), variance.lerp(moments[1] * (5 / 4), share)
    batch_norm_track_(mean, variance, moments, share, 5)
    torch.testing.assert_close((mean, variance), wanted, rtol=1e-6, atol=0)


@needs_kernels
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (torch.zeros(3), torch.zeros(3), torch.zeros(2, 4), 0.1, 5),
            r"moments must be .*\[2, 3\]",
        ),
        ((torch.zeros(3), torch.zeros(4), torch.zeros(2, 3), 0.1, 5), r"variance must be .*\[3\]"),
        ((torch.zeros(3), torch.zeros(3), torch.zeros(2, 3), 0.1, 0), "count must be at least 1"),
    ],
)
def test_running_statistics_that_do_not_fit_are_refused(arguments, message) -> None:
    with pytest.raises(RuntimeError, match=f"batch_norm_track_: {message}"):
        torch.ops.pokegan.batch_norm_track_(*arguments)
