"""Creatures drawn from (seed, index) with NumPy alone; the first 1,024 are the demo set.

A creature is a list of painted layers in resolution-independent units, fixed by its dice before any
size is known; `draw_creature` fits it into the picture and paints it. Knows nothing of files.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pokegan.data.creature_drifters import bird, butterfly, fish, ghost, jelly, serpent, sprout
from pokegan.data.creature_parts import Dice, Palette, choose_palette
from pokegan.data.creature_shapes import Box, Layer, extent, render
from pokegan.data.creature_walkers import (
    biped,
    blob,
    caterpillar,
    crab,
    dragon,
    quadruped,
    turtle,
)

COUNT = 1024  # of the demo set
MOST = 1_000_000
_MIN_SIZE, _MAX_SIZE = 8, 1024

_PLANS: dict[str, Callable[[Dice, Palette], list[Layer]]] = {
    plan.__name__: plan
    for plan in (
        biped,
        quadruped,
        dragon,
        turtle,
        blob,
        caterpillar,
        crab,
        bird,
        fish,
        serpent,
        butterfly,
        ghost,
        jelly,
        sprout,
    )
}
PLANS = tuple(_PLANS)


def draw_creature(index: int, size: int = 256, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Draw creature `index` of the set `seed`: [size, size, 4] uint8 RGBA, straight alpha.

    The same (seed, index) is the same creature at every `size` from 8 to 1024 px. `index` runs from
    0 to MOST - 1 and `seed` from 0 to 2**64 - 1; anything else is a ValueError. The background is
    transparent, and fully transparent pixels are white.
    """
    _check(index, size, seed)
    dice = Dice(seed, index)
    plan = _PLANS[dice.pick(PLANS)]
    layers = plan(dice, choose_palette(dice))
    return render(layers, _framed(extent(layers), dice.between(0.80, 0.88)), size)


def body_plan(index: int, seed: int = 0) -> str:
    """The name of the body plan of creature `index`, one of `PLANS`; errors as `draw_creature`."""
    _check(index, _MIN_SIZE, seed)
    return Dice(seed, index).pick(PLANS)


def _check(index: int, size: int, seed: int) -> None:
    if not 0 <= index < MOST:
        raise ValueError(f"creature index must be from 0 to {MOST - 1}, not {index}")
    if not _MIN_SIZE <= size <= _MAX_SIZE:
        raise ValueError(f"creature size must be from {_MIN_SIZE} to {_MAX_SIZE} px, not {size}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"creature seed must be from 0 to 2**64 - 1, not {seed}")


def _framed(box: Box, fill: float) -> Box:
    """The square view in which `box`, centred, takes up `fill` of the longer side."""
    left, top, right, bottom = box
    half = max(right - left, bottom - top) / (2 * fill)
    x, y = (left + right) / 2, (top + bottom) / 2
    return x - half, y - half, x + half, y + half
