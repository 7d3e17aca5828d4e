"""A norm takes the moments that the convolution before it has summed."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pokegan.networks.batch_norm import BatchNorm2d, Sequential
from pokegan.networks.convolution import Conv2d, ConvTranspose2d
from pokegan.ops import conv_choice, conv_units, status

needs_units = pytest.mark.skipif(
    conv_units() == "none", reason=f"units: none; extension: {status().cpu_reason}"
)
LAYERS = {
    "convolution": (lambda: Conv2d(40, 48, 4, 2, 1, bias=False), "conv2d"),
    "with a bias": (lambda: Conv2d(40, 48, 3, 1, 1), "conv2d"),
    "transposed": (lambda: ConvTranspose2d(40, 48, 4, 2, 1, bias=False), "conv_transpose2d"),
}


class Called(TorchDispatchMode):
    """The names of our operators that reach a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "pokegan":
            self.names.append(func.__name__.removesuffix(".default"))
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def own(monkeypatch) -> None:
    monkeypatch.setattr(conv_choice, "_MODE", "own")


def network(name: str = "convolution") -> Sequential:
    torch.manual_seed(0)
    layers = Sequential(LAYERS[name][0](), BatchNorm2d(48), nn.LeakyReLU(0.2, True))
    return layers.to(memory_format=torch.channels_last)


def maps() -> Tensor:
    values = torch.randn(18, 40, 8, 8, generator=torch.Generator().manual_seed(1))
    return values.bfloat16().contiguous(memory_format=torch.channels_last)


def called(layers: nn.Module, x: Tensor) -> list[str]:
    with Called() as mode, torch.autocast("cpu", torch.bfloat16):
        layers(x)
    return mode.names


@needs_units
@pytest.mark.parametrize("name", LAYERS)
def test_maps_are_not_read_for_their_moments(name) -> None:
    layers, operator = network(name), LAYERS[name][1]
    ours = [f"{operator}_moments_bf16", "batch_norm_act", "batch_norm_track_"]
    assert called(layers, maps()) == ours
    with torch.no_grad():
        assert called(layers, maps()) == ours
    assert called(layers.eval(), maps()) == [f"{operator}_bf16"]


@needs_units
@pytest.mark.parametrize("name", LAYERS)
def test_results_gradients_and_statistics_are_pytorchs(name) -> None:
    ours = network(name)
    exact = copy.deepcopy(ours).double()
    kinds = {Conv2d: nn.Conv2d, ConvTranspose2d: nn.ConvTranspose2d, BatchNorm2d: nn.BatchNorm2d}
    for module in exact.modules():
        module.__class__ = kinds.get(type(module), type(module))
    x = maps().requires_grad_()
    twin = x.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = ours(x)
    expected = exact(twin)
    downstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    out.backward(downstream.bfloat16())
    expected.backward(downstream.double())
    gradients = [(x.grad, twin.grad)]
    for label, parameter in ours.named_parameters():
        if label != "0.bias":  # which a norm takes away: 0 but for rounding
            gradients.append((parameter.grad, exact.get_parameter(label).grad))
    for one, two in [(out, expected), *gradients]:
        assert (one.double() - two).norm() < 0.05 * two.norm()  # bfloat16; some fall below 0
    for label in ("running_mean", "running_var"):
        one, two = (getattr(each[1], label).double() for each in (ours, exact))
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


@needs_units
def test_without_them_the_norm_reads_its_input(monkeypatch) -> None:
    plain = ["conv2d_bf16", "batch_norm_moments", "batch_norm_act", "batch_norm_track_"]
    layers = network()
    between = Sequential(layers[0], nn.Identity(), layers[1], layers[2])
    assert called(between, maps()) == plain
    monkeypatch.setattr(conv_choice, "_MODE", "winograd")
    assert called(layers, maps()) == plain
    monkeypatch.setattr(conv_choice, "_MODE", "stock")
    assert called(layers, maps()) == plain[1:]


@needs_units
def test_who_looks_at_a_convolution_sees_its_call() -> None:
    layers, seen = network(), []
    handle = layers[0].register_forward_hook(lambda _, given, result: seen.append(result))
    assert called(layers, maps())[0] == "conv2d_bf16"
    assert [type(one) for one in seen] == [Tensor]
    handle.remove()
    assert called(layers, maps())[0] == "conv2d_moments_bf16"


@needs_units
def test_a_norm_that_is_at_rest_asks_for_nothing() -> None:
    layers = network()
    layers[1].eval()
    assert called(layers, maps()) == ["conv2d_bf16"]
