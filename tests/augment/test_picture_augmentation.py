"""What the real pictures go through: factors, background, reproducibility, precision."""

import pytest
import torch
from torchvision.transforms import functional as reference

from pokegan.augment import PictureAugmentation
from pokegan.augment.geometry import resample, rotation
from pokegan.errors import ConfigError
from pokegan.ops.random import Stream, symmetric_uniform

STRENGTHS = {"brightness": 0.3, "contrast": 0.2, "saturation": 0.1, "hue": 0.1}
WHITE = (255, 255, 255)


def some_pictures(count: int = 6, size: int = 16) -> torch.Tensor:
    random = torch.Generator().manual_seed(4)
    pictures = torch.rand((count, 3, size, size), generator=random) * 2 - 1
    return pictures.contiguous(memory_format=torch.channels_last)


def test_nothing_to_do_returns_the_input() -> None:
    pictures = some_pictures()
    assert PictureAugmentation(seed=1)(pictures, torch.arange(6)) is pictures


def test_rotation_then_the_four_changes_with_counted_factors() -> None:
    pictures, samples = some_pictures(), torch.arange(100, 106)
    augment = PictureAugmentation(**STRENGTHS, rotation=15, background=WHITE, seed=7)
    got = augment(pictures, samples)
    draws = symmetric_uniform(7, Stream.JITTER, 0, samples, 4)
    angles = symmetric_uniform(7, Stream.ROTATION, 0, samples, 1)[:, 0] * 15
    rotated = resample(pictures.contiguous(), rotation(angles), WHITE) * 0.5 + 0.5
    for i in range(6):
        brightness, contrast, saturation, hue = (
            draw * strength
            for draw, strength in zip(draws[i].tolist(), STRENGTHS.values(), strict=True)
        )
        want = reference.adjust_brightness(rotated[i], 1 + brightness)
        want = reference.adjust_contrast(want, 1 + contrast)
        want = reference.adjust_saturation(want, 1 + saturation)
        want = reference.adjust_hue(want, hue)
        torch.testing.assert_close(got[i], want * 2 - 1, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", [*STRENGTHS, "rotation"])
def test_each_strength_alone_changes_pictures_and_nothing_else_does(name: str) -> None:
    pictures, samples = some_pictures(), torch.arange(6)
    strength = {**STRENGTHS, "rotation": 15.0}[name]
    got = PictureAugmentation(**{name: strength}, seed=1)(pictures, samples)
    assert (got - pictures).abs().amax((1, 2, 3)).min() > 1e-3
    slight = PictureAugmentation(**{name: 1e-6}, seed=1)(pictures, samples)
    torch.testing.assert_close(slight, pictures, atol=1e-4, rtol=0)


def test_factors_cover_their_interval() -> None:
    """Of a flat grey picture, brightness gives the factor back."""
    grey = torch.full((4000, 3, 1, 1), -0.5)
    got = PictureAugmentation(brightness=0.4, seed=3)(grey, torch.arange(4000))
    factors = (got[:, 0, 0, 0] + 1) / 0.5
    assert 0.6 <= factors.min() < 0.605
    assert 1.395 < factors.max() <= 1.4
    assert factors.mean().item() == pytest.approx(1.0, abs=0.02)
    assert factors.std().item() == pytest.approx(0.8 / 12**0.5, abs=0.01)


def test_white_corners_stay_white() -> None:
    pictures = some_pictures(8, 32)
    rows = torch.arange(32) - 15.5
    outside = rows[:, None].square() + rows.square() > 12**2
    pictures = torch.where(outside, torch.ones(()), pictures)
    got = PictureAugmentation(rotation=45, background=WHITE, seed=5)(pictures, torch.arange(8))
    assert not torch.equal(got, pictures)
    far = rows[:, None].square() + rows.square() > 14**2
    assert torch.equal(got[:, :, far], torch.ones_like(got[:, :, far]))


def test_corners_have_the_colour_that_jitter_gives_the_background() -> None:
    levels = torch.tensor([40.0, 90.0, 200.0]) / 127.5 - 1
    pictures = levels.view(1, 3, 1, 1).expand(6, 3, 16, 16)
    augment = PictureAugmentation(**STRENGTHS, rotation=30, background=(40, 90, 200), seed=2)
    got = augment(pictures, torch.arange(6))
    torch.testing.assert_close(got, got[:, :, 8:9, 8:9].expand_as(got), atol=1e-5, rtol=0)


def test_a_sample_is_augmented_the_same_in_any_batch() -> None:
    pictures, samples = some_pictures(), torch.arange(6) + 2**31
    augment = PictureAugmentation(**STRENGTHS, rotation=20, seed=9)
    together = augment(pictures, samples)
    order = torch.tensor([4, 1, 5])
    torch.testing.assert_close(
        augment(pictures[order], samples[order]), together[order], atol=1e-5, rtol=0
    )
    assert torch.equal(augment(pictures, samples), together)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_bfloat16_is_the_rounded_float32(memory: torch.memory_format) -> None:
    pictures = some_pictures().bfloat16().contiguous(memory_format=memory)
    augment = PictureAugmentation(**STRENGTHS, rotation=20, seed=9)
    got = augment(pictures, torch.arange(6))
    assert got.is_contiguous(memory_format=memory)
    assert torch.equal(got, augment(pictures.float(), torch.arange(6)).bfloat16())


def test_the_input_is_left_as_it_was() -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        pictures = some_pictures().contiguous(memory_format=layout)
        before = pictures.clone()
        PictureAugmentation(**STRENGTHS, seed=1)(pictures, torch.arange(6))
        assert torch.equal(pictures, before)


def test_compiled_is_eager() -> None:
    augment = PictureAugmentation(**STRENGTHS, rotation=20, background=(1, 2, 3), seed=9)
    compiled = torch.compile(augment, backend="aot_eager", fullgraph=True)
    pictures, samples = some_pictures(), torch.arange(6)
    torch.testing.assert_close(compiled(pictures, samples), augment(pictures, samples))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"brightness": 1.5}, "brightness 1.5: give a number from 0 to 1"),
        ({"contrast": -0.1}, "contrast -0.1"),
        ({"saturation": float("nan")}, "saturation nan"),
        ({"hue": 0.6}, "hue 0.6: give a number from 0 to 0.5"),
        ({"rotation": 181.0}, "rotation 181"),
        ({"background": (0, 0, 256)}, "background"),
    ],
)
def test_a_strength_out_of_range_is_named(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PictureAugmentation(**arguments)
