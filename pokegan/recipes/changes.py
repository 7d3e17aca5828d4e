"""What of a recipe gives way when the user chooses another loss."""

import dataclasses
from collections.abc import Collection

from pokegan.config import ObjectiveConfig, RunConfig, settings
from pokegan.objectives.losses import adversarial_loss
from pokegan.objectives.settings import settle

TARGETS = (
    "objective.label_smoothing",
    "objective.smooth_fakes",
    "objective.label_noise",
    "objective.label_swap",
    "objective.real_labels",
    "objective.fake_labels",
)
MOVED = ("objective.label_smoothing", "objective.smooth_fakes", "objective.label_noise")


def fit_to_loss(config: RunConfig, given: Collection[str]) -> tuple[RunConfig, list[str]]:
    """Turn off what the recipe has for its own loss and the chosen one cannot use.

    Args:
        config: with the loss that the user chose.
        given: paths of the settings that the user gave; these are never changed.

    Returns:
        The config, and the flags that were turned off.
    """
    objective = config.objective
    if "objective.loss" not in given:
        return config, []
    useless: list[str] = []
    if not adversarial_loss(objective.loss).uses_targets:
        useless += TARGETS
    elif objective.loss == "smooth-bce":  # it draws its targets from intervals of its own
        useless += MOVED
    steps = settle(objective.loss, discriminator_steps=objective.discriminator_steps)
    if steps.discriminator_steps > 1:
        useless.append("objective.share_fakes")
    plain = ObjectiveConfig()
    changes, flags = {}, []
    for entry in settings():
        name = entry.path.split(".")[1]
        if entry.path in useless and entry.path not in given and getattr(objective, name):
            changes[name] = getattr(plain, name)
            flags.append(entry.flag)
    return dataclasses.replace(config, objective=dataclasses.replace(objective, **changes)), flags
