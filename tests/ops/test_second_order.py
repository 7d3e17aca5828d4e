"""Penalties' shortcuts give the gradients that PyTorch gives without them, by fewer operators."""

import itertools
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch.utils._python_dispatch import TorchDispatchMode

from pokegan.networks.batch_norm import Sequential
from pokegan.networks.convolution import Conv2d
from pokegan.objectives.penalties import gradient_penalty, zero_centred_penalty
from pokegan.ops import conv2d_split, conv_units
from pokegan.ops.second_order import gradients_by_input, inside, piecewise_linear, through_slope


class Counted(TorchDispatchMode):
    """Counts the operators that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[function._schema.name.partition("::")[2]] += 1
        return function(*args, **(kwargs or {}))


def activation(slope: float, inplace: bool) -> nn.Module:
    return nn.LeakyReLU(slope, inplace) if slope else nn.ReLU(inplace)


def networks(slope: float, inplace: bool) -> tuple[nn.Module, nn.Module]:
    """The same critic of our layers and of PyTorch's."""
    torch.manual_seed(0)
    built = []
    for convolution, sequence in ((Conv2d, Sequential), (nn.Conv2d, nn.Sequential)):
        layers = [
            convolution(3, 8, 4, 2, 1),
            activation(slope, inplace),
            convolution(8, 16, 3, 1, 1),
            activation(slope, inplace),
            nn.Flatten(),
            nn.Linear(16 * 16, 1),
        ]
        built.append(sequence(*layers).double())
    built[0].load_state_dict(built[1].state_dict())
    return built[0], built[1]


def pictures(count: int) -> Tensor:
    return torch.rand(count, 3, 8, 8, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("slope", [0.2, 0.0])
def test_penalties_have_pytorchs_gradients(slope: float, inplace: bool) -> None:
    ours, plain = networks(slope, inplace)
    real, fake, mix = pictures(5), pictures(5), torch.rand(5, dtype=torch.float64)
    between = torch.lerp(fake, real, mix[:, None, None, None]).requires_grad_()
    (by_input,) = torch.autograd.grad(plain(between).sum(), between, create_graph=True)
    wanted = (by_input.flatten(1).norm(dim=1) - 1).square().mean()
    wanted.backward()
    found = gradient_penalty(lambda x: ours(x).flatten(), real, fake, mix)
    found.backward()
    torch.testing.assert_close(found, wanted)
    compared = 0
    for (name, one), other in zip(ours.named_parameters(), plain.parameters(), strict=True):
        if other.grad is None or not other.grad.any():  # biases: the slopes hide them
            assert one.grad is None, name
            continue
        torch.testing.assert_close(one.grad, other.grad)
        compared += 1
    assert compared == 3  # weights


@pytest.mark.parametrize("slope", [0.2, 0.0])
def test_piecewise_linear_can_be_differentiated_again(slope: float) -> None:
    values = torch.tensor([-2.0, -0.5, 0.25, 3.0], dtype=torch.float64, requires_grad=True)

    def through(x: Tensor) -> Tensor:
        return piecewise_linear(x * x * x, slope)

    assert torch.autograd.gradcheck(through, (values,))
    assert torch.autograd.gradgradcheck(through, (values,))


def test_piecewise_linear_in_place_changes_its_input_but_no_view() -> None:
    values = torch.tensor([-1.0, 2.0])
    assert piecewise_linear(values, 0.5, inplace=True).data_ptr() == values.data_ptr()
    assert values.tolist() == [-0.5, 2.0]
    whole = torch.tensor([[-1.0, 2.0]])
    assert piecewise_linear(whole[0], 0.5, inplace=True).tolist() == [-0.5, 2.0]
    assert whole.tolist() == [[-1.0, 2.0]]


def test_a_slope_lets_no_gradient_through_to_its_result() -> None:
    gradient = torch.tensor([1.0, 1.0], requires_grad=True)
    result = torch.tensor([-0.2, 1.0], requires_grad=True)
    through_slope(gradient, result, 0.2).sum().backward()
    assert gradient.grad is not None
    torch.testing.assert_close(gradient.grad, torch.tensor([0.2, 1.0]))
    assert result.grad is None


def test_only_what_is_inside_is_meant() -> None:
    assert not inside()
    with gradients_by_input():
        with gradients_by_input():
            assert inside()
        assert inside()
    assert not inside()
    with pytest.raises(ZeroDivisionError), gradients_by_input():
        _ = 1 / 0
    assert not inside()


CHOICES = list(itertools.product([False, True], repeat=3))


@pytest.mark.parametrize("own", CHOICES)
def test_no_zeros_go_back_whoever_computes_a_layer(own: tuple[bool, ...]) -> None:
    """Or a parameter has a gradient by a penalty on one machine or rank, and none on another."""
    if any(own) and conv_units() == "none":
        pytest.skip("the operators need AMX or AVX512-BF16")
    shapes = [(8, 3, 4, 4), (8, 8, 3, 3), (8, 8, 3, 3)]
    weights = [(torch.randn(shape) * 0.1).requires_grad_() for shape in shapes]
    biases = [torch.zeros(8, requires_grad=True) for _ in shapes]

    def critic(maps: Tensor) -> Tensor:
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            convolve = conv2d_split if own[layer] else F.conv2d
            maps = convolve(maps, weight, bias, 2 if layer == 0 else 1, 1)
            if layer < 2:
                maps = piecewise_linear(maps, 0.2, inplace=True)
        return maps.sum((1, 2, 3))

    with Counted() as counted:
        zero_centred_penalty(critic, pictures(2).float()).backward()
    assert all(weight.grad is not None for weight in weights)
    assert [bias.grad for bias in biases] == [None, None, None]
    if not any(own):
        assert counted.counts["convolution_backward"] == 3  # by the input, of each layer


@pytest.mark.skipif(conv_units() == "none", reason="the operators need AMX or AVX512-BF16")
def test_a_penalty_runs_each_product_once() -> None:
    """Forward, by the input, by the weight, and but for the last layer that of the gradient."""
    weights = [
        (torch.randn(8, 3, 4, 4) * 0.1).requires_grad_(),
        (torch.randn(8, 8, 3, 3) * 0.1).requires_grad_(),
    ]

    def critic(maps: Tensor) -> Tensor:
        maps = piecewise_linear(conv2d_split(maps, weights[0], None, 2, 1), 0.2, inplace=True)
        return conv2d_split(maps, weights[1], None, 1, 1).sum((1, 2, 3))

    with Counted() as counted:
        zero_centred_penalty(critic, pictures(2).float()).backward()
    assert all(weight.grad is not None for weight in weights)
    found = {name: count for name, count in counted.counts.items() if name.startswith("conv")}
    assert found == {
        "conv2d_split": 3,
        "conv_transpose2d_split": 2,
        "conv2d_weight_split": 2,
    }
    assert not counted.counts["zeros_like"]


def test_a_compiled_penalty_leaves_out_the_same() -> None:
    """As steps compile it: both passes in one graph, gradients by the weights at its end."""
    real = pictures(3)
    outcomes = []
    for critic in networks(0.2, inplace=True):
        counts: Counter[str] = Counter()
        gradients = compiled_gradients(critic, real, counts)
        outcomes.append((gradients, sum(counts[f"convolution{end}"] for end in ENDS)))
    (ours, few), (plain, many) = outcomes
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other)
    assert few == 8  # of two layers: forward, by the input, that one's own, by the weight
    assert many > few


ENDS = (".default", "_backward.default")


def compiled_gradients(critic: nn.Module, real: Tensor, counts: Counter[str]) -> tuple[Tensor, ...]:
    """Gradients of R1 by the weights; what runs for them is added to `counts`."""
    anchor = torch.zeros((), dtype=torch.float64, requires_grad=True)
    weights = [one for one in critic.parameters() if one.dim() > 1]

    def step(real: Tensor) -> tuple[Tensor, ...]:
        loss = zero_centred_penalty(lambda x: critic(x).flatten(), real, anchor)
        return torch.autograd.grad(loss, weights)

    def count(graph: torch.fx.GraphModule, _inputs: object) -> torch.fx.GraphModule:
        counts.update(node.target.__name__ for node in graph.graph.nodes if callable(node.target))
        return graph

    backend = aot_autograd(fw_compiler=count, bw_compiler=count)
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        return torch.compile(step, backend=backend, fullgraph=True)(real)
