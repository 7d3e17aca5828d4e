"""A (leaky) ReLU in place: PyTorch's bits, at any shape, with gradients of both orders."""

import math

import pytest
import torch
import torch.nn.functional as F

from pokegan.ops import activation, status
from pokegan.ops.activation import activate_, can_activate, tanh
from pokegan.ops.batch_norm_act import channels_last

needs_kernels = pytest.mark.skipif(not status().cpu, reason=f"extension: {status().cpu_reason}")
SHAPES = [(1, 1), (5, 3), (3, 17, 1), (2, 3, 4, 5), (65, 64, 4, 4), (3, 5, 64, 64)]
SLOPES = [0.0, 0.01, 0.2]
SPECIAL = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-30, -1e-30]


def drawn(shape, seed=0, dtype=torch.bfloat16):
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=random).to(dtype)
    special = torch.tensor(SPECIAL, dtype=dtype)[: values.numel()]
    values.view(-1)[: special.numel()] = special
    return channels_last(values).clone()  # no view


def stock(values, slope):
    return F.leaky_relu(values, slope) if slope else F.relu(values)


def assert_same(found, expected):
    """Equal bits, but for the kinds of NaN."""
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))


@needs_kernels
@pytest.mark.parametrize("units", [0, 1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_pytorch(shape, slope, dtype, units) -> None:
    x, dy = drawn(shape, dtype=dtype), drawn(shape, 1, dtype)
    leaf = x.clone().requires_grad_()
    expected = stock(leaf, slope)
    (gradient,) = torch.autograd.grad(expected, leaf, dy)
    torch.ops.pokegan.activate_(x, slope, units)
    assert_same(x, expected.detach())
    assert_same(torch.ops.pokegan.activate_backward(dy, x, slope, units), gradient)


@needs_kernels
@pytest.mark.parametrize("slope", SLOPES)
def test_gradients_of_both_orders(slope) -> None:
    """As a penalty takes them: of the squared gradient, through another layer on each side."""
    w = torch.randn(2, 3, 8, 6, 6)

    def orders(activate):
        x = channels_last(w[0].bfloat16()).requires_grad_()
        hidden = activate(x * 2)
        (first,) = torch.autograd.grad((hidden.tanh() * w[1]).sum(), x, create_graph=True)
        return hidden, first, *torch.autograd.grad(first.square().sum(), x)

    found = orders(lambda values: activate_(values, slope))
    expected = orders(lambda values: stock(values, slope))
    for one, two in zip(found, expected, strict=True):
        assert torch.equal(one, two)


@needs_kernels
def test_it_happens_in_place_and_autograd_knows() -> None:
    x = drawn((4, 3, 2, 2)).requires_grad_()
    needed = x.nan_to_num(1.0) + 1
    squared = needed.square()
    out = activate_(needed, 0.2)
    assert out is needed
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        squared.sum().backward()
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        activate_(x, 0.2)


@needs_kernels
def test_what_is_not_taken_goes_to_pytorch(monkeypatch) -> None:
    x = drawn((4, 3, 2, 2))
    assert can_activate(x)
    others = [x.contiguous(), x[1:], x.float(), torch.zeros(5).bfloat16(), x[:0].clone()]
    monkeypatch.setattr(activation._Activate, "apply", None)  # a call would fail
    for other in others:
        assert not can_activate(other)
        expected = stock(other.clone(), 0.2)
        assert_same(activate_(other, 0.2), expected)
        assert_same(activate_(other, 0.0), stock(expected, 0.0))


@needs_kernels
def test_the_same_bits_for_any_count_of_threads() -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = activate_(drawn((9, 64, 20, 21)), 0.2)
            results.append((y, torch.ops.pokegan.activate_backward(y, y, 0.2)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert_same(one, two)


@needs_kernels
def test_opcheck() -> None:
    x = channels_last(torch.randn(4, 3, 5, 2).bfloat16())
    torch.library.opcheck(torch.ops.pokegan.activate_.default, (x, 0.2))
    torch.library.opcheck(torch.ops.pokegan.activate_backward.default, (x, x, 0.2))


@needs_kernels
def test_wrong_arguments_are_named() -> None:
    x = drawn((4, 3, 2, 2))
    for call, words in (
        (lambda: torch.ops.pokegan.activate_(x.half(), 0.2), "input must be float32 or bfloat16"),
        (lambda: torch.ops.pokegan.activate_(x.contiguous(), 0.2), "input must be dense with"),
        (lambda: torch.ops.pokegan.activate_(x, 0.2, 3), "units must be 0 or 1, got 3"),
        (
            lambda: torch.ops.pokegan.activate_backward(x[1:], x, 0.2),
            "gradient must have the dtype and shape of input",
        ),
    ):
        with pytest.raises(RuntimeError, match=words):
            call()


def test_tanh_of_every_bfloat16() -> None:
    """Next to the exact value, and nearly always the nearest."""
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16)
    found, exact = tanh(every), every.double().tanh()
    assert torch.equal(found.isnan(), every.isnan())
    real = ~every.isnan()
    nearest = exact.bfloat16()
    ulps = (found.view(torch.int16).int() - nearest.view(torch.int16).int()).abs()[real]
    assert ulps.max() <= 1
    assert (ulps == 0).double().mean() > 0.999


@pytest.mark.parametrize("shape", [(0,), (1,), (37,), (2, 3, 5, 7), (3, 3, 64, 64)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_tanh_in_any_layout(shape, dtype) -> None:
    torch.manual_seed(0)
    values = torch.randn(shape).to(dtype)
    layouts = [values]
    if values.dim() == 4:
        layouts += [values.contiguous(memory_format=torch.channels_last), values[:, :, ::2]]
    for one in layouts:
        found = tanh(one)
        assert found.dtype == dtype
        torch.testing.assert_close(found, torch.tanh(one), rtol=2**-7, atol=0)
        assert found.shape == one.shape
        if one.numel() == values.numel():
            assert found.stride() == one.stride()


def test_gradients_of_tanh() -> None:
    x = torch.linspace(-3, 3, 50).bfloat16().requires_grad_()
    wide = x.detach().double().requires_grad_()
    (first,) = torch.autograd.grad(tanh(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    (exact,) = torch.autograd.grad(wide.tanh().sum(), wide, create_graph=True)
    (exact_second,) = torch.autograd.grad(exact.sum(), wide)
    torch.testing.assert_close(first.double(), exact, rtol=0, atol=1e-2)
    torch.testing.assert_close(second.double(), exact_second, rtol=0, atol=2e-2)
