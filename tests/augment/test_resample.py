"""Resampling against torchvision's rotation, a reading pixel by pixel, and finite differences."""

import math

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from pokegan.augment.geometry import Placement, resample, rotation

BACKGROUND = (200, 30, 255)
LEVELS = torch.tensor(BACKGROUND).view(3, 1, 1) / 127.5 - 1


def some_pictures(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.rand(shape, generator=random, dtype=dtype) * 2 - 1


def some_placement(count: int) -> Placement:
    random = torch.Generator().manual_seed(2)
    linear = torch.eye(2) + 0.6 * torch.randn((count, 2, 2), generator=random)
    offset = 1.5 * torch.randn((count, 2), generator=random)
    return Placement(*linear.flatten(1).unbind(1), *offset.unbind(1))


def read_by_pixel(
    picture: torch.Tensor, parts: list[float], background: tuple[int, ...] | None
) -> torch.Tensor:
    """Return one [C, H, W] picture read at its placement, with Python's own arithmetic."""
    channels, height, width = picture.shape
    out = torch.empty_like(picture)

    def reflected(place: int, side: int) -> int:
        place %= 2 * side
        return place if place < side else 2 * side - 1 - place

    def value(channel: int, y: int, x: int) -> float:
        if background is None:
            return picture[channel, reflected(y, height), reflected(x, width)].item()
        if 0 <= y < height and 0 <= x < width:
            return picture[channel, y, x].item()
        return background[channel] / 127.5 - 1

    for row in range(height):
        for column in range(width):
            across, down = column + 0.5 - width / 2, row + 0.5 - height / 2
            x = parts[0] * across + parts[1] * down + parts[4] + width / 2 - 0.5
            y = parts[2] * across + parts[3] * down + parts[5] + height / 2 - 0.5
            left, top = math.floor(x), math.floor(y)
            for channel in range(channels):
                out[channel, row, column] = sum(
                    (1 - abs(x - left - i))
                    * (1 - abs(y - top - j))
                    * value(channel, top + j, left + i)
                    for i in (0, 1)
                    for j in (0, 1)
                )
    return out


@pytest.mark.parametrize("background", [BACKGROUND, None])
def test_a_placement_is_read_bilinearly(background: tuple[int, ...] | None) -> None:
    pictures = some_pictures(4, 3, 7, 5, dtype=torch.float64)
    placement = some_placement(4)
    got = resample(pictures, placement, background)
    want = [
        read_by_pixel(picture, [part[i].item() for part in placement], background)
        for i, picture in enumerate(pictures)
    ]
    torch.testing.assert_close(got, torch.stack(want))


@pytest.mark.parametrize("angle", [-180.0, -90.0, -15.0, 0.0, 7.5, 33.0, 90.0])
@pytest.mark.parametrize("shape", [(12, 12), (9, 14)])
def test_a_rotation_is_that_of_torchvision(angle: float, shape: tuple[int, int]) -> None:
    pictures = some_pictures(2, 3, *shape)
    got = resample(pictures, rotation(torch.full((2,), angle)), BACKGROUND)
    bilinear = InterpolationMode.BILINEAR
    filled = reference.rotate(pictures, angle, bilinear, fill=LEVELS.flatten().tolist())
    cover = reference.rotate(torch.ones_like(pictures), angle, bilinear)
    # On the border torchvision counts what lies outside twice: its white pictures get grey edges.
    whole = (cover < 1e-6) | (cover > 1 - 1e-6)
    assert whole.float().mean() > 0.5
    torch.testing.assert_close(got[whole], filled[whole], atol=2e-5, rtol=0)
    want = reference.rotate(pictures - LEVELS, angle, bilinear) + LEVELS
    torch.testing.assert_close(got, want, atol=2e-5, rtol=0)


def test_a_picture_of_background_stays_so_to_its_corners() -> None:
    picture = LEVELS.expand(1, 3, 16, 16)
    for angle in (3.0, 15.0, 45.0):
        got = resample(picture, rotation(torch.tensor([angle])), BACKGROUND)
        torch.testing.assert_close(got, picture, atol=1e-6, rtol=0)


def test_quarter_turns_and_moves_are_exact() -> None:
    pictures = some_pictures(2, 3, 16, 16)
    zero, one = torch.zeros(2), torch.ones(2)
    turned = resample(pictures, Placement(zero, -one, one, zero, zero, zero))
    assert torch.equal(turned, pictures.rot90(1, (2, 3)))
    moved = resample(pictures, Placement(one, zero, zero, one, -3 * one, 2 * one))
    assert torch.equal(moved[:, :, :-2, 3:], pictures[:, :, 2:, :-3])


@pytest.mark.parametrize("background", [BACKGROUND, None])
def test_both_gradients_are_those_of_finite_differences(
    background: tuple[int, ...] | None,
) -> None:
    pictures = some_pictures(2, 3, 4, 3, dtype=torch.float64).requires_grad_()
    placement = some_placement(2)

    def squared(pictures: torch.Tensor) -> torch.Tensor:
        return resample(pictures, placement, background).square()

    assert torch.autograd.gradcheck(squared, pictures)
    assert torch.autograd.gradgradcheck(squared, pictures)


def test_the_operators_are_well_registered() -> None:
    pictures = some_pictures(2, 3, 4, 5).requires_grad_()
    grid = some_pictures(2, 4, 5, 2) * 1.2
    for name in ("sample_bilinear", "sample_bilinear_adjoint"):
        torch.library.opcheck(getattr(torch.ops.pokegan, name), (pictures, grid, 2))


def test_the_second_operator_is_the_adjoint_of_the_first() -> None:
    first, second = (some_pictures(2, 3, 4, 5, dtype=torch.float64) for _ in range(2))
    grid = some_pictures(2, 4, 5, 2, dtype=torch.float64) * 1.2
    for padding in (0, 2):
        forward = torch.ops.pokegan.sample_bilinear(first, grid, padding)
        backward = torch.ops.pokegan.sample_bilinear_adjoint(second.flip(0), grid, padding)
        torch.testing.assert_close((forward * second.flip(0)).sum(), (first * backward).sum())
