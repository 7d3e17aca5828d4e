"""Settings that cannot go together, or have no effect, are refused before anything is made."""

from pathlib import Path
from typing import Any

import pytest

from pokegan import recipes
from pokegan.config import RunConfig, override
from pokegan.data import prepare
from pokegan.data.options import PrepareOptions
from pokegan.data.sources import DemoSource
from pokegan.errors import ConfigError
from pokegan.training.checks import check
from pokegan.training.session import train

HARD = {
    "objective.label_smoothing": 0.0,
    "objective.label_noise": 0.0,
    "objective.label_swap": 0.0,
    "objective.smooth_fakes": False,
    "objective.share_fakes": False,
}


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_every_recipe_is_sound(recipe: str) -> None:
    check(recipes.get(recipe))


@pytest.mark.parametrize(
    ("recipe", "changes", "words"),
    [
        ("house-dcgan", {"data.holdout": 4}, "--holdout 4: measures reconstructions"),
        ("house-dcgan", {"data.shift": 64}, "--shift 64: less than --size 64"),
        ("house-dcgan", {"autoencoding.encoder": 0.5}, "--latent-adversarial-weight 0.5 has no"),
        ("house-dcgan", {"schedule.final": 0.1}, "--lr-final 0.1 .* --lr-schedule cosine"),
        ("house-dcgan", {"schedule.decay": 0.1}, "--lr-decay 0.1 .* --lr-schedule step"),
        ("house-dcgan", {"schedule.decay_kimg": 3.0}, "--lr-decay-kimg 3.0 .* step"),
        ("house-dcgan", {"schedule.fade": 0.1}, "--fade 0.1 .* --stages"),
        ("house-dcgan", {"schedule.freeze": True}, "--freeze-stages has no effect"),
        ("house-dcgan", {"schedule.stages": "32:1e-3x1;64:1e-3x1"}, "dcgan does not grow"),
        ("house-dcgan", {"objective.ada_kimg": 3.0}, "--ada-kimg 3.0 .* --ada-target"),
        ("house-dcgan", {"objective.ada_p": 0.2, "objective.ada_target": 0.6}, "one of them"),
        ("house-dcgan", {"objective.ada_p": 0.2, "objective.diff_augment": "cutout"}, "one of"),
        ("house-dcgan", {"objective.diff_augment": ","}, "names no augmentation"),
        ("house-dcgan", {"objective.r1_every": 4}, "--r1-every 4 has no effect without --r1$"),
        ("house-dcgan", {"objective.consistency_every": 4}, "--consistency-every 4"),
        ("aegan", {"objective.ada_p": 0.2}, "--ada-p: the recipe aegan"),
        ("aegan", {"schedule.stages": "48:1e-3x1;96:1e-3x1"}, "--stages: the networks of aegan"),
    ],
)
def test_refused(recipe: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        check(override(recipes.get(recipe), changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("loss", ["wgan", "wgan-gp", "rgan", "ragan", "r3gan"])
def test_adas_rule_needs_a_sign_that_means_something(loss: str) -> None:
    changes = HARD | {"objective.loss": loss}
    config = override(recipes.get("gan-pokemon-dcgan"), changes)
    check(override(config, {"objective.ada_p": 0.3}))
    with pytest.raises(ConfigError, match=f"nothing under --loss {loss}.*--ada-p"):
        check(override(config, {"objective.ada_target": 0.6}))


def test_lazy_penalties_that_the_loss_implies_may_have_an_interval() -> None:
    check(override(recipes.get("hpml"), {"objective.loss": "r3gan", "objective.r1_every": 4}))


@pytest.mark.parametrize(
    "changes",
    [
        {"data.holdout": 19},
        {"schedule.stages": "8:1e-3x1;16:1e-3x1"},
    ],
)
def test_nothing_is_left_behind(tiny: RunConfig, tmp_path: Path, changes: dict[str, Any]) -> None:
    config = tiny
    if "data.holdout" in changes:
        aegan = recipes.get("aegan")
        config = override(
            aegan,
            {"data.source": tiny.data.source, "data.size": 16, "data.background": "white"},
        )
    with pytest.raises(ConfigError, match=r"--holdout 19|--stages"):
        train(override(config, changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_too_few_pictures_to_measure_against(tiny: RunConfig, tmp_path: Path) -> None:
    options = PrepareOptions(size=16, keep_duplicates=True)
    prepare(DemoSource(count=9), options, tmp_path / "set", workers=1)
    changes = {"data.source": str(tmp_path / "set"), "output.metrics_every": 1.0}
    changes |= {"output.metrics_features": "pyramid"}
    with pytest.raises(ConfigError, match=r"--metrics-every 1: .* at least 10 .* there are 9"):
        train(override(tiny, changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
