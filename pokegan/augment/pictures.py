"""Augmentation of the real pictures: rotation and colour jitter, the whole batch at once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pokegan.augment.colour import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
)
from pokegan.augment.geometry import resample, rotation
from pokegan.augment.layout import checked_background, restored, widened
from pokegan.errors import ConfigError
from pokegan.ops.random import Stream, symmetric_uniform


class PictureAugmentation:
    """Rotates real pictures, then changes brightness, contrast, saturation and hue, in this order.

    The factors are those of torchvision's ColorJitter, whose order is random. Rotation comes first
    and is filled with the background, so that jitter changes the picture's background and the
    corners alike and no seam is left. Sample i of a run is augmented in the same way in any batch,
    on any rank and after any resume.

    Args:
        brightness: b in [0, 1]; the factor is uniform in [1 - b, 1 + b).
        contrast: likewise.
        saturation: likewise.
        hue: h in [0, 1/2]; the shift is uniform in [-h, h) of the colour circle.
        rotation: in [0, 180] degrees; the angle is uniform in [-rotation, rotation).
        background: RGB bytes that fill what a rotation uncovers: the data's own background.
        seed: the run's seed.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        rotation: float = 0.0,
        background: Sequence[int] = (255, 255, 255),
        seed: int = 0,
    ) -> None:
        _check("brightness", brightness, 1.0)
        _check("contrast", contrast, 1.0)
        _check("saturation", saturation, 1.0)
        _check("hue", hue, 0.5)
        _check("rotation", rotation, 180.0)
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue
        self.rotation = rotation
        self.background = checked_background(background)
        self.seed = seed

    @property
    def active(self) -> bool:
        """Whether there is anything to do."""
        strengths = (self.brightness, self.contrast, self.saturation, self.hue, self.rotation)
        return any(strengths)

    @torch.no_grad()
    def __call__(self, pictures: Tensor, samples: Tensor) -> Tensor:
        """Return the pictures augmented; the input itself when there is nothing to do.

        Args:
            pictures: [N, 3, H, W] float32 or bfloat16 in [-1, 1].
            samples: [N] int64 global sample indices, on the device of `pictures`.

        Returns:
            Like `pictures`, in the same memory format; computed in float32.
        """
        jitters = any((self.brightness, self.contrast, self.saturation, self.hue))
        if not (jitters or self.rotation):
            return pictures
        values = widened(pictures)
        if self.rotation:
            draws = symmetric_uniform(self.seed, Stream.ROTATION, 0, samples, 1)[:, 0]
            values = resample(values, rotation(draws * self.rotation), self.background)
        if jitters:
            values = self._jittered(values, samples)
        return restored(values, pictures)

    def _jittered(self, values: Tensor, samples: Tensor) -> Tensor:
        draws = symmetric_uniform(self.seed, Stream.JITTER, 0, samples, 4)  # a word a change
        values = values.mul(0.5).add_(0.5).clamp_(0, 1)
        if self.brightness:
            values = adjust_brightness(values, draws[:, 0] * self.brightness + 1)
        if self.contrast:
            values = adjust_contrast(values, draws[:, 1] * self.contrast + 1)
        if self.saturation:
            values = adjust_saturation(values, draws[:, 2] * self.saturation + 1)
        if self.hue:
            values = adjust_hue(values, draws[:, 3] * self.hue)
        return values.mul_(2).sub_(1)


def _check(name: str, strength: float, most: float) -> None:
    if not 0 <= strength <= most:
        raise ConfigError(f"{name} {strength:g}: give a number from 0 to {most:g}")
