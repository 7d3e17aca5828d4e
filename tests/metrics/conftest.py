"""Demo creatures on white, for the tests of measures."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pokegan.data.creatures import draw_creature

HALF = 120


def on_white(count: int, size: int) -> NDArray[np.uint8]:
    """Return the first demo creatures, [count, size, size, 3] uint8."""
    drawn = np.stack([draw_creature(index, size) for index in range(count)]).astype(np.float64)
    alpha = drawn[..., 3:] / 255
    return np.rint(drawn[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


@pytest.fixture(scope="session")
def creatures() -> NDArray[np.uint8]:
    """240 of 64 px: the first half to train on, the second never seen."""
    return on_white(2 * HALF, 64)
