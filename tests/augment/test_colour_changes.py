"""Colour changes against torchvision's functional ones, and against colorsys."""

import colorsys

import pytest
import torch
from torchvision.transforms import functional as reference

from pokegan.augment import colour

PAIRS = {
    "brightness": (colour.adjust_brightness, reference.adjust_brightness),
    "contrast": (colour.adjust_contrast, reference.adjust_contrast),
    "saturation": (colour.adjust_saturation, reference.adjust_saturation),
}
LUMA_TOLERANCE = 2e-4  # torchvision's luma weights sum to 0.9999


def some_pictures(count: int = 5) -> torch.Tensor:
    """Pictures of byte levels with greys, ties between channels, black and white."""
    pictures = torch.randint(0, 256, (count, 3, 9, 7), generator=torch.Generator().manual_seed(3))
    pictures[0, :, :4] = 255
    pictures[1, :, 2:] = pictures[1, :1, 2:]
    pictures[2, 1] = pictures[2, 2]
    pictures[3, 0] = pictures[3, 1]
    pictures[4, :, :3] = 0
    return pictures / 255


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_change_is_that_of_torchvision(name: str, dtype: torch.dtype) -> None:
    ours, theirs = PAIRS[name]
    pictures = some_pictures().to(dtype)
    factors = torch.tensor([0.0, 0.5, 1.0, 1.3, 2.0])
    got = ours(pictures.clone(), factors)
    want = torch.stack([theirs(pictures[i], factors[i].item()) for i in range(5)])
    assert got.dtype == dtype
    torch.testing.assert_close(got, want, atol=LUMA_TOLERANCE, rtol=0)


@pytest.mark.parametrize("shift", [-0.5, -0.31, -0.1, 0.0, 0.07, 1 / 6, 0.33, 0.5])
def test_hue_is_that_of_torchvision(shift: float) -> None:
    pictures = some_pictures()
    got = colour.adjust_hue(pictures.clone(), torch.full((5,), shift))
    want = reference.adjust_hue(pictures, shift)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_hue_is_that_of_the_standard_library() -> None:
    pictures = some_pictures(6).double()
    shifts = torch.linspace(-0.5, 0.5, 6, dtype=torch.float64)
    got = colour.adjust_hue(pictures.clone(), shifts).permute(0, 2, 3, 1)
    for shift, before, after in zip(shifts.tolist(), pictures, got, strict=True):
        for old, new in zip(before.flatten(1).T.tolist(), after.flatten(0, 1), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*old)
            want = colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)
            assert new.tolist() == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("change", [ours for ours, _ in PAIRS.values()])
def test_factor_one_is_the_identity(change) -> None:
    pictures = some_pictures()
    got = change(pictures.clone(), torch.ones(5))
    torch.testing.assert_close(got, pictures, atol=1e-6, rtol=0)


def test_greys_keep_their_level_under_saturation_and_hue() -> None:
    greys = torch.linspace(0, 1, 12).view(1, 1, 3, 4).expand(1, 3, 3, 4)
    for factor in (0.0, 0.7, 1.9):
        got = colour.adjust_saturation(greys.clone(), torch.tensor([factor]))
        torch.testing.assert_close(got, greys, atol=1e-6, rtol=0)
    got = colour.adjust_hue(greys.clone(), torch.tensor([0.4]))
    torch.testing.assert_close(got, greys, atol=1e-6, rtol=0)
