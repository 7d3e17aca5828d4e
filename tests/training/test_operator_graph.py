"""A recorded function gives what it would give itself, on other inputs; or says why it cannot."""

import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pokegan.training.operator_graph import Repeat, record


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape)


def assert_repeats(function: Callable[..., Any], *shape: int) -> Repeat:
    """Check that a recording of `function` gives its results, on inputs that it has not seen."""
    _, repeat = record(function, [drawn(*shape)])
    assert isinstance(repeat, Repeat), repeat
    for _ in range(3):
        x = drawn(*shape)
        torch.testing.assert_close(repeat(x), function(x), rtol=0, atol=0)
    return repeat


def test_the_first_run_is_the_functions_own() -> None:
    x = drawn(3)
    result, _ = record(lambda x: {"twice": 2 * x, "list": [x + 1, None]}, [x])
    assert torch.equal(result["twice"], 2 * x)
    assert torch.equal(result["list"][0], x + 1)
    assert result["list"][1] is None


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.t() @ x,
        lambda x: x[1:, ::2] + x.flatten()[3],
        lambda x: x.clone().add_(1).mul_(x),
        lambda x: torch.cat([x, x[:1]]).unbind()[2],
        lambda x: [piece * 2 for piece in x.split([1, 3])],
        lambda x: torch.zeros(4, 4).copy_(x) + torch.tensor([1.0, 2.0, 3.0, 4.0]),
        lambda x: torch.tensor(3.0).add_(x.mean()),  # a number from the host, new every time
        lambda x: x.to(torch.bfloat16).float(),
        lambda x: torch.where(x > 0, x, float("-inf")).amax(0),
        lambda x: (x, x.view(2, 8), x.detach()),
    ],
    ids=range(10),
)
def test_operators_and_views(function: Callable[[Tensor], Any]) -> None:
    assert_repeats(function, 4, 4)


def test_what_is_written_through_a_view_is_seen() -> None:
    def function(x: Tensor) -> Tensor:
        own = x.clone()
        own[1].fill_(5)
        own.view(-1)[::3] = 7
        return own

    assert_repeats(function, 3, 4)


def test_gradients_through_saved_results() -> None:
    """Autograd gives back its saved results as other tensors of the same memory."""
    weight = torch.randn(4, 4, requires_grad=True)

    def function(x: Tensor) -> Any:
        hidden = torch.sigmoid(x @ weight).tanh()
        loss = F.softplus(F.softmax(hidden * x, 1).pow(2).sum(1)).mean()
        return torch.autograd.grad(loss, [weight])

    assert_repeats(function, 4, 4)


def test_second_derivatives() -> None:
    layer = torch.nn.Conv2d(2, 3, 3)

    def function(x: Tensor) -> Any:
        x = x.detach().requires_grad_()
        out = torch.sigmoid(layer(F.leaky_relu(x, 0.2)))
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [layer.weight, layer.bias])

    assert_repeats(function, 2, 2, 6, 6)


def test_autocast() -> None:
    layer = torch.nn.Linear(4, 4)

    def function(x: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            loss = layer(x).square().mean()
        return loss, torch.autograd.grad(loss, [layer.weight])[0]

    assert_repeats(function, 4, 4)


def test_tensors_found_elsewhere_are_read_and_written() -> None:
    weight, count = torch.ones(3, requires_grad=True), torch.zeros(())

    def function(x: Tensor) -> Tensor:
        count.add_(1)
        with torch.no_grad():
            weight[0].mul_(2)
            return weight * x + count

    _, repeat = record(function, [drawn(3)])
    assert isinstance(repeat, Repeat)
    with torch.no_grad():
        weight.fill_(10)
    x = drawn(3)
    assert torch.equal(repeat(x), torch.tensor([20.0, 10.0, 10.0]) * x + 2)
    assert float(count) == 2
    assert weight.detach()[0] == 20
    assert weight.requires_grad
    assert repeat(x).grad_fn is None


def test_a_view_of_a_found_tensor_follows_it() -> None:
    weight = torch.zeros(2, 3)
    repeat = assert_repeats(lambda x: weight.t()[1] + x, 2)
    weight.copy_(drawn(2, 3))
    x = drawn(2)
    assert torch.equal(repeat(x), weight[:, 1] + x)
    assert "aten.t." not in repeat.source  # made once: it stays where it is


def test_another_shape_for_the_same_tensor() -> None:
    def function(x: Tensor) -> Any:
        one = x.clone()
        other = one.detach()
        one.unsqueeze_(0)
        return other, one + 1, (x @ other)[None]

    assert_repeats(function, 3, 3)


def test_running_statistics_count_where_nobody_reads_the_result() -> None:
    """PyTorch's kernel does not say that it writes them."""
    norms = [torch.nn.BatchNorm1d(3) for _ in range(2)]
    _, repeat = record(lambda x: (norms[0](x), x + 1)[1], [drawn(4, 3)])
    norms[1].load_state_dict(norms[0].state_dict())
    x = drawn(4, 3)
    repeat(x)
    norms[1](x)
    assert torch.equal(norms[0].running_mean, norms[1].running_mean)
    assert torch.equal(norms[0].running_var, norms[1].running_var)


def test_random_numbers_are_fresh() -> None:
    """And drawn as often as the function draws them, even where nobody reads them."""

    def function(x: Tensor) -> Tensor:
        torch.rand(5)
        return x + torch.rand(3)

    _, repeat = record(function, [drawn(3)])
    assert isinstance(repeat, Repeat)
    x = drawn(3)
    state = torch.get_rng_state()
    first, second = function(x), function(x)
    torch.set_rng_state(state)
    assert torch.equal(repeat(x), first)
    assert torch.equal(repeat(x), second)


class Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_what_nobody_reads_is_left_out() -> None:
    def function(x: Tensor) -> Tensor:
        unused = (x * 3).exp()
        unused.sum()
        return x.detach() + 1

    repeat = assert_repeats(function, 3)
    x = drawn(3)
    with Counting() as mode:
        repeat(x)
    assert mode.count == 1


def test_memory_is_given_back_while_it_is_recorded() -> None:
    """And in repeats: no more than one result is alive at a time."""
    alive: list[weakref.ref[Any]] = []
    most = 0

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal most
            result = func(*args, **(kwargs or {}))
            alive.append(weakref.ref(result))
            most = max(most, sum(one() is not None for one in alive))
            return result

    def function(x: Tensor) -> Tensor:
        for _ in range(20):
            x = x + 1
        return x

    given = drawn(3)
    with Watching():
        _, repeat = record(function, [given])
    assert len(alive) == 20
    assert most <= 3
    alive.clear()
    most = 0
    assert isinstance(repeat, Repeat)
    with Watching():
        repeat(given)
    assert len(alive) == 20
    assert most <= 3


def in_another_thread(function: Callable[[], Tensor]) -> Tensor:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x * float(x.sum()), "gives a float to the host"),
        (lambda x: x if x.sum() > 0 else -x, "gives a bool to the host"),
        (lambda x: x * torch.equal(x, x.abs()), "gives a bool to the host"),
        (lambda x: x * float(np.sum(x.numpy())), "numpy() gives values to the host"),
        (lambda x: x * x.tolist()[0], "tolist() gives values to the host"),
        (lambda x: x[x > 0], "depends on values"),
        (lambda x: torch.nonzero(x).sum(), "depends on values"),
        (lambda x: x.view(torch.int32).clone().view(torch.float32) + 0, None),
        (lambda x: x.to(torch.promote_types(x.dtype, torch.float64)), None),
        (lambda x: x + torch.from_numpy(np.ones(2, np.float32)), None),
        (lambda x: x + in_another_thread(lambda: 2 * x), "made by other ways"),
        (lambda x: x[torch.tensor([1, 1, 0])], None),
        (lambda x: x.clone().resize_(1), "changes what a tensor is"),
        (lambda x: torch.rand(2, generator=torch.Generator()) + x, "takes a Generator"),
    ],
)
def test_what_cannot_be_repeated_has_run_once(
    function: Callable[[Tensor], Any], reason: str | None
) -> None:
    calls = []

    def counted(x: Tensor) -> Any:
        calls.append(x)
        return function(x)

    x = torch.tensor([1.0, 2.0])
    result, repeat = record(counted, [x])
    assert len(calls) == 1
    if reason is None:
        assert isinstance(repeat, Repeat)
        assert torch.equal(repeat(x), result)
    else:
        assert isinstance(repeat, str)
        assert reason in repeat
