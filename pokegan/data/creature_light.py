"""Light on the parts of a demo creature: the shading of a flat shape as a cushion."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.floating]

_LIGHT = (-0.55, -0.835)  # towards the lamp: the upper left
_SHADOW = (0.74, 0.70, 0.84)  # what full shadow multiplies red, green and blue by
_GLOW = 0.34  # how far full light moves a colour towards white


def limited(values: Array, low: float, high: float) -> Array:
    """`np.clip`, which takes longer than small arrays do."""
    limited: Array = np.minimum(np.maximum(values, low), high)
    return limited


def _slope(values: Array, reach: int) -> Array:
    """What lies `reach` rows below less what lies as far above; outside, edges are mirrored odd."""
    above = 2 * values[:1] - values[reach:0:-1]
    below = 2 * values[-1:] - values[-2 : -2 - reach : -1]
    wide = np.concatenate([above, values, below])
    difference: Array = wide[2 * reach :] - wide[: -2 * reach]
    return difference


def _smoothstep(low: float, high: float, value: Array) -> Array:
    t = limited((value - low) * (1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def shade(colour: Array, distance: Array, pixel: float, strength: float) -> None:
    """Light `colour` [3, h, w] as if the shape were a cushion: a bright rim and a dark one.

    The slopes are taken over a wide step, which rounds the creases along the medial axis.
    """
    depth = max(-float(distance.min()), pixel)
    reach = min(max(round(0.3 * depth / pixel), 1), min(distance.shape) - 1)
    right = _slope(distance.T, reach).T * (0.5 / (reach * pixel))
    down = _slope(distance, reach) * (0.5 / (reach * pixel))
    slope = 1 + limited(distance * (1 / (0.7 * depth)), -1, 0)  # 0 on the plateau, 1 at the rim
    facing = (right * _LIGHT[0] + down * _LIGHT[1]) * slope
    dark, light = _smoothstep(0.22, 0.62, -facing), _smoothstep(0.25, 0.9, facing)
    for channel, tint in zip(colour, _SHADOW, strict=True):
        channel *= 1 - dark * (strength * (1 - tint))
        channel += (1 - channel) * light * (strength * _GLOW)
