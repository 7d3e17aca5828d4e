"""What goes along from one stage of a growing run to the next."""

import dataclasses

import torch

from pokegan.config import NetworkConfig, RunConfig, override
from pokegan.data.packed import PackedImages
from pokegan.training.growth import Growth


def test_the_strength_of_adaptive_augmentation_is_carried_over(tiny: RunConfig) -> None:
    networks = dataclasses.replace(
        tiny,
        generator=NetworkConfig("pokegan", {"channels": [8]}),
        discriminator=NetworkConfig("pokegan", {"channels": [8]}),
    )
    changes = {"schedule.stages": "8:1e-3x1;16:1e-3x1", "objective.ada_target": 0.6}
    growth = Growth(override(networks, changes), PackedImages.open(tiny.data.source))
    first = growth.build()
    assert first.adaptive is not None
    first.adaptive.p.fill_(0.4)
    first.adaptive.observe(torch.tensor([1.0, -1.0, 2.0]))
    second = growth.grow(first, 1)
    assert second.adaptive is not None
    assert second.adaptive is not first.adaptive
    assert second.size == 16
    for name, value in first.adaptive.state_dict().items():
        assert torch.equal(second.adaptive.state_dict()[name], value)
