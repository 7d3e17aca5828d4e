"""Growing: the new network starts as the old one, carries its weights, fades or freezes them."""

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pokegan.errors import ConfigError
from pokegan.networks.layers import NORMS
from pokegan.networks.noise import CountedNoise, attach
from pokegan.networks.pokegan import PokeganDiscriminator, PokeganGenerator
from pokegan.networks.progressive import Growable, grow, without_fade
from pokegan.training.ema import MovingAverage

FINAL = 64


def generator(size: int, **options: object) -> PokeganGenerator:
    channels = (8, 6, 5, 4)
    return PokeganGenerator(size, 7, channels=channels, final_size=FINAL, **options)


def discriminator(size: int, **options: object) -> PokeganDiscriminator:
    channels = (4, 5, 6, 8)
    return PokeganDiscriminator(size, channels=channels, final_size=FINAL, **options)


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def used(network: nn.Module, given: Tensor) -> nn.Module:
    """Give the network running statistics, vectors and norms' weights of its own."""
    random = torch.Generator().manual_seed(6)
    for _ in range(2):
        network(given)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.1 * torch.rand(parameter.shape, generator=random)
    return network


def doubled(pictures: Tensor) -> Tensor:
    """Every pixel repeated 2 x 2 times."""
    return pictures.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def halved(pictures: Tensor) -> Tensor:
    """The means of blocks of 2 x 2 pixels."""
    n, c, h, w = pictures.shape
    return pictures.reshape(n, c, h // 2, 2, w // 2, 2).mean(dim=(3, 5))


def grown_generator(
    size: int = 16, norm: str = "batch", **options: bool
) -> tuple[PokeganGenerator, PokeganGenerator]:
    old = used(generator(size, norm=norm), numbers(4, 7, seed=2))
    new = generator(2 * size, norm=norm)
    grow(old, new, **options)
    return old, new


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [8, 16, 32])
def test_with_alpha_0_the_picture_is_the_old_one_doubled(norm: str, kernel: int, size: int) -> None:
    latents = numbers(4, 7)
    old = used(generator(size, norm=norm, kernel=kernel), numbers(4, 7, seed=2))
    new = generator(2 * size, norm=norm, kernel=kernel)
    grow(old, new, fade=True)
    for network in (old, new):
        network.eval()
    torch.testing.assert_close(new(latents), doubled(old(latents)))


@pytest.mark.parametrize("norm", NORMS)
def test_the_same_holds_in_training_with_dropout(norm: str) -> None:
    old, new = grown_generator(norm=norm, fade=True)
    pictures = []
    for network in (old, new):
        torch.manual_seed(4)  # the same dropout masks
        pictures.append(network(numbers(4, 7)))
    torch.testing.assert_close(pictures[1], doubled(pictures[0]))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [8, 16, 32])
def test_with_alpha_0_a_doubled_picture_is_judged_as_before(norm: str, size: int) -> None:
    pictures = numbers(4, 3, size, size)
    old = used(discriminator(size, norm=norm), numbers(4, 3, size, size, seed=2))
    new = discriminator(2 * size, norm=norm)
    grow(old, new, fade=True)
    for network in (old, new):
        network.eval()
    torch.testing.assert_close(new(doubled(pictures)), old(pictures))
    other = numbers(4, 3, 2 * size, 2 * size)
    torch.testing.assert_close(new(other), old(halved(other)))


@pytest.mark.parametrize("norm", NORMS)
def test_the_same_holds_in_training(norm: str) -> None:
    pictures = numbers(4, 3, 16, 16)
    old = used(discriminator(16, norm=norm, dropout=0.0), numbers(4, 3, 16, 16, seed=2))
    new = discriminator(32, norm=norm, dropout=0.0)
    grow(old, new, fade=True)
    torch.testing.assert_close(new(doubled(pictures)), old(pictures))


@pytest.mark.parametrize("alpha", [0.25, 1.0])
def test_the_generators_mix(alpha: float) -> None:
    old, new = grown_generator(fade=True)
    plain = generator(32)
    plain.load_state_dict(without_fade(new.state_dict()))
    new.set_alpha(alpha)
    for network in (old, new, plain):
        network.eval()
    latents = numbers(4, 7)
    mixed = (1 - alpha) * doubled(old(latents)) + alpha * plain(latents)
    torch.testing.assert_close(new(latents), mixed)


@pytest.mark.parametrize("alpha", [0.25, 1.0])
def test_the_discriminators_mix(alpha: float) -> None:
    old = used(discriminator(16), numbers(4, 3, 16, 16))
    new = discriminator(32)
    grow(old, new, fade=True)
    new.set_alpha(alpha)
    for network in (old, new):
        network.eval()
    pictures = numbers(4, 3, 32, 32)
    after = alpha * new.hidden[0](new.first(pictures)) + (1 - alpha) * old.first(halved(pictures))
    logits = old.linear(old.hidden[0](after).flatten(1))[:, 0]
    torch.testing.assert_close(new(pictures), logits)


@pytest.mark.parametrize("make", [generator, discriminator])
def test_what_has_faded_out_is_not_computed(make: Callable[..., Growable]) -> None:
    old, new = make(16), make(32)
    grow(old, new, fade=True)
    given = numbers(4, 7) if make is generator else numbers(4, 3, 32, 32)
    assert new.fade is not None
    calls: list[nn.Module] = []
    new.fade.layer.register_forward_hook(lambda layer, *_: calls.append(layer))
    for alpha, count in ((0.0, 1), (0.5, 2), (1.0, 2), (0.75, 3), (1.0, 3)):
        new.set_alpha(alpha)
        new(given)
        assert len(calls) == count
    new.load_state_dict(new.state_dict() | {"fade.alpha": torch.tensor(0.5)})
    new(given)
    assert len(calls) == 4


def test_what_is_left_out_changes_no_dropout_behind_it() -> None:
    old, new = discriminator(16, norm="none"), discriminator(32, norm="none")
    grow(old, new, fade=True)
    counted, pictures = CountedNoise(1, 0), numbers(4, 3, 32, 32)
    attach(new, counted)
    assert new.fade is not None
    logits = []
    for over in (False, True):
        counted.begin(torch.tensor(0), torch.arange(4))
        new.set_alpha(1.0)
        new.fade.over = over
        logits.append(new(pictures))
    assert torch.equal(*logits)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("make", [generator, discriminator])
def test_a_finished_network_is_the_plain_one(make: Callable[..., Growable], norm: str) -> None:
    networks = [make(size, norm=norm) for size in (8, 16, 32, 64)]
    for old, new in itertools.pairwise(networks):
        grow(old, new, fade=True)
    final = networks[-1]
    assert any(name.startswith("fade.") for name in final.state_dict())
    kept = without_fade(final.state_dict())
    final.end_fade()
    plain = make(64, norm=norm)
    shapes = [[(k, v.shape) for k, v in state.items()] for state in (kept, plain.state_dict())]
    assert shapes[0] == shapes[1]
    names = [[(k, v.shape) for k, v in one.named_parameters()] for one in (final, plain)]
    assert names[0] == names[1]
    plain.load_state_dict(kept, strict=True)


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_carried_is_carried_exactly(norm: str) -> None:
    generators = [used(generator(16, norm=norm), numbers(4, 7)), generator(32, norm=norm)]
    judges = [
        used(discriminator(16, norm=norm), numbers(4, 3, 16, 16)),
        discriminator(32, norm=norm),
    ]
    pairs = {  # new name: old name
        0: {"linear": "linear", "hidden.0": "hidden.0", "fade.layer": "last"},
        1: {"linear": "linear", "hidden.1": "hidden.0", "fade.layer": "first"},
    }
    for kind, (old, new) in enumerate((generators, judges)):
        before, random = copy.deepcopy(new.state_dict()), torch.get_rng_state()
        grow(old, new, fade=True)
        assert torch.equal(torch.get_rng_state(), random)
        source, state = old.state_dict(), new.state_dict()
        carried = set()
        for here, there in pairs[kind].items():
            for name, value in source.items():
                if name.startswith(f"{there}."):
                    moved = here + name.removeprefix(there)
                    carried.add(moved)
                    if not name.endswith("_sigma"):  # known for the old weights only
                        assert torch.equal(state[moved], value), moved
        assert len(carried) == len(source)
        for name in set(before) - carried:
            assert torch.equal(state[name], before[name]), name
        assert set(state) - carried - set(before) == {"fade.alpha"}
    with torch.no_grad():
        generators[0].linear.bias.fill_(99.0)
    assert not (generators[1].linear.bias == 99).any()  # copies, not views


def inputs_of(module: nn.Module) -> list[Tensor]:
    seen: list[Tensor] = []
    module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    return seen


def test_frozen_layers_give_the_new_ones_the_old_features_in_training_too() -> None:
    old, new = grown_generator(frozen=True)
    old.eval()
    before, after = inputs_of(old.last), inputs_of(new.hidden[-1])
    for network in (old, new):
        network(numbers(4, 7))
    torch.testing.assert_close(after[0], before[0])
    assert new.training
    assert new.fade is None

    judge = used(discriminator(16), numbers(4, 3, 16, 16))
    grown = discriminator(32)
    carried = grow(judge, grown, frozen=True)
    judge.eval()
    maps = numbers(4, 6, 8, 8)  # what the new blocks give
    deep = carried[1](maps)
    torch.testing.assert_close(deep, judge.hidden[0](maps))
    torch.testing.assert_close(carried[0](deep.flatten(1)), judge.linear(deep.flatten(1)))


def test_a_frozen_network_fades_in_like_any_other() -> None:
    old, new = grown_generator(fade=True, frozen=True)
    old.eval()
    torch.testing.assert_close(new(numbers(4, 7)), doubled(old(numbers(4, 7))))
    assert all(parameter.requires_grad for parameter in new.fade.parameters())


@pytest.mark.parametrize("norm", ["batch", "spectral"])
@pytest.mark.parametrize("frozen", [True, False])
def test_steps_change_what_is_not_frozen(norm: str, frozen: bool) -> None:
    generators = [generator(16, norm=norm), generator(32, norm=norm)]
    judges = [discriminator(16, norm=norm), discriminator(32, norm=norm)]
    used(generators[0], numbers(4, 7))
    used(judges[0], numbers(4, 3, 16, 16))
    for old, new in (generators, judges):
        grow(old, new, fade=True, frozen=frozen)
        new.set_alpha(0.5)
    networks = {"g": generators[1], "d": judges[1]}
    fixed = {
        id(p) for one in networks.values() for part in one.carried() for p in part.parameters()
    }
    before = {key: copy.deepcopy(one.state_dict()) for key, one in networks.items()}
    optimizers = []
    for network in networks.values():
        network.train()
        trained = [p for p in network.parameters() if p.requires_grad]
        optimizers.append(torch.optim.Adam(trained, 1e-2))
    for step in range(3):
        loss = networks["d"](networks["g"](numbers(4, 7, seed=step))).square().mean()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    for key, network in networks.items():
        for name, parameter in network.named_parameters():
            same = torch.equal(parameter, before[key][name])
            assert same == (frozen and id(parameter) in fixed), f"{key} {name}"
        statistics = [n for n, _ in network.named_buffers() if "running" in n]
        inner = ("hidden.0.",) if key == "g" else ("hidden.1.",)
        for name in statistics:
            same = torch.equal(network.get_buffer(name), before[key][name])
            assert same == (frozen and name.startswith(inner)), f"{key} {name}"


def test_freezing_survives_eval_and_train() -> None:
    _, new = grown_generator(frozen=True)
    new.eval().train()
    assert not new.hidden[0][1].training
    assert new.hidden[1][1].training


@pytest.mark.parametrize("make", [generator, discriminator])
@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_a_half_faded_network_is_taken_up_from_its_state(
    make: Callable[..., Growable], norm: str
) -> None:
    given = numbers(4, 7) if make is generator else numbers(4, 3, 32, 32)
    new = make(32, norm=norm)
    grow(make(16, norm=norm), new, fade=True, frozen=True)
    new.set_alpha(0.375)
    new(given)
    resumed = make(32, norm=norm)
    resumed.begin_fade()
    resumed.freeze()
    resumed.load_state_dict(new.state_dict())
    assert resumed.fade.alpha == 0.375
    outputs = []
    for network in (new, resumed):
        torch.manual_seed(0)
        outputs.append(network(given))
    assert torch.equal(*outputs)


def test_the_average_grows_too() -> None:
    old = used(generator(16), numbers(4, 7))
    average = MovingAverage(old, 1.0)
    with torch.no_grad():
        for parameter in old.parameters():
            parameter += 1
    new = generator(32)
    grow(old, new, fade=True)
    second = MovingAverage(new, 1.0)
    grow(average.network, second.network, fade=True)
    latents = numbers(4, 7)
    torch.testing.assert_close(second.network(latents), doubled(average.network(latents)))
    assert not second.network.training
    assert not any(parameter.requires_grad for parameter in second.network.parameters())
    second.update(1000, 8)  # the pairs of parameters still fit
    assert torch.equal(new.hidden[1][0].weight, second.network.hidden[1][0].weight)


@pytest.mark.parametrize("make", [generator, discriminator])
def test_the_fade_compiles_without_a_break(make: Callable[..., Growable]) -> None:
    given = numbers(4, 7) if make is generator else numbers(4, 3, 32, 32)
    new = make(32, dropout=0.0)
    grow(make(16, dropout=0.0), new, fade=True)
    compiled = torch.compile(new, fullgraph=True, backend="eager")
    for alpha in (0.0, 0.5):  # the buffer is read, not baked in
        new.set_alpha(alpha)
        torch.testing.assert_close(compiled(given), new(given))


def test_networks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"16 px grows to one of 32 px, not to .* of 64 px"):
        grow(generator(16), generator(64))
    with pytest.raises(ConfigError, match="not to a PokeganDiscriminator"):
        grow(generator(16), discriminator(32))
    with pytest.raises(ConfigError, match=r"layer hidden\.0 .* same options"):
        grow(generator(16, kernel=3), generator(32, kernel=5))
    with pytest.raises(ConfigError, match="same final_size"):
        grow(PokeganGenerator(16, 7, channels=(8, 6, 5, 4)), generator(32))
    with pytest.raises(ConfigError, match="no network of 4 px"):
        generator(8).begin_fade()
