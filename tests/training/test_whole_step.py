"""A whole step as one function of tensors, run as it is: the same bits as the eager step.

Of every recipe `test_recorded_step.py` shows it, whose first steps are run so.
"""

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from small_steps import assert_same_bits, inputs_of, parts_of, state_of, whole_of
from torch import Tensor, nn

from pokegan.config import RunConfig
from pokegan.networks.spectral_norm import spectral_norms
from pokegan.training.compiled_step import CompiledStep, Runner
from pokegan.training.recorded_step import RecordedStep
from pokegan.training.step import StepRefusedError
from pokegan.training.whole_step import WholeStep, WholeSteps

Narrow = Callable[..., RunConfig]


def as_it_is(whole: WholeStep) -> CompiledStep:
    return CompiledStep(Runner(whole, backend=None))


@pytest.mark.parametrize("made", [as_it_is, RecordedStep])
@pytest.mark.parametrize("recipe", ["hpml", "gan-pokemon-sngan"])
def test_modes_take_turns(
    narrow: Narrow, recipe: str, made: Callable[[WholeStep], WholeSteps]
) -> None:
    """A run resumed in another mode: optimisers, spectral norms and noise go on where they were."""
    config = narrow(recipe)
    eager, mixed = parts_of(config), parts_of(config)
    step = made(whole_of(mixed))
    for number in range(12):
        eager.step(inputs_of(eager, 4, number), number)
        run = step if number % 3 else mixed.step
        run(inputs_of(mixed, 4, number), number)
    assert_same_bits(state_of(eager), state_of(mixed))


def test_a_loaded_state_is_taken_up(narrow: Narrow) -> None:
    config = narrow("gan-pokemon-sngan")
    parts = parts_of(config)
    step = as_it_is(whole_of(parts))
    step(inputs_of(parts, 4, 0), 0)
    saved = {
        name: copy.deepcopy((network.state_dict(), parts.optimizers[name].state_dict()))
        for name, network in parts.networks.items()
    }
    step(inputs_of(parts, 4, 1), 1)
    wanted = state_of(parts)
    for name, (network, optimizer) in saved.items():
        parts.networks[name].load_state_dict(network)
        parts.optimizers[name].load_state_dict(optimizer)
    step(inputs_of(parts, 4, 1), 1)
    assert_same_bits(wanted, state_of(parts))


@pytest.mark.parametrize("exact", [False, True])
def test_an_abandoned_step_leaves_spectral_norms_that_work(narrow: Narrow, exact: bool) -> None:
    parts = parts_of(narrow("gan-pokemon-sngan"))
    discriminator = parts.networks["discriminator"]
    for norm in spectral_norms(discriminator):
        norm.exact = exact
    whole = whole_of(parts)
    whole.prepare(0)
    whole.abandon()
    discriminator.eval()
    pictures = inputs_of(parts, 4, 0).real
    wanted = copy.deepcopy(discriminator)(pictures)  # a copy finds sigma itself
    torch.testing.assert_close(discriminator(pictures), wanted)


class Norms:
    """The Euclidean norms of the gradients that it is shown, in the order of its calls."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, list[float]]] = []

    def observe(self, name: str, network: nn.Module) -> None:
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        self.seen.append((name, [float(gradient.norm()) for gradient in gradients]))


def test_an_observer_sees_the_eager_gradients(narrow: Narrow) -> None:
    config = narrow("gan-pokemon-sngan", {"objective.r1": 1.0, "objective.r1_every": 2})
    eager, whole = parts_of(config), parts_of(config)
    step = as_it_is(whole_of(whole))
    seen = Norms(), Norms()
    for number in range(2):
        eager.step(inputs_of(eager, 4, number), number, seen[0])
        step(inputs_of(whole, 4, number), number, seen[1])
    assert [name for name, _ in seen[0].seen] == [
        *("discriminator", "generator"),
        *("discriminator", "discriminator", "generator"),
    ]
    assert seen[0].seen == seen[1].seen
    assert all(p.grad is None for p in whole.networks["discriminator"].parameters())


@pytest.mark.parametrize("backend", [None, "aot_eager"])
def test_gradients_are_reduced_before_the_update(narrow: Narrow, backend: str | None) -> None:
    """Halving them where the optimiser's step is in proportion changes the step by half."""
    calls: list[tuple[str, int]] = []

    def halve(name: str, gradients: Sequence[Tensor]) -> None:
        calls.append((name, len(gradients)))
        torch._foreach_mul_(list(gradients), 0.5)

    moved = []
    for reduce in (None, halve):
        parts = parts_of(narrow("house-dcgan"))
        for optimizer in parts.optimizers.values():
            optimizer.param_groups[0].update(betas=(0.0, 0.0), eps=1e6, lr=1e6)
        before = [p.detach().clone() for p in parts.networks["discriminator"].parameters()]
        step = CompiledStep(Runner(whole_of(parts, reduce=reduce), backend))
        step(inputs_of(parts, 4, 0), 0)
        after = parts.networks["discriminator"].parameters()
        moved.append([p.detach() - q for p, q in zip(after, before, strict=True)])
    for all_of_it, half in zip(*moved, strict=True):
        torch.testing.assert_close(half, 0.5 * all_of_it, rtol=1e-3, atol=1e-7)
    counts = {n: len(list(net.parameters())) for n, net in parts.networks.items()}
    assert calls == [(name, counts[name]) for name in ("discriminator", "generator")]


def test_another_optimiser_is_refused(narrow: Narrow) -> None:
    parts = parts_of(narrow("house-dcgan"))
    weights = parts.networks["generator"].parameters()
    parts.optimizers["generator"] = torch.optim.SGD(weights, lr=0.1)
    with pytest.raises(StepRefusedError, match="SGD"):
        whole_of(parts)
