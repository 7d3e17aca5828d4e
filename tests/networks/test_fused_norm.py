"""A batch norm that computes the activation behind it is PyTorch's norm and activation."""

import copy

import pytest
import torch
from thread_ranks import Seat, Threads
from torch import Tensor, nn

from pokegan.networks import batch_norm, norm_functions
from pokegan.networks.batch_norm import BatchNorm1d, BatchNorm2d, Sequential, share
from pokegan.networks.convolution import Conv2d
from pokegan.ops import status

LAST = torch.channels_last
needs_kernels = pytest.mark.skipif(not status().cpu, reason=f"extension: {status().cpu_reason}")
ACTIVATIONS = [lambda: nn.ReLU(True), lambda: nn.LeakyReLU(0.2, True), lambda: nn.LeakyReLU(0.01)]
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture
def fused(monkeypatch) -> list[torch.Size]:
    """The shapes that the kernels were given."""
    shapes: list[torch.Size] = []
    before = norm_functions.batch_norm_act

    def seen(input: Tensor, *rest) -> Tensor:
        shapes.append(input.shape)
        return before(input, *rest)

    monkeypatch.setattr(norm_functions, "batch_norm_act", seen)
    return shapes


def started(norm: nn.Module) -> nn.Module:
    count = norm.num_features
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-0.5, 2.0, count))
        norm.bias.copy_(torch.linspace(-1.0, 1.0, count))
        norm.running_mean.copy_(torch.linspace(0.0, 1.0, count))
    return norm


def stock(network: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """PyTorch's own layers with the same state."""
    other = copy.deepcopy(network).to(dtype)
    kinds = {BatchNorm1d: nn.BatchNorm1d, BatchNorm2d: nn.BatchNorm2d, Sequential: nn.Sequential}
    for module in other.modules():
        module.__class__ = kinds.get(type(module), type(module))
    return other


def maps(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2 + 1
    values = values.to(dtype)
    return values.contiguous(memory_format=LAST) if len(shape) == 4 else values


@needs_kernels
@pytest.mark.parametrize("make", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(9, 5), (9, 5, 1), (6, 17, 4, 3), (5, 1, 6, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_pair_is_pytorchs_pair(fused, make, shape, dtype) -> None:
    kind = BatchNorm2d if len(shape) == 4 else BatchNorm1d
    pair = Sequential(started(kind(shape[1])), make())
    other = stock(pair)
    close = (
        {"rtol": 1e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    )
    for seed in range(3):
        x = maps(*shape, dtype=dtype, seed=seed).requires_grad_()
        twin = x.detach().double().requires_grad_()
        slopes = maps(*shape, seed=9)
        out, expected = pair(x), other(twin)
        out.backward(slopes.to(dtype))
        expected.backward(slopes.double())
        assert out.dtype == x.grad.dtype == dtype
        torch.testing.assert_close(out.double(), expected, **close)
        torch.testing.assert_close(x.grad.double(), twin.grad, **close)
    assert fused == [x.shape] * 3
    for name, parameter in pair.named_parameters():
        twin_gradient = other.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad.double(), twin_gradient, rtol=1e-2, atol=1e-2)
    for name in STATISTICS:
        one, two = getattr(pair[0], name), getattr(other[0], name)
        torch.testing.assert_close(one.double(), two.double(), rtol=1e-5, atol=1e-6)
    pair.eval(), other.eval()
    found = pair(x.detach())
    assert len(fused) == 3
    torch.testing.assert_close(found.double(), other(x.detach().double()), **close)


@needs_kernels
def test_a_norm_alone_is_fused_with_nothing(fused) -> None:
    norm = started(BatchNorm2d(6))
    x = maps(4, 6, 3, 3)
    for network in (norm, Sequential(norm, nn.Tanh()), Sequential(nn.Identity(), norm)):
        other = stock(network)
        torch.testing.assert_close(network(x).double(), other(x.double()), rtol=1e-5, atol=1e-5)
    assert len(fused) == 3


@needs_kernels
def test_what_is_not_fused_is_pytorchs(fused) -> None:
    pair = Sequential(started(BatchNorm2d(6)), nn.LeakyReLU(0.2, True))
    other = stock(pair, torch.float32)
    x = maps(4, 6, 3, 3).contiguous()
    assert torch.equal(pair(x), other(x))
    double = maps(4, 6, 3, 3).double()
    assert torch.equal(pair.double()(double), other.double()(double))
    assert not fused
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        pair.float()(torch.zeros(1, 6, 1, 1))
    with pytest.raises(ValueError, match="expected 4D input"):
        pair(torch.zeros(5, 6))


@needs_kernels
@pytest.mark.parametrize("momentum", [None, 0.3])
def test_statistics_by_momentum(momentum) -> None:
    pair = Sequential(started(BatchNorm2d(4)), nn.ReLU())
    pair[0].momentum = momentum
    other = stock(pair)
    for seed in range(3):
        x = maps(5, 4, 2, 2, seed=seed)
        pair(x), other(x.double())
    for name in STATISTICS:
        one, two = getattr(pair[0], name), getattr(other[0], name)
        torch.testing.assert_close(one.double(), two.double(), rtol=1e-5, atol=1e-6)


@needs_kernels
def test_without_parameters_and_statistics() -> None:
    norm = BatchNorm2d(4, affine=False, track_running_stats=False)
    pair = Sequential(norm, nn.LeakyReLU(0.2))
    x = maps(5, 4, 2, 2).requires_grad_()
    twin = x.detach().double().requires_grad_()
    out, expected = pair(x), stock(pair)(twin)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    slopes = maps(5, 4, 2, 2, seed=1)
    out.backward(slopes), expected.backward(slopes.double())
    torch.testing.assert_close(x.grad.double(), twin.grad, rtol=1e-4, atol=1e-5)


@needs_kernels
def test_only_what_is_due_is_computed() -> None:
    pair = Sequential(started(BatchNorm2d(4)), nn.LeakyReLU(0.2))
    x = maps(5, 4, 2, 2)
    pair(x).sum().backward()
    assert pair[0].weight.grad is not None
    pair.requires_grad_(False).zero_grad()
    pair(x.requires_grad_()).sum().backward()
    assert x.grad is not None
    assert pair[0].weight.grad is None


@needs_kernels
@pytest.mark.parametrize("make", ACTIVATIONS)
def test_second_derivatives_are_pytorchs(fused, make) -> None:
    """As R1 takes them: the gradient by the weights of the squared gradient by the pictures."""
    torch.manual_seed(0)
    network = Sequential(
        Conv2d(3, 8, 3, padding=1), started(BatchNorm2d(8)), make(), Conv2d(8, 1, 3)
    ).to(memory_format=LAST)
    other = stock(network)

    def penalty(net: nn.Module, x: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(net(x).tanh().sum(), x, create_graph=True)
        return gradient.square().sum()

    x = maps(4, 3, 6, 6).requires_grad_()
    twin = x.detach().double().requires_grad_()
    penalty(network, x).backward()
    penalty(other, twin).backward()
    assert fused == [(4, 8, 6, 6)]
    torch.testing.assert_close(x.grad.double(), twin.grad, rtol=1e-3, atol=1e-4)
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(
            one.grad.double() if one.grad is not None else None, two.grad, rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
def test_the_differentiable_form_by_finite_differences(slope) -> None:
    """What a penalty differentiates, in float64: first and second order."""
    torch.manual_seed(1)
    tensors = [torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2), *torch.randn(2, 3).unbind()]
    leaves = [one.double().requires_grad_() for one in tensors]

    def backward(gradient: Tensor, x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return norm_functions._differentiable(
            gradient, x, w, b, norm_functions.NormSettings(1e-5, slope, None)
        )

    found = backward(*leaves)
    out = nn.functional.batch_norm(leaves[1], None, None, *leaves[2:], True, 0.1, 1e-5)
    out = nn.functional.leaky_relu(out, slope) if slope != 1 else out
    expected = torch.autograd.grad(out, leaves[1:], leaves[0].detach(), create_graph=True)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two)
    assert torch.autograd.gradcheck(backward, leaves)
    assert torch.autograd.gradgradcheck(backward, leaves)


@needs_kernels
def test_the_gradient_by_finite_differences_of_the_kernels() -> None:
    """In float32, so with wide steps; the loss is a sum against fixed numbers."""
    pair = Sequential(started(BatchNorm2d(3)), nn.LeakyReLU(0.2))
    x = maps(16, 3, 4, 4)
    head = maps(16, 3, 4, 4, seed=3)
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    (pair(leaf) * head).sum().backward()
    direction = maps(16, 3, 4, 4, seed=4)
    step = 1e-3
    up, down = ((pair(x + sign * step * direction).double() * head).sum() for sign in (1, -1))
    expected = (up - down).item() / (2 * step)
    found = (leaf.grad * direction).sum().item()
    assert found == pytest.approx(expected, rel=2e-2)


RANKS = 3


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("penalised", [False, True])
def test_shares_are_normalised_as_the_whole_batch(fused, dtype, penalised) -> None:
    batch = maps(6, 8, 4, 4, dtype=dtype) + 5
    slopes = maps(6, 8, 4, 4, seed=1)
    pairs = [Sequential(started(BatchNorm2d(8)), nn.LeakyReLU(0.2, True)) for _ in range(RANKS)]
    whole = stock(pairs[0])

    def loss(pair: nn.Module, x: Tensor, part: Tensor) -> Tensor:
        value = (pair(x) * part.to(x.dtype)).sum()
        if not penalised:
            return value
        (gradient,) = torch.autograd.grad(value, x, create_graph=True)
        return gradient.square().sum()

    twin = batch.detach().double().requires_grad_()
    loss(whole, twin, slopes).backward()

    def work(seat: Seat) -> Tensor:
        pair = pairs[seat.rank]
        share(pair, seat)
        own = batch.chunk(RANKS)[seat.rank].clone(memory_format=LAST).requires_grad_()
        loss(pair, own, slopes.chunk(RANKS)[seat.rank]).backward()
        assert own.grad is not None
        return own.grad

    gradient = torch.cat(Threads(RANKS).run(work)).double()
    size = twin.grad.abs().max()
    allowed = 3e-2 if dtype == torch.bfloat16 else 1e-4
    assert (gradient - twin.grad).abs().max() < allowed * size
    summed = sum(pair[0].weight.grad.double() for pair in pairs)
    torch.testing.assert_close(summed, whole[0].weight.grad, rtol=allowed, atol=allowed * size)
    assert fused == [(2, 8, 4, 4)] * RANKS
    for pair in pairs:
        for name in STATISTICS:
            one, two = getattr(pair[0], name), getattr(whole[0], name)
            torch.testing.assert_close(one.double(), two.double(), rtol=1e-4, atol=1e-5)


def test_state_and_modules_are_those_of_a_plain_sequential() -> None:
    ours = Sequential(Conv2d(3, 4, 3), BatchNorm2d(4), nn.ReLU(), nn.Sequential(nn.Tanh()))
    plain = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Sequential(nn.Tanh())
    )
    assert list(ours.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in ours.named_modules()] == [name for name, _ in plain.named_modules()]
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(ours.eval()(x), plain.eval()(x))


@needs_kernels
def test_compiled_code_sees_pytorchs_layers(fused) -> None:
    pair = Sequential(started(BatchNorm2d(6)), nn.LeakyReLU(0.2))
    x = maps(4, 6, 3, 3)
    expected = pair(x)
    compiled = torch.compile(pair, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected)
    assert len(fused) == 1


@needs_kernels
def test_an_activation_without_a_norm_is_pytorchs(monkeypatch) -> None:
    calls = []
    before = batch_norm.activate_
    monkeypatch.setattr(
        batch_norm, "activate_", lambda values, slope: calls.append(slope) or before(values, slope)
    )
    between = nn.Hardtanh(-3.0, 3.0)
    activations = [nn.ReLU(True), between, nn.LeakyReLU(0.2, True), between, nn.LeakyReLU(0.1)]
    network = Sequential(*activations)
    x = maps(4, 6, 3, 3, dtype=torch.bfloat16)
    for given in (x, x.float(), x.contiguous()):
        one, two = ((given + 0).requires_grad_() for _ in range(2))
        found, expected = network(one * 2), stock(network, torch.float32)(two * 2)
        found.sum().backward(), expected.sum().backward()
        assert torch.equal(found, expected)
        assert torch.equal(one.grad, two.grad)
    network.eval()(x.clone())
    assert calls == [0.0, 0.2]
