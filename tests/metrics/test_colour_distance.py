"""Colours and covered shares: known values of OKLab, exact distances of made sets."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pokegan.metrics.colour import (
    _directions,
    colour_distance,
    colours,
    coverage_distance,
    oklab,
)

WHITE = (255, 255, 255)


def flat(colour: tuple[int, int, int], count: int = 4, side: int = 32) -> NDArray[np.uint8]:
    return np.broadcast_to(np.array(colour, np.uint8), (count, side, side, 3)).copy()


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [  # B. Ottosson's page and the CSS Color 4 definition of the sRGB primaries
        ((1.0, 1.0, 1.0), (1.0, 0.0, 0.0)),
        ((1.0, 0.0, 0.0), (0.62796, 0.22486, 0.12585)),
        ((0.0, 1.0, 0.0), (0.86644, -0.23389, 0.17950)),
        ((0.0, 0.0, 1.0), (0.45201, -0.03246, -0.31153)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    ],
)
def test_oklab_of_the_primaries(rgb: tuple[float, ...], lab: tuple[float, ...]) -> None:
    found = oklab(torch.tensor(rgb).view(1, 3, 1, 1)).flatten()
    torch.testing.assert_close(found, torch.tensor(lab), atol=2e-4, rtol=0)


def test_the_distance_of_two_greys_is_that_of_their_lightness() -> None:
    """Along a direction all pixels move by its cosine to L, whose mean is 1/2 over a sphere."""
    one, two = (colours(flat((level,) * 3), WHITE) for level in (40, 120))
    dark, light = (oklab(torch.full((1, 3, 1, 1), level / 255))[0, 0] for level in (40, 120))
    assert colour_distance(one, two) == pytest.approx(50 * float(light - dark), rel=0.03)


def test_covered_shares_move_by_what_the_pictures_say() -> None:
    quarter = flat(WHITE)
    quarter[:, :16, :16] = 0
    half = flat(WHITE)
    half[:, :16] = 0
    one, two = colours(quarter, WHITE), colours(half, WHITE)
    assert one.coverage.tolist() == [0.25] * 4
    assert coverage_distance(one, two) == pytest.approx(25)
    assert coverage_distance(one, colours(flat(WHITE), WHITE)) == pytest.approx(25)
    assert colours(quarter, (0, 0, 0)).coverage.tolist() == [0.75] * 4


def test_the_order_of_pictures_and_the_number_of_copies_do_not_matter() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    one = colours(pictures, WHITE)
    two = colours(np.concatenate([pictures[::-1], pictures]), WHITE)
    assert colour_distance(one, two) == pytest.approx(0, abs=1e-9)


def test_the_distance_is_that_of_sorted_colours() -> None:
    """Of equally many pixels: the mean difference of the sorted projections."""
    random = np.random.default_rng(1)
    sets = [random.integers(low, 256, (5, 32, 32, 3), np.uint8) for low in (0, 90)]
    pixels = [oklab(torch.from_numpy(one).permute(0, 3, 1, 2) / 255) for one in sets]
    rows = [_directions() @ one.permute(1, 0, 2, 3).flatten(1) for one in pixels]
    wanted = 100 * float((rows[0].sort(dim=1).values - rows[1].sort(dim=1).values).abs().mean())
    found = colour_distance(colours(sets[0], WHITE), colours(sets[1], WHITE))
    assert found == pytest.approx(wanted, abs=0.03)
    assert wanted > 5
