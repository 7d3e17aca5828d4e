"""The sliced Wasserstein distance against a slow one written from the paper, level by level."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pokegan.metrics import sliced
from pokegan.metrics.pyramid import grow, laplacian, levels, shrink
from pokegan.metrics.resize import as_floats

Pictures = NDArray[np.uint8]


@pytest.fixture(scope="module")
def small(creatures: Pictures) -> Pictures:
    """48 of 32 px."""
    return np.ascontiguousarray(creatures[:48, ::2, ::2])


def slowly(image: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """A Laplacian pyramid of one channel by sums over neighbours, mirrored without the edge."""
    taps = np.array([1, 4, 6, 4, 1]) / 16

    def blurred(plane: NDArray[np.float64]) -> NDArray[np.float64]:
        wide = np.pad(plane, 2, mode="reflect")
        rows, columns = plane.shape
        return sum(
            taps[i] * taps[j] * wide[i : i + rows, j : j + columns]
            for i in range(5)
            for j in range(5)
        )

    bands = []
    while len(image) % 2 == 0 and len(image) // 2 >= 16:
        small = blurred(image)[::2, ::2]
        wide = np.zeros_like(image)
        wide[::2, ::2] = small
        bands.append(image - 4 * blurred(wide))
        image = small
    return [*bands, image]


def test_the_pyramid_equals_sums_over_neighbours(small: Pictures) -> None:
    images = as_floats(small[:2]).double()
    for index, band in enumerate(laplacian(images)):
        wanted = slowly(images[1, 2].numpy())[index]
        np.testing.assert_allclose(band[1, 2].numpy(), wanted, atol=1e-12)


def test_the_bands_add_up_to_the_picture(small: Pictures) -> None:
    images = as_floats(small[:3])
    fine, rest = laplacian(images)
    torch.testing.assert_close(grow(rest) + fine, images)
    assert shrink(images).shape == rest.shape == (3, 3, 16, 16)


@pytest.mark.parametrize(
    ("size", "sides"), [(64, [64, 32, 16]), (16, [16]), (48, [48, 24]), (8, [8]), (40, [40, 20])]
)
def test_levels_end_at_16_px(size: int, sides: list[int]) -> None:
    assert levels(size) == sides


def test_equals_the_paper_written_slowly(small: Pictures) -> None:
    real, fake = small[:24], small[24:]
    found = sliced.sliced_wasserstein(real, fake, seed=3)
    generator = torch.Generator().manual_seed(3)
    directions = torch.randn(512, 147, generator=generator).double().numpy()
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for level, side in enumerate(levels(32)):
        sets = []
        for order, pictures in enumerate((real, fake)):
            taken = sliced.patches(pictures, level, 3 + order).double().numpy()
            taken -= taken.mean(axis=(0, 2, 3), keepdims=True)
            taken /= taken.std(axis=(0, 2, 3), keepdims=True)
            sets.append(taken.reshape(len(taken), -1))
        wanted = np.mean(
            [np.abs(np.sort(sets[0] @ one) - np.sort(sets[1] @ one)).mean() for one in directions]
        )
        assert found[side] == pytest.approx(1000 * wanted, rel=1e-4)


def test_patches_are_cut_from_their_level(small: Pictures) -> None:
    """Each is somewhere in the band of its picture, as it is."""
    for level in (0, 1):
        found = sliced.patches(small[:2], level, 5)
        assert found.shape == (256, 3, 7, 7)
        band = laplacian(as_floats(small[:2]))[level]
        windows = band.unfold(2, 7, 1).unfold(3, 7, 1).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
        for index in (0, 100, 128, 255):
            away = (windows[index // 128] - found[index]).abs().amax(dim=(1, 2, 3))
            assert float(away.min()) < 1e-6
    assert (sliced.patches(small[:2], 0, 5) == sliced.patches(small[:2], 0, 5)).all()


def test_blur_shows_in_fine_levels(small: Pictures) -> None:
    real, other = small[:24], small[24:]
    images = as_floats(other)
    blurred = grow(shrink(images)).clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    sharp, soft = (sliced.sliced_wasserstein(real, one) for one in (other, blurred))
    assert soft[32] > 2 * sharp[32]


def test_one_colour_everywhere_is_no_division_by_0(small: Pictures) -> None:
    blank = np.full_like(small, 255)
    found = sliced.sliced_wasserstein(small, blank)
    assert all(np.isfinite(value) and value > 100 for value in found.values())


@pytest.mark.parametrize("seed", [2**62, 2**63 - 1])
def test_any_seed_of_latents_is_one_of_patches(small: Pictures, seed: int) -> None:
    found = sliced.sliced_wasserstein(small[:4], small[4:8], seed)
    assert found != sliced.sliced_wasserstein(small[:4], small[4:8], seed - 1)
