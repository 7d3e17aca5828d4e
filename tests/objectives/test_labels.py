"""The label rules of the command line: what targets they give, and that a step uses them."""

import pytest
import torch
from small_steps import inputs_of, step_parts

from pokegan.config import RunConfig, override
from pokegan.data.packed import PackedImages
from pokegan.errors import ConfigError
from pokegan.objectives.labels import LabelRule, Labels
from pokegan.objectives.losses import LOSSES, adversarial_loss
from pokegan.objectives.phases import StepInput
from pokegan.ops import label_targets
from pokegan.ops.soft_labels import FORMS
from pokegan.training.build import build, build_label_rule

REAL, FAKE = torch.tensor([1.5, -0.25, 0.0, 3.0]), torch.tensor([-2.0, 0.5, 1.25, -0.75])


def inputs(step: int = 0) -> StepInput:
    return StepInput(torch.zeros(4, 3, 8, 8), torch.arange(4), torch.tensor(step))


def test_the_rule_of_smoothing_and_noise() -> None:
    rule = LabelRule.smoothed(0.1, 0.1, 0.03, smooth_fakes=True)
    assert rule.real == pytest.approx((0.85, 0.95))
    assert rule.fake == pytest.approx((0.05, 0.15))
    assert rule.swap == 0.03


def test_one_sided_smoothing_leaves_fakes_at_zero() -> None:
    rule = LabelRule.smoothed(0.1)
    assert rule == LabelRule((0.9, 0.9), (0.0, 0.0), 0.0)
    assert not rule.drawn


@pytest.mark.parametrize(
    "rule", [LabelRule((0.7, 1.2)), LabelRule(fake=(0.0, 0.2)), LabelRule(swap=0.1)]
)
def test_what_differs_between_samples_is_drawn(rule: LabelRule) -> None:
    assert rule.drawn


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"smoothing": 0.6}, "smoothing 0.6"),
        ({"smoothing": -0.1}, "smoothing -0.1"),
        ({"noise": 1.5}, "noise 1.5"),
        ({"swap": -0.5}, "swap -0.5"),
        ({"swap": float("nan")}, "swap nan"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LabelRule.smoothed(**arguments)


def test_a_wrong_interval_is_named() -> None:
    with pytest.raises(ConfigError, match=r"real targets in 0.9:0.7"):
        LabelRule((0.9, 0.7))


def test_hard_labels_give_the_plain_loss_bit_for_bit() -> None:
    for loss in LOSSES.values():
        got = Labels(LabelRule.smoothed(0.1)).loss(loss, REAL, FAKE, inputs())
        assert torch.equal(got, loss.discriminator(REAL, FAKE, 0.9, 0.0))


@pytest.mark.parametrize("name", FORMS)
def test_drawn_labels_give_the_loss_on_the_drawn_targets(name: str) -> None:
    rule = LabelRule.smoothed(0.1, 0.5, 0.3, smooth_fakes=True)
    got = Labels(rule, 7).loss(adversarial_loss(name), REAL, FAKE, inputs(5))
    targets = label_targets(torch.arange(4), 5, 7, rule.real, rule.fake, rule.swap)
    torch.testing.assert_close(got, FORMS[name](REAL, FAKE, *targets))
    assert got != Labels(rule, 7).loss(adversarial_loss(name), REAL, FAKE, inputs(6))


def test_a_loss_without_targets_does_not_mind() -> None:
    hinge = adversarial_loss("hinge")
    got = Labels(LabelRule.smoothed(0.1, 0.1, 0.1)).loss(hinge, REAL, FAKE, inputs())
    assert torch.equal(got, hinge.discriminator(REAL, FAKE, 1.0, 0.0))


def test_the_flags_become_the_rule(tiny: RunConfig) -> None:
    changes = {
        "objective.label_smoothing": 0.1,
        "objective.label_noise": 0.2,
        "objective.label_swap": 0.03,
        "objective.smooth_fakes": True,
    }
    config = override(tiny, changes)
    expected = LabelRule.smoothed(0.1, 0.2, 0.03, smooth_fakes=True)
    assert build_label_rule(config.objective) == expected
    intervals = {"objective.real_labels": "0.7:1.2", "objective.fake_labels": "0:0.2"}
    config = override(config, intervals)
    assert build_label_rule(config.objective) == LabelRule((0.7, 1.2), (0.0, 0.2), 0.03)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("objective.label_noise", 1.1, "--label-noise 1.1: at most 1"),
        ("objective.label_swap", -0.1, "--label-swap -0.1: at least 0"),
        ("objective.real_labels", "high", "--real-labels high: LOW:HIGH is wanted"),
        ("objective.fake_labels", "0.3:0.1", "--fake-labels 0.3:0.1: -1 <= LOW <= HIGH <= 2"),
        ("objective.fake_labels", "0:nan", "--fake-labels 0:nan: -1 <= LOW"),
    ],
)
def test_a_wrong_flag_is_named(tiny: RunConfig, path: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        override(tiny, {path: value})
    assert str(error.value).startswith(words)


@pytest.mark.parametrize("name", FORMS)
def test_every_loss_with_targets_trains_with_soft_labels(tiny: RunConfig, name: str) -> None:
    changes = {
        "objective.loss": name,
        "objective.label_noise": 0.1,
        "objective.label_swap": 0.1,
    }
    config = override(tiny, changes)
    parts = build(config, PackedImages.open(config.data.source))
    before = {key: value.clone() for key, value in parts.networks["generator"].state_dict().items()}
    for step in range(3):
        recorded = parts.step(inputs_of(parts, 8, step), step)
    assert all(torch.isfinite(value) for value in recorded.values())
    after = parts.networks["generator"].state_dict()
    assert any(not torch.equal(after[key], value) for key, value in before.items())


def test_a_relativistic_generator_is_given_the_reals(tiny: RunConfig) -> None:
    """Its gradient is that of the formula on both logits; the discriminator's stay frozen."""
    changes = {"objective.loss": "ragan", "objective.share_fakes": False}
    config = override(tiny, {**changes, "training.compile": "off"})
    parts = build(config, PackedImages.open(config.data.source))
    given = inputs_of(parts, 8, 0)
    generator, discriminator = parts.networks["generator"], parts.networks["discriminator"]
    objective = step_parts(parts).phases[1].loss.__self__
    loss = objective.generator_loss(given).loss
    fakes = generator(objective.latents(given.samples, given.step, "generator"))
    expected = adversarial_loss("ragan").generator(discriminator(fakes), discriminator(given.real))
    torch.testing.assert_close(loss, expected)
