"""RunConfig: JSON without loss, one clear line for everything wrong."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokegan import recipes
from pokegan.config import LengthConfig, OptimizerConfig, RunConfig, override, settings
from pokegan.errors import ConfigError
from pokegan.objectives.losses import LOSSES
from pokegan.training.schedules import SCHEDULES


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_json_gives_an_equal_config_back(name: str) -> None:
    config = recipes.get(name)
    assert RunConfig.from_json(config.to_json()) == config


@given(
    seed=st.integers(0, 2**63 - 1),
    ema=st.floats(0, 1e6),
    note=st.text(max_size=20),
    length=st.one_of(
        st.integers(0, 10**9).map(lambda n: {"steps": n}),
        st.floats(0, 1e9).map(lambda x: {"kimg": x}),
    ),
)
def test_json_round_trip_of_any_value(
    seed: int, ema: float, note: str, length: dict[str, float]
) -> None:
    config = override(
        recipes.get("hpml"),
        {
            "training.seed": seed,
            "training.ema_kimg": ema,
            "output.note": note,
            **{f"length.{key}": value for key, value in length.items()},
        },
    )
    assert RunConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("training.batch", 0, "--batch 0: at least 2 images"),
        ("training.batch", 1, "--batch 1: at least 2"),
        ("objective.label_smoothing", 0.7, "--label-smoothing 0.7: at most 0.5"),
        ("training.ema_kimg", float("nan"), "--ema-kimg nan: a finite number"),
        ("training.precision", "fp8", "--precision fp8: choose one of auto, fp32, tf32, bf16"),
        ("latent.size", True, "--latent-size True: a int is wanted"),
        ("length.kimg", -1.0, "--kimg -1.0: at least 0"),
    ],
)
def test_a_wrong_value_is_named_with_its_flag(path: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        override(recipes.get("house-dcgan"), {path: value})
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beta1": 1.0}, "--beta1 1.0: a number in"),
        ({"beta2": -0.1}, "--beta2 -0.1: a number in"),
        ({"eps": float("inf")}, "--adam-eps inf: a number in"),
        ({"weight_decay": 2.0}, "--weight-decay 2.0: a number in"),
        ({"lr": "fast"}, "generator_optimizer.lr 'fast': a number"),
    ],
)
def test_a_wrong_value_of_adam_is_named_with_its_flag(change: dict[str, Any], words: str) -> None:
    config = dataclasses.replace(recipes.get("hpml"), generator_optimizer=OptimizerConfig(**change))
    with pytest.raises(ConfigError, match=words):
        config.validated()


def test_the_choices_are_those_that_there_are() -> None:
    choices = {entry.flag: entry.metadata["choices"] for entry in settings()}
    assert choices["--loss"] == tuple(LOSSES)
    assert choices["--lr-schedule"] == SCHEDULES


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree.update(format=0), "format"),
        (lambda tree: tree.update(colour=1), "unknown entry 'colour'"),
        (lambda tree: tree["data"].update(sise=1), "config.data has the unknown entry 'sise'"),
        (lambda tree: tree.pop("generator"), "generator"),
        (lambda tree: tree.update(data=3), "config.data is not an object"),
    ],
)
def test_a_damaged_config_is_refused(change: object, words: str) -> None:
    tree = json.loads(recipes.get("hpml").to_json())
    change(tree)
    with pytest.raises(ConfigError, match=words):
        RunConfig.from_json(json.dumps(tree))


def test_text_that_is_not_json_is_refused() -> None:
    with pytest.raises(ConfigError, match="not JSON"):
        RunConfig.from_json("{")


@pytest.mark.parametrize(
    ("length", "steps"),
    [
        (LengthConfig(steps=7), 7),
        (LengthConfig(kimg=0.128), 2),
        (LengthConfig(kimg=0.129), 3),
        (LengthConfig(epochs=3), 24),  # 3 * 500 / 64 = 23.4
        (LengthConfig(steps=0), 0),
    ],
)
def test_the_three_lengths_give_steps(length: LengthConfig, steps: int) -> None:
    assert length.total_steps(count=500, batch=64) == steps


def test_one_length_takes_back_the_others() -> None:
    config = override(recipes.get("hpml"), {"length.kimg": 2.0})
    assert config.length == LengthConfig(kimg=2.0)
    with pytest.raises(ConfigError, match="exactly one"):
        override(recipes.get("hpml"), {"length.kimg": 2.0, "length.steps": 3})


def test_every_flag_is_unique_and_explained() -> None:
    flags = [entry.flag for entry in settings()]
    assert len(flags) == len(set(flags)) > 20
    assert all(entry.metadata["help"] for entry in settings())


def test_a_config_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipes.get("hpml").recipe = "other"
