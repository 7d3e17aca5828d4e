"""Smaller pictures for the earlier stages of growth, against the mean written anew."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pokegan.data import shrink
from pokegan.data.shrink import downscaled
from pokegan.errors import ConfigError


@given(
    st.tuples(st.integers(0, 3), st.sampled_from([1, 2, 3]), st.sampled_from([1, 2, 3, 4])).flatmap(
        lambda t: st.tuples(
            arrays.arrays(np.uint8, (t[0], t[1] * t[2], t[1] * t[2], 3)), st.just(t[1])
        )
    )
)
def test_small_pictures_are_block_means_ties_up(case: tuple[np.ndarray, int]) -> None:
    images, size = case
    factor = images.shape[1] // size
    small = downscaled(images, size)
    assert small.dtype == np.uint8
    assert small.shape == (len(images), size, size, 3)
    for n, y, x, c in np.ndindex(small.shape):
        rows, columns = (slice(k * factor, (k + 1) * factor) for k in (y, x))
        mean = sum(map(int, images[n, rows, columns, c].flat)) / factor**2  # exact in binary64
        assert small[n, y, x, c] == math.floor(mean + 0.5)


def test_small_pictures_do_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    whole = downscaled(images, 4)
    for chunk in (1, 2 * 8 * 8 * 3):
        monkeypatch.setattr(shrink, "_CHUNK", chunk)
        np.testing.assert_array_equal(downscaled(images, 4), whole)
    assert downscaled(images, 8) is images


def test_a_tie_is_rounded_up() -> None:
    block = np.array([[1, 1], [2, 2]], np.uint8)
    images = np.repeat(block[None, :, :, None], 3, axis=3)
    assert downscaled(images, 1).tolist() == [[[[2, 2, 2]]]]


@pytest.mark.parametrize("size", [0, 3, 16])
def test_sizes_that_do_not_divide_are_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"8 px cannot become {size} px"):
        downscaled(np.zeros((1, 8, 8, 3), np.uint8), size)


@pytest.mark.parametrize("factor", [2, 11, 12, 16, 64])
def test_sums_of_large_blocks_do_not_overflow(factor: int) -> None:
    white = np.full((1, factor, factor, 3), 255, np.uint8)
    assert downscaled(white, 1).tolist() == [[[[255, 255, 255]]]]
