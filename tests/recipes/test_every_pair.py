"""Every recipe with every loss: either thirty steps without harm, or a refusal with its reason.

A recipe's own settings that only suit its own loss (labels, shared fakes) are turned off as the
messages say, so that recipe and loss are what is tried.
"""

import dataclasses
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_steps import inputs_of

from pokegan import recipes
from pokegan.config import RunConfig, override
from pokegan.config.parts import LOSSES
from pokegan.data.packed import PackedImages
from pokegan.errors import ConfigError
from pokegan.objectives.losses import adversarial_loss
from pokegan.training.build import Parts
from pokegan.training.checks import check
from pokegan.training.growth import Growth

STEPS = 30
SMALL = {
    "data.size": 16,
    "training.batch": 5,  # of 20 pictures, so that the order of the pictures is kept alike
    "training.precision": "fp32",
    "training.device": "cpu",
    "length.steps": STEPS,
}
ROLES = ("generator", "discriminator", "encoder", "latent_discriminator")
POKEGAN_CHANNELS = {"generator": [256, 128, 64, 32], "discriminator": [32, 64, 128, 256]}
AEGAN_CHANNELS = {
    "generator": [512, 512, 256, 256, 256, 64],
    "encoder": [64, 128, 256, 512],
    "discriminator": [64, 128, 256, 512],
}
# No gradient moves all logits together: these look at differences of logits alone, and so does
# hinge as long as no logit is beyond 1.
BLIND_TO_A_SHIFT = ("hinge", "wgan", "wgan-gp", "rgan", "ragan", "r3gan")
LAST_BIAS = ("discriminator.head.bias", "discriminator.head.1.bias", "discriminator.linear.bias")
BATCH_NORM = (
    "house-dcgan",
    "hpml",
    "dcgan-fc",
    "dcgan-fc-128",
    "dcgan-deep",
    "dcgan-deep-noise",
    "pokegan-dcgan",
    "progan",
)
MIXES = r"--gradient-penalty 10 needs a gradient .* --discriminator-option norm=layer"
OWN_TERMS = "--loss: the recipe aegan has AEGAN's own eight terms"
REFUSED = {(name, "wgan-gp"): MIXES for name in BATCH_NORM} | {
    ("aegan", loss): OWN_TERMS for loss in LOSSES if loss != "bce"
}
PAIRS = [(recipe, loss) for recipe in recipes.RECIPES for loss in LOSSES]


def pair(recipe: str, loss: str) -> RunConfig:
    """Return a small config of the pair, without what the recipe has for another loss only."""
    config = recipes.get(recipe)
    changes: dict[str, object] = {**SMALL, "objective.loss": loss}
    if recipe == "progan":
        changes["schedule.stages"] = "8:1e-3x1;16:1e-3x5"
        changes["schedule.fade"] = 0.25  # over long before memory is looked at
    if recipe == "aegan":
        changes["data.holdout"] = 4
    config = narrow(config)
    if not adversarial_loss(loss).uses_targets:
        changes["objective.label_swap"] = 0.0
    if loss == "smooth-bce" or not adversarial_loss(loss).uses_targets:
        changes |= {
            "objective.label_smoothing": 0.0,
            "objective.label_noise": 0.0,
            "objective.smooth_fakes": False,
        }
    if loss in ("wgan", "wgan-gp"):
        changes["objective.share_fakes"] = False
    return override(config, changes)


def narrow(config: RunConfig) -> RunConfig:
    """Return `config` with networks an eighth as wide."""
    known = {"pokegan": POKEGAN_CHANNELS, "aegan": AEGAN_CHANNELS}
    parts = {}
    for role in ROLES:
        network = getattr(config, role)
        channels = known.get(network.name, {}).get(role) if network else None
        channels = network.options.get("channels", channels) if network else None
        if channels:
            options = {**network.options, "channels": [width // 8 for width in channels]}
            parts[role] = dataclasses.replace(network, options=options)
    return dataclasses.replace(config, **parts)


def with_norm(config: RunConfig, norm: str) -> RunConfig:
    critic = config.discriminator
    options = {**critic.options, "norm": norm}
    return dataclasses.replace(config, discriminator=dataclasses.replace(critic, options=options))


@pytest.fixture(scope="module", autouse=True)
def only_new_objects() -> Iterator[None]:
    """Leave out what lives before these tests when living tensors are counted."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def living_bytes() -> tuple[int, int]:
    """Return how many tensors made here live, and the bytes of their storages."""
    gc.collect()
    tensors = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    storages = [one.untyped_storage() for one in tensors]
    return len(tensors), sum({one.data_ptr(): one.nbytes() for one in storages}.values())


def run_thirty_steps(config: RunConfig, packed: PackedImages) -> None:
    """Run the steps of a config as the trainer does; check losses, weights and memory."""
    growth = Growth(config, packed)
    stage, parts = 0, growth.build()
    before = weights(parts)
    moments = (25, STEPS)  # of one stage, one place in wgan's five steps, and all kinds recorded
    measured = []
    for step in range(STEPS):
        if growth.index(step) > stage:
            assert_changed(before, parts, config.objective.loss)
            stage += 1
            parts = growth.grow(parts, stage)
            before = weights(parts)
        growth.prepare(parts, stage, step)
        recorded = parts.step(inputs_of(parts, 5, step), step)
        parts.ema.update((step + 1) * 5, 5)
        assert {"loss/discriminator", "score/real", "score/fake"} <= recorded.keys()
        values = torch.stack([value.float() for value in recorded.values()])
        assert values.isfinite().all(), (step, recorded)
        assert not values.requires_grad
        del recorded, values
        if step + 1 in moments:
            measured.append(living_bytes())
    assert stage == growth.index(STEPS)
    assert_changed(before, parts, config.objective.loss)
    assert measured[0] == measured[1]


def weights(parts: Parts) -> dict[str, torch.Tensor]:
    return {
        f"{role}.{name}": parameter.detach().clone()
        for role, network in parts.networks.items()
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }


def assert_changed(before: dict[str, torch.Tensor], parts: Parts, loss: str) -> None:
    after = weights(parts)
    assert after.keys() == before.keys()
    still = [name for name, value in after.items() if torch.equal(value, before[name])]
    allowed = LAST_BIAS if loss in BLIND_TO_A_SHIFT else ()
    assert [name for name in still if name not in allowed] == []
    assert all(value.isfinite().all() for value in after.values())


@pytest.mark.parametrize(("recipe", "loss"), [one for one in PAIRS if one not in REFUSED])
def test_thirty_steps(recipe: str, loss: str, packed_folder: Path) -> None:
    config = pair(recipe, loss)
    check(config)
    run_thirty_steps(config, PackedImages.open(packed_folder))


@pytest.mark.parametrize(("recipe", "loss"), REFUSED)
def test_a_pair_that_cannot_be_right_is_refused(recipe: str, loss: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[recipe, loss]) as error:
        check(pair(recipe, loss))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("recipe", BATCH_NORM)
def test_what_the_refusal_of_a_gradient_penalty_advises_works(
    recipe: str, packed_folder: Path
) -> None:
    config = with_norm(pair(recipe, "wgan-gp"), "layer")
    check(config)
    if recipe in ("hpml", "progan"):
        run_thirty_steps(config, PackedImages.open(packed_folder))


@pytest.mark.parametrize(
    ("recipe", "loss", "words"),
    [
        ("house-dcgan", "hinge", "--loss hinge has no targets, so --label-smoothing has no"),
        ("dcgan-fc", "r3gan", "--loss r3gan has no targets, so --label-smoothing has no effect"),
        ("pokegan-dcgan", "wgan", "give --label-smoothing 0 or use one of bce"),
        ("pokegan-dcgan", "smooth-bce", "so --label-noise has no effect"),
        ("hpml", "wgan", "--loss wgan with --discriminator-steps 5 needs --no-share-fakes"),
        ("hpml", "wgan-gp", "--loss wgan-gp with --discriminator-steps 5 needs --no-share-fakes"),
    ],
)
def test_a_setting_for_another_loss_is_named(recipe: str, loss: str, words: str) -> None:
    config = override(recipes.get(recipe), {"objective.loss": loss})
    with pytest.raises(ConfigError, match=words):
        check(config)
