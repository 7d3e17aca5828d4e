"""The spectral norm of a whole network: against PyTorch's, and what is shared when."""

import copy
import dataclasses

import pytest
import torch
from small_steps import inputs_of
from torch import nn
from torch.nn.utils import parametrizations
from torch.profiler import ProfilerActivity, profile

from pokegan.config import NetworkConfig, RunConfig, override
from pokegan.data.packed import PackedImages
from pokegan.errors import ConfigError
from pokegan.networks import spectral_norm, spectral_state
from pokegan.networks.spectral_norm import spectral_norm_, spectral_norms
from pokegan.networks.spectral_state import from_torch_state, to_torch_state
from pokegan.ops import spectral_norm as operators
from pokegan.ops import status
from pokegan.training.build import build

PICTURES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(9))


def plain() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return nn.Sequential(
            nn.Conv2d(3, 8, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(8, 6, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(6 * 64, 5),
        )


def ours(**options) -> nn.Module:
    return spectral_norm_(plain(), generator=torch.Generator().manual_seed(1), **options)


def torchs(iterations: int = 1) -> nn.Module:
    network = plain()
    for layer in network:
        if hasattr(layer, "weight"):
            parametrizations.spectral_norm(layer, n_power_iterations=iterations)
    return network


def vectors(network: nn.Module) -> list[torch.Tensor]:
    return [value.clone() for name, value in network.named_buffers() if name.endswith(("_u", "_v"))]


def equal(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("iterations", [1, 2])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_exact_equals_pytorch_over_several_steps(iterations, memory) -> None:
    theirs = torchs(iterations)
    networks = [theirs, ours(exact=True, iterations=iterations)]
    networks[1].load_state_dict(from_torch_state(theirs.state_dict()))
    optimizers = []
    for network in networks:
        network.to(memory_format=memory)
        optimizers.append(torch.optim.SGD(network.parameters(), 0.1, momentum=0.9))
    for _ in range(5):
        for network in networks:
            loss = network(PICTURES).square().mean() - network(-PICTURES).mean()
            loss.backward()
        for one, two in zip(*(network.parameters() for network in networks), strict=True):
            torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-6)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    expected = theirs.state_dict()
    for name, value in to_torch_state(networks[1].state_dict()).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=2e-6, msg=name)
    for network in networks:
        network.eval()
    torch.testing.assert_close(networks[0](PICTURES), networks[1](PICTURES), rtol=1e-4, atol=1e-6)


def test_the_state_goes_both_ways() -> None:
    network = ours()
    network(PICTURES)
    theirs = torchs()
    theirs.load_state_dict(to_torch_state(network.state_dict()))
    back = ours()
    back.load_state_dict(from_torch_state(theirs.state_dict()))
    assert to_torch_state(back.state_dict()).keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)
        assert torch.equal(back.state_dict()[name], value)
    torch.testing.assert_close(back.eval()(PICTURES), theirs.eval()(PICTURES))


def test_the_older_hooks_state_is_read() -> None:
    old = plain()
    for layer in old:
        if hasattr(layer, "weight"):
            nn.utils.spectral_norm(layer)
    network = ours()
    network.load_state_dict(from_torch_state(old.state_dict()))
    outs = network.eval()(PICTURES), old.eval()(PICTURES)
    torch.testing.assert_close(*outs, rtol=1e-4, atol=1e-5)


def test_one_iteration_and_one_weight_a_version() -> None:
    network = ours()
    before = vectors(network)
    network(PICTURES)
    first, weight = vectors(network), network[0].weight
    assert not equal(before, first)
    network(-PICTURES)
    assert equal(first, vectors(network))
    assert network[0].weight is weight
    with torch.no_grad():
        network[5].parametrizations.weight.original.mul_(2)
    network(PICTURES)
    assert not equal(first, vectors(network))
    assert network[0].weight is not weight


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("together", [True, False])
def test_gradients_of_two_passes_add_up(monkeypatch, together, reference) -> None:
    if reference:
        monkeypatch.setattr(operators, "_is_compiled", lambda weights: False)
    network, theirs = ours(), torchs()
    theirs.load_state_dict(to_torch_state(network.state_dict()))
    network(PICTURES)
    theirs.load_state_dict(to_torch_state(network.state_dict()))
    theirs.eval()  # the same vectors for both of its passes
    for one in (network, theirs):
        losses = [one(PICTURES).square().mean(), one(-PICTURES).mean()]
        for loss in [sum(losses)] if together else losses:
            loss.backward()
        one(PICTURES).sum().backward()  # and a third, after backward has run
    for one, two in zip(network.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-5)


def test_frozen_weights_get_no_gradient_and_thawed_ones_do() -> None:
    network = ours().requires_grad_(False)
    pictures = PICTURES.clone().requires_grad_()
    network(pictures).sum().backward()
    assert not network[0].weight.requires_grad
    assert pictures.grad is not None
    after = vectors(network)
    network.requires_grad_(True)
    network(PICTURES).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    with torch.no_grad():
        assert not network[0].weight.requires_grad
    with torch.inference_mode():
        network(PICTURES)
    network[0].parametrizations.weight.original.requires_grad_(False)
    assert not network[0].weight.requires_grad
    assert network[5].weight.requires_grad
    assert equal(after, vectors(network))  # the same version all along


@pytest.mark.parametrize("reference", [False, True])
def test_a_forward_in_inference_mode_leaves_a_second_derivative_possible(
    monkeypatch, reference
) -> None:
    if reference:
        monkeypatch.setattr(operators, "_is_compiled", lambda weights: False)
    gradients = []
    for network in (ours(), ours()):
        with torch.inference_mode(mode=not gradients):
            network(PICTURES)
        parameters = list(network.parameters())
        loss = network(PICTURES).square().mean()
        first = torch.autograd.grad(loss, parameters, create_graph=True)
        sum(one.square().sum() for one in first).backward()
        gradients.append([parameter.grad for parameter in parameters])
    torch.testing.assert_close(*gradients)


def test_evaluation_iterates_never_and_follows_the_weights() -> None:
    network = ours().eval()
    before = vectors(network)
    network(PICTURES)
    with torch.no_grad():
        network[0].parametrizations.weight.original.mul_(3)
    weight = network[0].weight.clone()
    network(PICTURES)
    assert equal(before, vectors(network))
    with torch.no_grad():
        network[0].parametrizations.weight.original.div_(3)
    torch.testing.assert_close(network[0].weight, weight)  # a scale is divided out
    network.train()(PICTURES)
    assert not equal(before, vectors(network))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.SGD])
def test_an_optimisers_step_ends_a_version(make, fused) -> None:
    network = ours()
    for one in (network, copy.deepcopy(network)):
        optimizer = make(one.parameters(), 1e-2, fused=fused)
        one(PICTURES).square().mean().backward()
        before, weight = vectors(one), one[0].weight.detach().clone()
        optimizer.step()
        one(PICTURES)
        assert not equal(before, vectors(one))
        assert not torch.equal(weight, one[0].weight)


def test_what_ends_a_version() -> None:
    network = ours()
    network(PICTURES)
    for change in (
        lambda: network.load_state_dict(to_torch_state(network.state_dict())),
        lambda: network.double(),
        lambda: spectral_norms(network)[0].forget(),
    ):
        before = vectors(network)
        change()
        network(PICTURES.to(network[0].bias.dtype))
        assert not equal([one.double() for one in before], [o.double() for o in vectors(network)])
    assert network[0].weight.dtype == torch.float64


def test_a_loaded_state_goes_on_where_it_was() -> None:
    network, other = ours(), ours()
    network(PICTURES)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(PICTURES), network(PICTURES))
    assert equal(vectors(other), vectors(network))


def test_a_copy_is_independent() -> None:
    network = ours()
    expected = network(PICTURES)
    other = copy.deepcopy(network)
    with torch.no_grad():
        other[0].parametrizations.weight.original.mul_(-1)
    assert not torch.equal(other(PICTURES), expected)
    assert torch.equal(network(PICTURES), expected)
    assert spectral_norms(other)[0] is not spectral_norms(network)[0]


def test_the_start_is_counted() -> None:
    torch.manual_seed(7)
    one = vectors(ours())
    torch.manual_seed(8)
    assert equal(one, vectors(ours()))


def test_bfloat16_inside_autocast() -> None:
    network, exact = ours(), ours()
    with torch.autocast("cpu", torch.bfloat16):
        out = network(PICTURES)
        assert network[0].weight.dtype == torch.bfloat16
    assert network[0].weight.dtype == torch.float32
    expected = exact(PICTURES)
    assert equal(vectors(network), vectors(exact))
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)
    out.float().square().mean().backward()
    expected.square().mean().backward()
    for one, two in zip(network.parameters(), exact.parameters(), strict=True):
        assert one.grad.dtype == torch.float32
        torch.testing.assert_close(one.grad, two.grad, rtol=0.1, atol=0.02)


def test_compiled_in_one_graph_it_iterates_at_every_forward() -> None:
    network, eager = ours(), ours(exact=True)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        outs = compiled(PICTURES), eager(PICTURES)
        torch.testing.assert_close(*outs)
        for out in outs:
            out.square().mean().backward()
    for one, two in zip(network.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)
    torch.testing.assert_close(vectors(network), vectors(eager))


@pytest.mark.parametrize("exact", [False, True])
def test_what_is_captured_is_shared_with_nobody(monkeypatch, exact) -> None:
    network, eager = ours(exact=exact), ours(exact=True)
    used = []
    network[0].register_forward_hook(lambda layer, *_: used.append(layer.weight))
    torch.testing.assert_close(network(PICTURES), eager(PICTURES))
    with monkeypatch.context() as patch:
        for place in (spectral_norm, spectral_state):
            patch.setattr(place, "is_captured", lambda weight: True)
        for _ in range(2):  # two captures, and no change of the weights
            torch.testing.assert_close(network(PICTURES), eager(PICTURES))
            torch.testing.assert_close(vectors(network), vectors(eager))
        used += [network[0].weight for _ in range(2)]  # a layer by itself
        with torch.no_grad():
            used += [network.eval()[0].weight for _ in range(2)]
    network.train()(PICTURES)
    assert len(set(map(id, used))) == len(used) == 8


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_layer_used_before_the_first_forward_of_a_step(exact, training) -> None:
    """As by `logits_and_features`, which no hook of the network sees."""
    network, eager = ours(exact=exact).train(training), ours(exact=exact).train(training)
    (norm,) = spectral_norms(network)
    norm.enter_step()
    norm.begin_step()
    torch.testing.assert_close(network[0].weight, eager[0].weight)
    torch.testing.assert_close(network(PICTURES), eager(PICTURES))
    norm.end_step()
    norm.leave_step(norm.left)
    torch.testing.assert_close(network[0].weight, eager[0].weight)
    torch.testing.assert_close(vectors(network), vectors(eager))


@pytest.mark.parametrize("exact", [False, True])
def test_a_step_that_uses_no_layer_leaves_a_norm_that_works(exact) -> None:
    network, eager = ours(exact=exact), ours(exact=exact)
    (norm,) = spectral_norms(network)
    norm.enter_step()
    norm.begin_step()
    norm.end_step()
    norm.leave_step(norm.left)
    for one in (network, eager):
        one(PICTURES) if not exact else one[0].weight
        one.eval()
    torch.testing.assert_close(network(PICTURES), eager(PICTURES))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"iterations": 0}, "iterations must be at least 1"), ({"eps": 0.0}, "eps must be positive")],
)
def test_a_wrong_option_is_named(options, words) -> None:
    with pytest.raises(ConfigError, match=words):
        ours(**options)


def test_nothing_to_normalise_or_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="no convolution"):
        spectral_norm_(nn.Sequential(nn.ReLU()))
    with pytest.raises(ConfigError, match="already"):
        spectral_norm_(ours())


@pytest.mark.skipif(not status().cpu, reason=f"no extension: {status().cpu_reason}")
@pytest.mark.parametrize("share", [True, False])
def test_operators_in_a_whole_training_step(tiny: RunConfig, share: bool) -> None:
    """At most 6 of the norm's own, where PyTorch launches about 60 for each layer."""
    options = {**tiny.discriminator.options, "norm": "spectral"}
    config = override(
        dataclasses.replace(tiny, discriminator=NetworkConfig("dcgan", options)),
        {"objective.share_fakes": share},
    )
    parts = build(config, PackedImages.open(config.data.source))

    def step(number: int) -> None:
        parts.step(inputs_of(parts, 8, number), number)

    step(0)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step(1)
    counts = {e.key: e.count for e in profiler.key_averages() if e.key.startswith("pokegan::spe")}
    assert counts == {
        "pokegan::spectral_iterate": 1,
        "pokegan::spectral_scale": 2,
        "pokegan::spectral_scale_backward": 1,
    }
