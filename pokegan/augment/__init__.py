"""Augmentation of batches on the device: of the real pictures, and of all a discriminator sees.

Knows tensors and `pokegan.ops`; no config, file, network or rank. Flips and shifts of the real
pictures are part of `pokegan.ops.batch_gather`.
"""

from pokegan.augment.adaptive import AdaptiveAugment
from pokegan.augment.differentiable import DiffAugment
from pokegan.augment.pictures import PictureAugmentation
from pokegan.augment.policy import DiscriminatorAugment, Role

__all__ = [
    "AdaptiveAugment",
    "DiffAugment",
    "DiscriminatorAugment",
    "PictureAugmentation",
    "Role",
]
