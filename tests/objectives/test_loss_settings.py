"""What a loss implies, and which pairs are refused."""

import pytest
import torch
from torch import nn

from pokegan.errors import ConfigError
from pokegan.networks.spectral_norm import spectral_norm_
from pokegan.objectives.labels import LabelRule
from pokegan.objectives.losses import LOSSES
from pokegan.objectives.penalties import R1, R2, Consistency, GradientPenalty
from pokegan.objectives.settings import LossSettings, Traits, check, defaults, penalties, settle

BATCH_NORM, FREE = Traits(batch_norm=True), Traits(noise=True, features=True)


def test_what_the_papers_say() -> None:
    assert defaults("bce") == LossSettings()
    assert defaults("wgan") == LossSettings(discriminator_steps=5, weight_clip=0.01)
    assert defaults("wgan-gp") == LossSettings(discriminator_steps=5, gradient_penalty=10.0)
    assert defaults("r3gan") == LossSettings(r1=2.0, r2=2.0)
    assert defaults("smooth-bce").labels == LabelRule((0.7, 1.2), (0.0, 0.2))


def test_an_unknown_loss_has_no_defaults() -> None:
    with pytest.raises(ConfigError, match="--loss vanilla: choose one of"):
        defaults("vanilla")


def test_what_is_given_goes_before_what_is_implied() -> None:
    settled = settle("wgan", weight_clip=0.0, r1=1.0, discriminator_steps=None, r2=None)
    assert settled == LossSettings(discriminator_steps=5, r1=1.0)


def test_penalties_are_those_asked_for() -> None:
    assert penalties(defaults("bce"), 3) == []
    assert penalties(defaults("wgan-gp"), 3) == [GradientPenalty(3, 10.0)]
    settings = settle(
        "r3gan", r2=1.0, consistency=2.0, r1_every=16, r2_every=16, consistency_every=16
    )
    assert penalties(settings, 3) == [R1(2.0, 16), R2(1.0, 16), Consistency(2.0, 16)]


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_allowed_with_what_it_implies(name: str) -> None:
    check(name, defaults(name), Traits())


def test_what_is_only_unusual_is_allowed() -> None:
    check("bce", settle("bce", weight_clip=0.01), BATCH_NORM)
    check("r3gan", defaults("r3gan"), BATCH_NORM)
    check("wgan", defaults("wgan"), Traits(batch_norm=True, spectral_norm=True))
    check("wgan", settle("wgan", weight_clip=0.0), Traits(spectral_norm=True))
    check("wgan", settle("wgan", weight_clip=0.0, r1=1.0), BATCH_NORM)
    check("hinge", settle("hinge", gradient_penalty=10.0, r1=1.0), Traits())
    check("wgan-gp", settle("wgan-gp", consistency=2.0), FREE)
    check("smooth-bce", defaults("smooth-bce"), BATCH_NORM, ["--label-swap", "--real-labels"])
    check("lsgan", defaults("lsgan"), BATCH_NORM, ["--label-smoothing"], share_fakes=True)


REFUSED = [
    ("hinge", {}, FREE, "--loss hinge has no targets, so --label-swap has no effect; give --label"),
    ("wgan-gp", {}, FREE, "--loss wgan-gp has no targets"),
    ("r3gan", {}, FREE, "--loss r3gan has no targets"),
    ("wgan", {"gradient_penalty": 10.0}, FREE, "--weight-clip 0.01 with --gradient-penalty 10"),
    ("wgan-gp", {"weight_clip": 0.02}, FREE, "--weight-clip 0.02 with --gradient-penalty 10"),
    ("wgan-gp", {}, BATCH_NORM, "--gradient-penalty 10 needs a gradient for each picture alone"),
    ("bce", {"gradient_penalty": 1.0}, BATCH_NORM, r"--discriminator-option norm=layer \(or inst"),
    ("bce", {"consistency": 2.0}, Traits(features=True), "--consistency 2 compares two runs"),
    ("bce", {"consistency": 2.0}, Traits(noise=True), "--consistency 2 compares the last hidden"),
    ("wgan", {"weight_clip": 0.0}, FREE, "--loss wgan has no bound"),
    ("wgan-gp", {"gradient_penalty": 0.0}, BATCH_NORM, "--loss wgan-gp has no bound"),
]


@pytest.mark.parametrize(("name", "given", "traits", "words"), REFUSED)
def test_what_is_wrong_is_refused(name: str, given: dict, traits: Traits, words: str) -> None:
    flags = ["--label-swap"] if "targets" in words else []
    with pytest.raises(ConfigError, match=words) as error:
        check(name, settle(name, **given), traits, flags)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("flag", "off"),
    [
        ("--label-smoothing", "--label-smoothing 0"),
        ("--smooth-fakes", "--no-smooth-fakes"),
        ("--real-labels", "--real-labels ''"),
    ],
)
def test_the_way_to_turn_targets_off_is_told(flag: str, off: str) -> None:
    with pytest.raises(ConfigError, match=f"{flag} has no effect; give {off} or use one of bce, "):
        check("hinge", defaults("hinge"), FREE, [flag])


@pytest.mark.parametrize("flag", ["--label-smoothing", "--label-noise", "--smooth-fakes"])
def test_drawn_targets_cannot_be_smoothed_again(flag: str) -> None:
    with pytest.raises(ConfigError, match=f"smooth-bce draws .* so {flag} has no effect"):
        check("smooth-bce", defaults("smooth-bce"), FREE, [flag])


def test_shared_fakes_need_a_generator_phase_in_every_step() -> None:
    with pytest.raises(ConfigError, match="--loss wgan with --discriminator-steps 5 needs --no-sh"):
        check("wgan", defaults("wgan"), FREE, share_fakes=True)


class WithFeatures(nn.Linear):
    def logits_and_features(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self(pictures).flatten(), pictures


def test_traits_are_found_within_a_network() -> None:
    def network(*layers: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(*layers))

    plain = network(nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(1, 4), nn.Dropout(0.0))
    assert Traits.of(plain) == Traits()
    assert Traits.of(network(nn.BatchNorm2d(4), nn.Dropout2d(0.3))) == Traits(
        batch_norm=True, noise=True
    )
    assert Traits.of(network(nn.SyncBatchNorm(4))).batch_norm
    assert Traits.of(spectral_norm_(network())).spectral_norm
    assert Traits.of(WithFeatures(3, 1)) == Traits(features=True)
