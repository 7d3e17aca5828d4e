"""AEGAN's objective: each term, whom each phase moves, sharing, reconstructions, learning."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from pokegan.errors import ConfigError
from pokegan.networks.aegan import (
    AEGANDiscriminator,
    AEGANEncoder,
    AEGANGenerator,
    AEGANLatentDiscriminator,
)
from pokegan.networks.noise import CountedNoise, attach
from pokegan.objectives.autoencoding import (
    AutoencodingObjective,
    TermWeights,
    reconstruct,
    reconstruction_l1,
)
from pokegan.objectives.phases import StepInput
from pokegan.training.step import EagerStep, StepParts

BATCH, LATENT = 4, 4
Networks = dict[str, nn.Module]
Noises = dict[str, CountedNoise]


def latents(samples: Tensor, step: Tensor, phase: str) -> Tensor:
    """Fixed numbers, others in each phase, step and sample."""
    shift = {"discriminator": 0.1, "generator": 0.7}[phase] + step
    return torch.sin(samples[:, None] * 1.7 + torch.arange(LATENT) * 0.9 + shift).double()


class Pictures(nn.Linear):
    """Latents to [N, 3, 2, 2]."""

    def __init__(self) -> None:
        super().__init__(LATENT, 12)

    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values).tanh().view(-1, 3, 2, 2)


class Logits(nn.Linear):
    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, 1)

    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values.flatten(1)).flatten()


def linear_networks() -> Networks:
    torch.manual_seed(0)
    networks: Networks = {
        "generator": Pictures(),
        "encoder": nn.Sequential(nn.Flatten(), nn.Linear(12, LATENT)),
        "discriminator": Logits(12),
        "latent_discriminator": Logits(LATENT),
    }
    return {name: network.double() for name, network in networks.items()}


def small_networks() -> Networks:
    torch.manual_seed(0)
    networks: Networks = {
        "generator": AEGANGenerator(16, LATENT, (16, 8, 8), colours=4),
        "encoder": AEGANEncoder(16, LATENT, (8, 16)),
        "discriminator": AEGANDiscriminator(16, (8, 16)),
        "latent_discriminator": AEGANLatentDiscriminator(LATENT),
    }
    return {name: network.double() for name, network in networks.items()}


def inputs(size: int = 2, step: int = 0) -> StepInput:
    real = torch.cos(torch.arange(BATCH * 3 * size * size) * 0.37).double()
    return StepInput(real.view(BATCH, 3, size, size), torch.arange(BATCH), torch.tensor(step))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mean_log(logits: Tensor, real: bool) -> float:
    """The mean of -log of the probability that the answer is right."""
    answers = [sigmoid(x) if real else 1 - sigmoid(x) for x in logits.tolist()]
    return sum(-math.log(answer) for answer in answers) / len(answers)


def mean_of(one: Tensor, other: Tensor, power: int) -> float:
    pairs = zip(one.flatten().tolist(), other.flatten().tolist(), strict=True)
    differences = [abs(x - y) ** power for x, y in pairs]
    return sum(differences) / len(differences)


def mean_answer(logits: Tensor) -> float:
    return sum(sigmoid(x) for x in logits.tolist()) / len(logits)


@pytest.mark.parametrize("share", [True, False])
def test_every_term_is_its_formula(share: bool) -> None:
    networks, given = linear_networks(), inputs()
    g, e, dx, dz = networks.values()
    weights = TermWeights(2.0, 0.7, 0.3, 0.9, real=0.6)
    objective = AutoencodingObjective(g, e, dx, dz, latents, weights, share)
    told = objective.discriminator_loss(given)
    moved = objective.generator_loss(given)

    x = given.real
    z_hat, x_tilde = e(x), g(e(x))
    z = latents(given.samples, given.step, "discriminator")
    x_hat, z_tilde = g(z), e(g(z))
    images = 0.6 * mean_log(dx(x), True)
    images += 0.2 * mean_log(dx(x_hat), False) + 0.2 * mean_log(dx(x_tilde), False)
    codes = 0.6 * mean_log(dz(z), True)
    codes += 0.2 * mean_log(dz(z_hat), False) + 0.2 * mean_log(dz(z_tilde), False)
    expected = {
        "loss/discriminator": images,
        "loss/latent_discriminator": codes,
        "score/real": mean_answer(dx(x)),
        "score/fake": mean_answer(dx(x_hat)),
        "score/reconstruction": mean_answer(dx(x_tilde)),
        "score/latent_real": mean_answer(dz(z)),
        "score/latent_fake": mean_answer(dz(z_hat)),
        "score/latent_reconstruction": mean_answer(dz(z_tilde)),
    }
    compare(told.recorded, expected)
    assert told.loss.item() == pytest.approx(images + codes, rel=1e-6)

    if not share:
        z = latents(given.samples, given.step, "generator")
        x_hat, z_tilde = g(z), e(g(z))
    expected = {
        "loss/reconstruction": mean_of(x_tilde, x, 1),
        "loss/latent_reconstruction": mean_of(z_tilde, z, 2),
        "loss/generator": (mean_log(dx(x_hat), True) + mean_log(dx(x_tilde), True)) / 2,
        "loss/encoder": (mean_log(dz(z_hat), True) + mean_log(dz(z_tilde), True)) / 2,
        "score/fake_after": mean_answer(dx(x_hat)),
        "score/reconstruction_after": mean_answer(dx(x_tilde)),
        "score/latent_fake_after": mean_answer(dz(z_hat)),
        "score/latent_reconstruction_after": mean_answer(dz(z_tilde)),
    }
    compare(moved.recorded, expected)
    total = sum(
        weight * expected[f"loss/{name}"]
        for name, weight in (
            ("reconstruction", 2.0),
            ("latent_reconstruction", 0.7),
            ("generator", 0.3),
            ("encoder", 0.9),
        )
    )
    assert moved.loss.item() == pytest.approx(total, rel=1e-6)
    assert not given.shared


def compare(recorded: dict[str, Tensor], expected: dict[str, float]) -> None:
    assert recorded.keys() == expected.keys()
    for name, value in recorded.items():
        assert value.item() == pytest.approx(expected[name], rel=1e-6), name
        assert not value.requires_grad


def test_the_weights_are_the_authors() -> None:
    """alpha 1, 0.5, 0.005, 0.1, and (2 real + made + back) / 4."""
    g, e, dx, dz = linear_networks().values()
    given = inputs()
    objective = AutoencodingObjective(g, e, dx, dz, latents)
    told = objective.discriminator_loss(given)
    moved = objective.generator_loss(given)
    terms = {name: value.item() for name, value in moved.recorded.items()}
    expected = terms["loss/reconstruction"] + 0.5 * terms["loss/latent_reconstruction"]
    expected += 0.005 * terms["loss/generator"] + 0.1 * terms["loss/encoder"]
    assert moved.loss.item() == pytest.approx(expected, rel=1e-6)
    made = [mean_log(dx(g(x)), False) for x in (latents(given.samples, 0, "discriminator"),)]
    made.append(mean_log(dx(g(e(given.real))), False))
    images = (2 * mean_log(dx(given.real), True) + sum(made)) / 4
    assert told.recorded["loss/discriminator"].item() == pytest.approx(images, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [("reconstruction", -0.1), ("generator", math.nan), ("encoder", math.inf), ("real", 1.1)],
)
def test_a_wrong_weight_is_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"weight {name} {value:g}: a number"):
        TermWeights(**{name: value})


def gradients(network: nn.Module) -> list[Tensor | None]:
    return [parameter.grad for parameter in network.parameters()]


def test_each_phase_moves_its_own_networks_and_no_others() -> None:
    networks = small_networks()
    g, e, dx, dz = networks.values()
    told, moved = AutoencodingObjective(g, e, dx, dz, latents).phases()
    assert told.updates == moved.frozen == ("discriminator", "latent_discriminator")
    assert moved.updates == ("generator", "encoder")
    given = inputs(16)
    for phase, still in ((told, moved.updates), (moved, told.updates)):
        for name, network in networks.items():
            network.zero_grad(set_to_none=True)
            network.requires_grad_(name not in phase.frozen)
        phase.loss(given).loss.backward()
        for name in phase.updates:
            assert all(grad is not None for grad in gradients(networks[name]))
            assert sum(grad.abs().sum() for grad in gradients(networks[name])) > 0
        for name in still:
            assert all(grad is None for grad in gradients(networks[name]))


def textbook_step(networks: Networks, given: StepInput, share: bool, counted: Noises) -> None:
    """One step by SGD with every forward run anew where it is needed, and nothing shared."""
    g, e, dx, dz = networks.values()
    sure = nn.BCEWithLogitsLoss()

    def loss(logits: Tensor, target: float) -> Tensor:
        return sure(logits, torch.full_like(logits, target))

    def begin(name: str) -> None:
        counted[name].begin(given.step, given.samples)

    def descend(total: Tensor, *moved: nn.Module) -> None:
        parameters = [parameter for network in moved for parameter in network.parameters()]
        for parameter, grad in zip(parameters, torch.autograd.grad(total, parameters), strict=True):
            parameter.data -= grad

    x, z = given.real, latents(given.samples, given.step, "discriminator")
    for name in networks:
        begin(name)
    x_hat, z_hat = g(z), e(x)
    x_tilde, z_tilde = g(z_hat), e(x_hat)
    images = [dx(one.detach()) for one in (x, x_hat, x_tilde)]
    codes = [dz(one.detach()) for one in (z, z_hat, z_tilde)]
    total = sum(
        (2 * loss(real, 1.0) + loss(made, 0.0) + loss(back, 0.0)) / 4
        for real, made, back in (images, codes)
    )
    descend(total, dx, dz)
    if share:
        begin("encoder")  # the same noise once more
    else:
        z = latents(given.samples, given.step, "generator")
    x_hat, z_hat = g(z), e(x)
    x_tilde, z_tilde = g(z_hat), e(x_hat)
    fooled = (loss(dx(x_hat), 1.0) + loss(dx(x_tilde), 1.0)) / 2
    fooled_codes = (loss(dz(z_hat), 1.0) + loss(dz(z_tilde), 1.0)) / 2
    total = (x_tilde - x).abs().mean() + 0.5 * (z_tilde - z).square().mean()
    descend(total + 0.005 * fooled + 0.1 * fooled_codes, g, e)


@pytest.mark.parametrize("share", [True, False])
def test_a_step_equals_the_textbook(share: bool) -> None:
    """With batch statistics and noise: what the phases share changes no gradient."""
    networks = small_networks()
    counted = {name: CountedNoise(5, number) for number, name in enumerate(networks)}
    for name, network in networks.items():
        attach(network, counted[name])
    objective = AutoencodingObjective(*networks.values(), latents, share_fakes=share)
    optimizers = {
        name: torch.optim.SGD(network.parameters(), lr=1.0) for name, network in networks.items()
    }
    step = EagerStep(StepParts(networks, optimizers, objective.phases(), torch.device("cpu")))
    for number in range(2):
        given = inputs(16, number)
        by_hand, own = copy.deepcopy((networks, counted))
        for noise in counted.values():
            noise.begin(given.step, given.samples)
        textbook_step(by_hand, given, share, own)
        step(given, number)
        for name, network in networks.items():
            expected = dict(by_hand[name].named_parameters())
            for key, value in network.named_parameters():
                # Logits are float32 in the objective, whatever the networks are.
                torch.testing.assert_close(
                    value, expected[key], rtol=1e-5, atol=1e-6, msg=f"{name}.{key}"
                )


def test_sharing_runs_each_network_twice_a_step() -> None:
    networks = linear_networks()
    calls = {"generator": 0, "encoder": 0}
    for name in calls:

        def count(*_: object, name: str = name) -> None:
            calls[name] += 1

        networks[name].register_forward_hook(count)
    for share, expected in ((True, 2), (False, 4)):
        objective = AutoencodingObjective(*networks.values(), latents, share_fakes=share)
        calls.update(generator=0, encoder=0)
        given = inputs()
        for phase in objective.phases():
            phase.loss(given)
        assert calls == {"generator": expected, "encoder": expected}


def test_reconstructing_leaves_no_trace() -> None:
    networks = small_networks()
    generator, encoder = networks["generator"], networks["encoder"]
    encoder.down[0].eval()  # a part that is kept from learning stays so
    before = [copy.deepcopy(one.state_dict()) for one in (encoder, generator)]
    modes = [module.training for one in (encoder, generator) for module in one.modules()]
    pictures = inputs(16).real
    back = reconstruct(encoder, generator, pictures)
    assert back.shape == pictures.shape
    assert not back.requires_grad
    assert modes == [module.training for one in (encoder, generator) for module in one.modules()]
    for one, state in zip((encoder, generator), before, strict=True):
        for name, value in one.state_dict().items():
            assert torch.equal(value, state[name]), name
    torch.testing.assert_close(back, generator.eval()(encoder.eval()(pictures)))


def test_the_modes_come_back_after_an_error() -> None:
    networks = small_networks()
    with pytest.raises(RuntimeError):
        reconstruct(networks["encoder"], networks["generator"], torch.zeros(2, 5, 16, 16))
    assert networks["encoder"].training
    assert networks["generator"].training


def test_many_pictures_are_reconstructed_as_a_few() -> None:
    networks = linear_networks()
    pictures = torch.cos(torch.arange(150 * 12.0).double()).view(150, 3, 2, 2)
    got = reconstruct(networks["encoder"], networks["generator"], pictures)
    torch.testing.assert_close(got, networks["generator"](networks["encoder"](pictures)))
    l1 = reconstruction_l1(networks["encoder"], networks["generator"], pictures)
    assert l1.item() == pytest.approx(mean_of(got, pictures, 1), rel=1e-6)


def test_thirty_steps_bring_pictures_that_were_kept_out_closer() -> None:
    networks = {name: network.float() for name, network in small_networks().items()}
    random = torch.Generator().manual_seed(2)

    def discs(count: int) -> Tensor:
        """Discs on a ground, of any two colours: [count, 3, 16, 16] in [-1, 1]."""
        axis = torch.arange(16.0)
        centre = 5 + 6 * torch.rand(count, 2, 1, 1, generator=random)
        inside = (axis[:, None] - centre[:, 0]) ** 2 + (axis - centre[:, 1]) ** 2 < 20
        disc, ground = torch.rand(2, count, 3, 1, 1, generator=random) * 2 - 1
        return torch.where(inside[:, None], disc, ground)

    train, kept_out = discs(128), discs(32)
    objective = AutoencodingObjective(
        *networks.values(), lambda samples, step, phase: latents(samples, step, phase).float()
    )
    optimizers = {
        name: torch.optim.Adam(network.parameters(), lr=5e-3, betas=(0.5, 0.999))
        for name, network in networks.items()
    }
    step = EagerStep(StepParts(networks, optimizers, objective.phases(), torch.device("cpu")))

    def distance() -> float:
        return reconstruction_l1(networks["encoder"], networks["generator"], kept_out).item()

    before = distance()
    for number in range(30):
        samples = (torch.arange(32) + 32 * number) % 128
        step(StepInput(train[samples], samples, torch.tensor(number)), number)
    without_encoder = (kept_out - train.median()).abs().mean().item()  # the best single colour
    assert distance() < 0.75 * min(before, without_encoder)
