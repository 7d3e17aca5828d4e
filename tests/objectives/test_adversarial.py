"""The objective: what its phases compute, see and record, with penalties and augmentation."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pokegan.networks.dcgan import DCGANDiscriminator
from pokegan.objectives.adversarial import AdversarialObjective
from pokegan.objectives.losses import LOSSES, adversarial_loss
from pokegan.objectives.penalties import (
    R1,
    R2,
    Consistency,
    GradientPenalty,
    Penalty,
    gradient_penalty,
)
from pokegan.objectives.phases import StepInput
from pokegan.objectives.settings import defaults, penalties
from pokegan.ops.random import Stream, normal, uniform
from pokegan.training.step import EagerStep, StepParts

BATCH, LATENT, PIXELS = 6, 4, 12


class Fakes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(LATENT, PIXELS)
        self.runs = 0

    def forward(self, latents: Tensor) -> Tensor:
        self.runs += 1
        return torch.tanh(self.layer(latents)).reshape(-1, 3, 2, 2)


class Critic(nn.Module):
    """Its two views for the consistency term differ by a fixed scale of the hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.last = nn.Linear(PIXELS, 8), nn.Linear(8, 1)
        self.seen: list[Tensor] = []
        self.views = 0

    def forward(self, pictures: Tensor) -> Tensor:
        self.seen.append(pictures.detach())
        return self.last(F.softplus(self.hidden(pictures.flatten(1)))).flatten()

    def logits_and_features(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        self.views += 1
        features = F.softplus(self.hidden(pictures.flatten(1))) * (1 + 0.5 * (self.views % 2))
        return self.last(features).flatten(), features


def latents(samples: Tensor, step: Tensor, phase: str) -> Tensor:
    stream = {"discriminator": Stream.LATENT, "generator": Stream.GENERATOR_LATENT}[phase]
    return normal(1, stream, step, samples, LATENT)


def make(loss: str = "bce", **options) -> AdversarialObjective:
    torch.manual_seed(0)
    return AdversarialObjective(Fakes(), Critic(), latents, adversarial_loss(loss), **options)


def inputs(step: int = 0) -> StepInput:
    samples = torch.arange(BATCH) + BATCH * step
    real = uniform(2, Stream.SAMPLE, step, samples, PIXELS).reshape(BATCH, 3, 2, 2) * 2 - 1
    return StepInput(real, samples, torch.tensor(step))


def fakes_of(objective: AdversarialObjective, phase: str) -> Tensor:
    given = inputs()
    return objective.generator(latents(given.samples, given.step, phase))


def step_of(objective: AdversarialObjective, autocast: bool = False) -> EagerStep:
    networks = {"generator": objective.generator, "discriminator": objective.discriminator}
    optimizers = {
        name: torch.optim.Adam(network.parameters(), lr=1e-3) for name, network in networks.items()
    }
    cpu = torch.device("cpu")
    return EagerStep(StepParts(networks, optimizers, objective.phases(), cpu, autocast))


def gradient_sum(objective: AdversarialObjective, steps: int) -> list[Tensor]:
    """What the phases of `steps` steps on the same pictures add up to at the discriminator."""
    parameters = list(objective.discriminator.parameters())
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for number in range(steps):
        given = inputs()
        for phase in objective.phases():
            if phase.updates == ("discriminator",) and (number + 1) % phase.every == 0:
                loss = phase.loss(given).loss
                gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
                sums = [total + one for total, one in zip(sums, gradients, strict=True)]
    return sums


PENALTIES = [
    functools.partial(GradientPenalty, 3, 10.0),
    functools.partial(R1, 2.0),
    functools.partial(R2, 2.0),
    functools.partial(Consistency, 2.0),
]


@pytest.mark.parametrize("penalty", PENALTIES, ids=["gradient", "r1", "r2", "consistency"])
@pytest.mark.parametrize("share_fakes", [False, True])
def test_a_lazy_penalty_weighs_as_much_as_one_of_every_step(penalty, share_fakes: bool) -> None:
    sums = []
    for every in (1, 4):
        objective = make(penalties=[penalty(every=every)], share_fakes=share_fakes)
        sums.append(gradient_sum(objective, 4))
    without = gradient_sum(make(share_fakes=share_fakes), 4)
    assert not torch.equal(sums[0][0], without[0])
    for one, other in zip(*sums, strict=True):
        torch.testing.assert_close(one, other)


def test_the_phases_of_a_step_in_order() -> None:
    given = [GradientPenalty(0), R1(1.0, every=16), R2(1.0, every=4)]
    phases = make("wgan", penalties=given, weight_clip=0.01, discriminator_steps=5).phases()
    assert [(phase.name, phase.updates, phase.every) for phase in phases] == [
        ("discriminator", ("discriminator",), 1),
        ("penalty/r1", ("discriminator",), 16),
        ("penalty/r2", ("discriminator",), 4),
        ("generator", ("generator",), 5),
    ]
    assert [phase.clip for phase in phases] == [0.01, 0.01, 0.01, None]
    assert phases[-1].frozen == ("discriminator",)


def test_the_phases_without_penalties() -> None:
    phases = make().phases()
    assert [phase.name for phase in phases] == ["discriminator", "generator"]
    assert not any(phase.clip for phase in phases)


def test_the_wgan_gp_loss_is_that_of_its_paper() -> None:
    """Algorithm 1 of arXiv 1704.00028, lines 4 to 8."""
    objective = make("wgan-gp", penalties=[GradientPenalty(9)])
    result = objective.discriminator_loss(inputs())
    critic, real = objective.discriminator, inputs().real
    fake = fakes_of(objective, "discriminator").detach()
    eps = uniform(9, Stream.GRADIENT_PENALTY, 0, torch.arange(BATCH), 1).reshape(-1, 1, 1, 1)
    between = (eps * real + (1 - eps) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty = 10 * ((gradient.square().sum((1, 2, 3)).sqrt() - 1) ** 2).mean()
    wasserstein = critic(fake).mean() - critic(real).mean()
    torch.testing.assert_close(result.loss, wasserstein + penalty)
    torch.testing.assert_close(result.recorded["loss/discriminator"], wasserstein.detach())
    torch.testing.assert_close(result.recorded["penalty/gradient"], penalty.detach())
    parameters = list(critic.parameters())
    ours = torch.autograd.grad(result.loss, parameters, materialize_grads=True)
    theirs = torch.autograd.grad(wasserstein + penalty, parameters, materialize_grads=True)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_what_is_recorded_of_a_penalty_does_not_depend_on_how_often_it_runs() -> None:
    values = []
    for every in (1, 16):
        objective, given, recorded = make(penalties=[R1(2.0, every)]), inputs(), {}
        for phase in objective.phases():
            recorded |= phase.loss(given).recorded
        values.append(recorded["penalty/r1"])
        assert not any(value.requires_grad or value.dim() for value in recorded.values())
    assert torch.equal(*values)
    assert values[0] > 0


@pytest.mark.parametrize("name", LOSSES)
def test_the_scores_are_of_the_networks_before_and_after_the_discriminators_update(
    name: str,
) -> None:
    objective = make(name)
    step, critic = step_of(objective), objective.discriminator

    def score(pictures: Tensor) -> Tensor:
        logits = critic(pictures)
        return (logits.sigmoid() if name in ("bce", "smooth-bce") else logits).mean()

    with torch.no_grad():
        before = score(inputs().real), score(fakes_of(objective, "discriminator"))
        seen = fakes_of(objective, "generator")
    recorded = step(inputs(), 0)
    with torch.no_grad():
        after = score(seen)  # the generator has changed since, its pictures have not
    torch.testing.assert_close(recorded["score/real"], before[0])
    torch.testing.assert_close(recorded["score/fake"], before[1])
    torch.testing.assert_close(recorded["score/fake_after"], after)
    assert set(recorded) == {
        "loss/discriminator",
        "loss/generator",
        "score/real",
        "score/fake",
        "score/fake_after",
    }


SHIFTS = {"real": 0.25, "fake": -0.5, "generator": 3.0}


@pytest.mark.parametrize("loss", ["wgan-gp", "ragan"])
@pytest.mark.parametrize("every", [1, 2])
def test_the_discriminator_sees_augmented_pictures_only(loss: str, every: int) -> None:
    calls = []

    def shift(pictures: Tensor, step: Tensor, samples: Tensor, role: str) -> Tensor:
        calls.append((role, step.item(), samples.tolist()))
        return pictures + SHIFTS[role]

    objective = make(loss, augment=shift, penalties=[GradientPenalty(4, every=every)])
    given, critic = inputs(3), objective.discriminator
    results = {phase.name: phase.loss(given) for phase in objective.phases()}
    place = (3, given.samples.tolist())
    again = [("real", *place)] if loss == "ragan" else []
    assert sorted(calls) == sorted(
        [("fake", *place), ("real", *place), ("generator", *place), *again]
    )
    real = given.real + SHIFTS["real"]
    fake = objective.generator(latents(given.samples, given.step, "discriminator")) - 0.5
    mix = uniform(4, Stream.GRADIENT_PENALTY, 3, given.samples, 1)[:, 0]
    expected = 10 * gradient_penalty(critic, real, fake, mix)
    recorded = {name: v for one in results.values() for name, v in one.recorded.items()}
    torch.testing.assert_close(recorded["penalty/gradient"], expected.detach())
    torch.testing.assert_close(critic.seen[0], real)
    pictures = objective.generator(latents(given.samples, given.step, "generator"))
    expected = adversarial_loss(loss).generator(critic(pictures + 3), critic(real).detach())
    torch.testing.assert_close(results["generator"].loss, expected)


def test_the_generators_gradient_passes_through_augmentation() -> None:
    gradients = []
    for scale in (1.0, -1.0):
        objective = make("wgan", augment=lambda x, step, samples, role, s=scale: s * x)
        objective.discriminator.hidden = nn.Identity()  # D(x) = w . softplus(x)
        objective.discriminator.last = nn.Linear(PIXELS, 1)
        nn.init.ones_(objective.discriminator.last.weight)
        loss = objective.generator_loss(inputs()).loss
        gradients.append(torch.autograd.grad(loss, objective.generator.layer.bias)[0])
    # softplus rises, so brighter pictures please this critic, and negated ones the other way.
    assert (gradients[0] < 0).all()
    assert (gradients[1] > 0).all()


def test_shared_fakes_serve_a_lazy_penalty_too() -> None:
    objective = make(share_fakes=True, penalties=[R2(1.0, every=2)])
    step = step_of(objective)
    for number in range(4):
        step(inputs(number), number)
    assert objective.generator.runs == 4


def every_penalty(name: str) -> list[Penalty]:
    return penalties(defaults(name), 0) or [R1(1.0, every=2), Consistency(every=2)]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("autocast", [False, True])
def test_every_loss_trains_both_networks(name: str, autocast: bool) -> None:
    implied = defaults(name)
    objective = make(
        name, penalties=every_penalty(name), discriminator_steps=implied.discriminator_steps
    )
    step = step_of(objective, autocast)
    networks = objective.generator, objective.discriminator
    before = [parameter.clone() for network in networks for parameter in network.parameters()]
    recorded: dict[str, Tensor] = {}
    for number in range(2 * implied.discriminator_steps):
        recorded |= step(inputs(number), number)
    assert all(torch.isfinite(value) for value in recorded.values())
    assert all(value.dtype == torch.float32 for value in recorded.values())
    after = [parameter for network in networks for parameter in network.parameters()]
    # Losses that only count differences have no pull on the last one, the critic's last bias.
    for index, (old, new) in enumerate(zip(before[:-1], after[:-1], strict=True)):
        assert not torch.equal(old, new), index


@pytest.mark.parametrize("norm", ["spectral", "instance", "batch"])
@pytest.mark.parametrize("every", [1, 2])
def test_second_order_gradients_agree_whatever_autocast_is_around(norm: str, every: int) -> None:
    """A convolutional critic in channels-last memory, beside a forward pass in bfloat16."""
    gradients = []
    for autocast in (False, True):
        torch.manual_seed(0)
        critic = DCGANDiscriminator(8, (8,), norm=norm, norm_first=norm == "batch")
        critic.to(memory_format=torch.channels_last)
        objective = AdversarialObjective(
            lambda z: torch.zeros(BATCH, 3, 8, 8),
            critic,
            latents,
            adversarial_loss("r3gan"),
            penalties=[R1(500.0, every)],
        )
        given = StepInput(uniform(1, Stream.SAMPLE, 0, torch.arange(BATCH), 192), *place())
        given.real = given.real.reshape(BATCH, 3, 8, 8)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            losses = [phase.loss(given).loss for phase in objective.phases()[:-1]]
        sum(losses).backward()
        gradients.append([parameter.grad for parameter in critic.parameters()])
    for exact, rounded in zip(*gradients, strict=True):
        assert (exact - rounded).norm() <= 0.02 * exact.norm() + 1e-6


def test_a_compiled_loss_with_penalties_gives_the_eager_gradients() -> None:
    torch.manual_seed(0)
    critic = DCGANDiscriminator(8, (8,), norm="instance", norm_first=True)
    objective = AdversarialObjective(
        nn.Sequential(nn.Linear(LATENT, 192), nn.Unflatten(1, (3, 8, 8))),
        critic,
        latents,
        adversarial_loss("wgan-gp"),
        penalties=[GradientPenalty(0), R1(1.0)],
    )
    real = uniform(1, Stream.SAMPLE, 0, torch.arange(BATCH), 192).reshape(BATCH, 3, 8, 8)
    results = []
    for loss in (
        objective.discriminator_loss,
        torch.compile(objective.discriminator_loss, backend="aot_eager"),
    ):
        loss(StepInput(real, *place())).loss.backward()
        results.append([parameter.grad for parameter in critic.parameters()])
        critic.zero_grad(set_to_none=True)
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled)


def place() -> tuple[Tensor, Tensor]:
    return torch.arange(BATCH), torch.tensor(0)


def test_a_critic_with_r1_stays_on_the_ground_where_one_without_does_not() -> None:
    """The gradient on reals after training with R1 is smaller: the penalty acts as it should."""
    slopes = []
    for given in ([], [R1(10.0)]):
        objective = make("r3gan", penalties=given)
        step = step_of(objective)
        for number in range(60):
            step(inputs(number), number)
        real = inputs().real.requires_grad_()
        (slope,) = torch.autograd.grad(objective.discriminator(real).sum(), real)
        slopes.append(slope.square().sum().item())
    assert slopes[1] < slopes[0]
