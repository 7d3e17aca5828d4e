"""The step against the same GAN written out by hand in plain PyTorch."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from small_steps import inputs_of, step_parts
from torch import nn

from pokegan.config import OptimizerConfig, RunConfig, override
from pokegan.data.packed import PackedImages
from pokegan.objectives.phases import StepInput
from pokegan.ops.random import Stream, normal
from pokegan.training.build import Parts, build

STEPS = 4


def run_ours(parts: Parts, batch: int) -> dict[str, torch.Tensor]:
    recorded = {}
    for step in range(STEPS):
        recorded = parts.step(inputs_of(parts, batch, step), step)
    return recorded


def run_by_hand(
    generator: nn.Module, discriminator: nn.Module, config: RunConfig, parts: Parts
) -> None:
    """A textbook DCGAN step; shares nothing with the engine but the pictures and the latents."""
    batch, smoothing = config.training.batch, config.objective.label_smoothing
    optimizers = [
        torch.optim.Adam(network.parameters(), lr=one.lr, betas=(one.beta1, one.beta2), eps=one.eps)
        for network, one in (
            (generator, config.generator_optimizer),
            (discriminator, config.discriminator_optimizer),
        )
    ]
    criterion = nn.BCEWithLogitsLoss()
    for step in range(STEPS):
        real = parts.source.batch(step * batch, batch)

        def latents(stream: Stream, at: int = step, samples: torch.Tensor = real.samples):
            return normal(config.training.seed, stream, at, samples, config.latent.size)

        fakes = generator(latents(Stream.LATENT))
        logits = discriminator(real.images), discriminator(fakes.detach())
        targets = torch.full((batch,), 1 - smoothing), torch.zeros(batch)
        loss = criterion(logits[0], targets[0]) + criterion(logits[1], targets[1])
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
        if (step + 1) % config.objective.discriminator_steps:
            continue
        if not config.objective.share_fakes:
            fakes = generator(latents(Stream.GENERATOR_LATENT))
        optimizers[0].zero_grad()
        criterion(discriminator(fakes), torch.ones(batch)).backward()
        optimizers[0].step()


@pytest.mark.parametrize(("share", "discriminator_steps"), [(True, 1), (False, 1), (False, 2)])
def test_equals_the_textbook(tiny: RunConfig, share: bool, discriminator_steps: int) -> None:
    config = override(
        tiny,
        {
            "objective.share_fakes": share,
            "objective.discriminator_steps": discriminator_steps,
            "objective.label_smoothing": 0.1,
        },
    )
    config = dataclasses.replace(config, discriminator_optimizer=OptimizerConfig(lr=1e-3))
    parts = build(config, PackedImages.open(config.data.source))
    by_hand = copy.deepcopy(parts.networks)
    run_by_hand(by_hand["generator"], by_hand["discriminator"], config, parts)
    run_ours(parts, config.training.batch)
    for name, network in parts.networks.items():
        for key, value in network.state_dict().items():
            torch.testing.assert_close(
                value, by_hand[name].state_dict()[key], rtol=2e-4, atol=2e-6, msg=f"{name}.{key}"
            )


def test_what_is_recorded_is_what_the_names_say(tiny: RunConfig) -> None:
    config = override(tiny, {"objective.label_smoothing": 0.0, "objective.share_fakes": True})
    parts = build(config, PackedImages.open(config.data.source))
    before = copy.deepcopy(parts.networks)
    given = inputs_of(parts, 8, 0)
    recorded = parts.step(given, 0)
    latents = normal(config.training.seed, Stream.LATENT, 0, given.samples, config.latent.size)
    fakes = before["generator"](latents)
    on_real, on_fake = before["discriminator"](given.real), before["discriminator"](fakes)
    expected = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
    torch.testing.assert_close(recorded["loss/discriminator"], expected.detach())
    torch.testing.assert_close(recorded["score/real"], on_real.sigmoid().mean().detach())
    torch.testing.assert_close(recorded["score/fake"], on_fake.sigmoid().mean().detach())
    assert not any(value.requires_grad for value in recorded.values())


def test_the_generators_phase_leaves_the_discriminator_alone(tiny: RunConfig) -> None:
    eager = override(tiny, {"training.compile": "off"})
    parts = build(eager, PackedImages.open(tiny.data.source))
    phase = step_parts(parts).phases[1]
    seen = {}

    def spy(inputs: StepInput):
        discriminator = parts.networks["discriminator"]
        seen["frozen"] = [parameter.requires_grad for parameter in discriminator.parameters()]
        return phase.loss(inputs)

    weights = copy.deepcopy(parts.networks["discriminator"].state_dict())
    parts.step._run(dataclasses.replace(phase, loss=spy), inputs_of(parts, 8, 0), None)
    assert not any(seen["frozen"])
    for name, parameter in parts.networks["discriminator"].named_parameters():
        assert torch.equal(parameter, weights[name])
        assert parameter.grad is None
        assert parameter.requires_grad


def test_bfloat16_learns_nearly_the_same(tiny: RunConfig) -> None:
    results = []
    for precision in ("fp32", "bf16"):
        config = override(tiny, {"training.precision": precision})
        parts = build(config, PackedImages.open(config.data.source))
        results.append(run_ours(parts, 8)["loss/discriminator"].item())
        for network in parts.networks.values():
            assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
    assert results[0] == pytest.approx(results[1], rel=0.1)
    assert results[0] != results[1]
