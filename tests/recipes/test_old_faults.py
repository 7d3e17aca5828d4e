"""Faults of the five projects that a whole recipe must not have again."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_steps import inputs_of
from torch.utils._python_dispatch import TorchDispatchMode

from pokegan import recipes
from pokegan.config import override
from pokegan.config.parts import LOSSES
from pokegan.data import prepare
from pokegan.data.options import PrepareOptions
from pokegan.data.packed import PackedImages
from pokegan.data.sources import FolderSource
from pokegan.errors import ConfigError
from pokegan.objectives.losses import adversarial_loss
from pokegan.training.build import build
from pokegan.training.checks import check

ON_CPU = {"training.batch": 4, "training.precision": "fp32", "training.device": "cpu"}


class NothingIsRead(TorchDispatchMode):
    """Raises where a tensor's value comes to Python: there a GPU would be waited for."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default):
            raise AssertionError("a value was read within a step")
        return func(*args, **(kwargs or {}))


def test_the_watcher_sees_what_it_should() -> None:
    for read in (torch.Tensor.item, float, bool):
        with NothingIsRead(), pytest.raises(AssertionError, match="was read"):
            read(torch.ones(()))


def assert_reads_nothing(config: Any, packed_folder: Path) -> None:
    parts = build(config, PackedImages.open(packed_folder))
    for step in (0, 4):  # wgan's generator has its turn in the fifth
        inputs = inputs_of(parts, 4, step)
        with NothingIsRead():
            recorded = parts.step(inputs, step)
            parts.ema.update(4 * step + 4, 4)
    assert "loss/discriminator" in recorded


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_no_value_is_read_within_a_step_of_a_recipe(name: str, packed_folder: Path) -> None:
    changes: dict[str, Any] = {**ON_CPU, "data.size": 16, "data.holdout": 0}
    if name == "progan":
        changes["schedule.stages"] = ""
    assert_reads_nothing(override(recipes.get(name), changes), packed_folder)


@pytest.mark.parametrize("loss", LOSSES)
def test_no_value_is_read_within_a_step_of_a_loss(loss: str, packed_folder: Path) -> None:
    changes = {**ON_CPU, "data.size": 16, "objective.loss": loss, "objective.r1": 1.0}
    changes |= {"objective.diff_augment": "colour,translation,cutout"}
    if adversarial_loss(loss).uses_targets and loss != "smooth-bce":
        changes |= {"objective.label_noise": 0.1, "objective.label_swap": 0.1}
    assert_reads_nothing(override(recipes.get("gan-pokemon-dcgan"), changes), packed_folder)


@pytest.mark.parametrize("name", recipes.RECIPES)
@pytest.mark.parametrize("size", [50, 100])
def test_a_size_that_cannot_be_made_names_the_nearest(name: str, size: int) -> None:
    near = {"aegan": {50: (48, 64), 100: (96, 128)}}.get(name, {50: (32, 64), 100: (64, 128)})
    below, above = near[size]
    changes: dict[str, Any] = {"data.size": size}
    if name == "progan":
        changes["schedule.stages"] = f"{size}:1e-3x1"
    with pytest.raises(
        ConfigError, match=rf"--size {size}: .* nearest(:| are) {below} and {above}"
    ):
        check(override(recipes.get(name), changes))


def test_rotated_pictures_on_white_have_no_dark_corners_in_a_batch(tmp_path: Path) -> None:
    for number in range(6):
        picture = Image.new("RGB", (16, 16), "white")
        picture.paste((40, 0, 90), (5, 5, 11, 11))  # all six the same, and when mirrored
        picture.save(tmp_path / f"{number}.png")
    options = PrepareOptions(size=16, keep_duplicates=True)
    prepare(FolderSource(tmp_path), options, tmp_path / "packed", workers=1)
    changes = {**ON_CPU, "data.size": 16, "objective.loss": "bce"}
    config = override(recipes.get("pokegan-dcgan"), changes)
    plain = dataclasses.replace(config.data, brightness=0.0, contrast=0.0, saturation=0.0)
    parts = build(dataclasses.replace(config, data=plain), PackedImages.open(tmp_path / "packed"))
    images = parts.source.batch(0, 60).images.numpy()
    edge = np.concatenate([images[..., 0, :], images[..., -1, :]], -1)
    assert edge.min() > 0.999
    assert (np.abs(images - images[:1]).max((1, 2, 3)) > 0.1).any()  # they are turned
