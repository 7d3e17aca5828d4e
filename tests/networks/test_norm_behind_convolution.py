"""A norm takes what the convolutions around it have summed while they wrote."""

import copy

import pytest
import torch
from thread_ranks import Seat, Threads
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pokegan.networks import batch_norm
from pokegan.networks.batch_norm import BatchNorm2d, Sequential, share
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


def chain() -> Sequential:
    """Two norms with convolutions on both sides, one of them transposed, and one that ends it."""
    torch.manual_seed(3)
    layers = Sequential(
        Conv2d(40, 48, 4, 2, 1, bias=False),
        BatchNorm2d(48),
        nn.LeakyReLU(0.2, True),
        ConvTranspose2d(48, 33, 4, 2, 1, bias=False),
        BatchNorm2d(33),
        nn.ReLU(True),
        Conv2d(33, 40, 3, 1, 1),
    )
    with torch.no_grad():
        for norm in batch_norm.batch_norms(layers):
            norm.weight.copy_(torch.linspace(-0.5, 2.0, norm.num_features))
            norm.bias.copy_(torch.linspace(-1.0, 1.0, norm.num_features))
    return layers.to(memory_format=torch.channels_last)


def gradients(layers: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Result, gradients and statistics."""
    leaf = x.detach().clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = layers(leaf)
    slopes = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    (out.float() * slopes).sum().backward()
    parameters = {name: one.grad for name, one in layers.named_parameters()}
    return {"out": out.detach(), "input": leaf.grad, **parameters, **dict(layers.named_buffers())}


@needs_units
def test_gradients_are_not_read_for_their_sums() -> None:
    layers, x = chain(), maps().requires_grad_()
    with Called() as mode:
        with torch.autocast("cpu", torch.bfloat16):
            out = layers(x)
        out.sum().backward()
    assert [name for name in mode.names if "track" not in name] == [
        "conv2d_moments_bf16",
        "batch_norm_act",
        "conv_transpose2d_moments_bf16",
        "batch_norm_act",
        "conv2d_bf16",
        "conv_transpose2d_norm_sums_bf16",
        "batch_norm_act_backward",
        "conv2d_weight_bf16",
        "batch_norm_moments",  # of the gradient, for the last bias
        "conv2d_norm_sums_bf16",
        "batch_norm_act_backward",
        "conv2d_weight_bf16",
        "conv_transpose2d_bf16",
        "conv2d_weight_bf16",
    ]


@needs_units
def test_one_function_gives_what_two_give(monkeypatch) -> None:
    found = gradients(chain(), maps())
    monkeypatch.setattr(batch_norm, "layer_of", lambda *_: None)
    expected = gradients(chain(), maps())
    assert found.keys() == expected.keys()
    for name, one in found.items():
        two = expected[name].double()
        assert one.dtype == expected[name].dtype
        assert (one.double() - two).norm() <= 2e-3 * two.norm(), name


@needs_units
def test_only_what_is_due_is_computed() -> None:
    layers = chain().requires_grad_(False)
    found = gradients(layers, maps())
    assert all(found[name] is None for name, _ in layers.named_parameters())
    torch.testing.assert_close(found["input"], gradients(chain(), maps())["input"])
    layers[3].weight.requires_grad_()
    with Called() as mode, torch.autocast("cpu", torch.bfloat16):
        layers(maps()).sum().backward()
    behind = mode.names[mode.names.index("conv2d_bf16") + 1 :]
    assert "conv2d_norm_sums_bf16" not in behind  # below the layer that is trained
    assert layers[3].weight.grad is not None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert not layers(maps()).requires_grad


@needs_units
def test_second_derivatives(monkeypatch) -> None:
    """The gradient by the weights of the squared gradient by the maps."""

    def penalised(layers: nn.Module) -> list[Tensor]:
        x = maps().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = layers(x).float().tanh().sum()
        (gradient,) = torch.autograd.grad(out, x, create_graph=True)
        gradient.float().square().sum().backward()
        return [gradient, x.grad, *(one.grad for one in layers.parameters())]

    found = penalised(chain())
    monkeypatch.setattr(batch_norm, "layer_of", lambda *_: None)
    expected = penalised(chain())
    for one, two in zip(found, expected, strict=True):
        assert (one is None) == (two is None)
        if two is not None:
            assert (one.double() - two.double()).norm() <= 0.02 * two.double().norm() + 1e-6


@needs_units
@pytest.mark.parametrize("alike", [True, False])
def test_ranks_share_sums_and_moments(alike) -> None:
    """Two ranks make of their halves what one makes of all, also where only one fuses layers."""
    whole = gradients(chain(), maps())
    parts = maps().chunk(2)
    slopes = torch.randn(18, 40, 8, 8, generator=torch.Generator().manual_seed(2)).chunk(2)
    networks = [chain() for _ in parts]
    if not alike:
        for layer in networks[1]:
            layer.register_forward_hook(lambda *_: None)

    def work(seat: Seat) -> Tensor:
        layers = networks[seat.rank]
        share(layers, seat)
        leaf = parts[seat.rank].contiguous(memory_format=torch.channels_last).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = layers(leaf)
        (out.float() * slopes[seat.rank]).sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    found = torch.cat(Threads(2).run(work)).double()
    assert (found - whole["input"].double()).norm() <= 0.02 * whole["input"].double().norm()
    for name, _ in networks[0].named_parameters():
        summed = sum(layers.get_parameter(name).grad.double() for layers in networks)
        assert (summed - whole[name].double()).norm() <= 0.02 * whole[name].double().norm(), name
    for name, buffer in networks[1].named_buffers():
        torch.testing.assert_close(buffer, whole[name], rtol=1e-4, atol=1e-5)


class Talk:
    """`Peers` of one rank who note what they exchange."""

    count, rank = 1, 0

    def __init__(self) -> None:
        self.said: list[tuple[str, torch.Size]] = []

    def gather(self, values: Tensor) -> Tensor:
        self.said.append(("gather", values.shape))
        return values[None]

    def sum(self, values: Tensor) -> Tensor:
        self.said.append(("sum", values.shape))
        return values.clone()


@needs_units
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_ranks_say_the_same_however_their_layers_are_computed(monkeypatch, again, frozen) -> None:
    """Each rank times its convolutions by itself, so the next may have chosen otherwise."""

    def said() -> list[tuple[str, torch.Size]]:
        layers, peers, x = chain(), Talk(), maps().requires_grad_()
        layers.requires_grad_(not frozen)
        share(layers, peers)
        with torch.autocast("cpu", torch.bfloat16):
            out = layers(x).float().tanh().sum()
        if again:
            (gradient,) = torch.autograd.grad(out, x, create_graph=True)
            out = out + gradient.float().square().sum()
        out.backward()
        return peers.said

    found = said()
    assert len(found) >= 4
    monkeypatch.setattr(batch_norm, "layer_of", lambda *_: None)
    assert said() == found
    monkeypatch.setattr(conv_choice, "_MODE", "stock")
    assert said() == found


@needs_units
@pytest.mark.parametrize("place", [1, 3])
def test_who_looks_at_a_layer_sees_its_call_between_others(place) -> None:
    ways = {
        "forward": lambda layer, see: layer.register_forward_hook(see),
        "forward_pre": lambda layer, see: layer.register_forward_pre_hook(see),
        "backward": lambda layer, see: layer.register_full_backward_hook(see),
        "backward_pre": lambda layer, see: layer.register_full_backward_pre_hook(see),
        "of all": lambda layer, see: nn.modules.module.register_module_forward_hook(
            lambda module, *_: see(module) if module is layer else None
        ),
    }
    for name, register in ways.items():
        layers, seen = chain(), []
        handle = register(layers[place], lambda *_: seen.append(1))  # noqa: B023  called at once
        with torch.autocast("cpu", torch.bfloat16):
            layers(maps().requires_grad_()).sum().backward()
        handle.remove()
        assert seen == [1], name


@needs_units
def test_a_norm_reads_what_somebody_changes_before_it() -> None:
    layers = network()
    layers[1].register_forward_pre_hook(lambda _, given: (given[0] * 3 + 1, *given[1:]))
    with torch.autocast("cpu", torch.bfloat16):
        out = layers(maps()).float()
    back = torch.where(out < 0, out / 0.2, out)  # through the activation
    torch.testing.assert_close(back.mean((0, 2, 3)), torch.zeros(48), rtol=0, atol=1e-2)
    torch.testing.assert_close(back.var((0, 2, 3)), torch.ones(48), rtol=2e-2, atol=0)


def test_a_parametrized_convolution_is_computed_once_a_call() -> None:
    """Spectral norm takes a step of its power iteration each time its weight is looked at."""
    torch.manual_seed(4)
    ours = Sequential(BatchNorm2d(4), nn.ReLU(), Conv2d(4, 6, 3))
    nn.utils.parametrizations.spectral_norm(ours[2])
    theirs = nn.Sequential(*copy.deepcopy(ours))
    x = torch.randn(3, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    ours(x), theirs(x)
    for name, one in ours.state_dict().items():
        torch.testing.assert_close(one, theirs.state_dict()[name], rtol=1e-4, atol=1e-5)


@needs_units
@pytest.mark.parametrize("activation", [None, nn.ReLU])
def test_a_norm_without_parameters(monkeypatch, activation) -> None:
    def layers() -> Sequential:
        torch.manual_seed(5)
        middle = [] if activation is None else [activation()]
        norm = BatchNorm2d(40, affine=False)
        return Sequential(norm, *middle, Conv2d(40, 33, 3, 1, 1)).to(
            memory_format=torch.channels_last
        )

    x = torch.randn(18, 33, 8, 8)  # the shape of the result
    found, out = called(layers(), maps()), gradients_of(layers(), x)
    assert found[0] == "batch_norm_moments"
    monkeypatch.setattr(batch_norm, "layer_of", lambda *_: None)
    for one, two in zip(out, gradients_of(layers(), x), strict=True):
        assert (one.double() - two.double()).norm() <= 2e-3 * two.double().norm()


def gradients_of(layers: nn.Module, slopes: Tensor) -> list[Tensor]:
    """Result and gradients, of the input as well."""
    leaf = maps().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = layers(leaf)
    (out.float() * slopes).sum().backward()
    assert leaf.grad is not None
    return [out.detach(), leaf.grad, *(one.grad for one in layers.parameters())]
