"""Copies are found in their number, changed a little or mirrored; what is new is not called one."""

import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pokegan.metrics.features import PyramidFeatures
from pokegan.metrics.memorisation import (
    Copies,
    copies_by_features,
    copies_by_pixels,
    thumbnails,
)

Pictures = NDArray[np.uint8]
SHARE = 0.3
WHITE = (255, 255, 255)


def noisy(pictures: Pictures) -> Pictures:
    noise = np.random.default_rng(0).normal(0, 8, pictures.shape)
    return (pictures + noise).clip(0, 255).astype(np.uint8)


def compressed(pictures: Pictures) -> Pictures:
    found = []
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=50)
        found.append(np.asarray(Image.open(file)))
    return np.stack(found)


CHANGES = {
    "as they are": lambda pictures: pictures,
    "mirrored": lambda pictures: pictures[:, :, ::-1],
    "moved by 2 px": lambda pictures: np.roll(pictures, 2, axis=2),
    "with noise": noisy,
    "as JPEG": compressed,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_generator_that_copies_30_per_cent(creatures: Pictures, change: str) -> None:
    train, unseen = creatures[:120], creatures[120:]
    copies = round(SHARE * 120)
    fakes = np.concatenate([CHANGES[change](train[40 : 40 + copies]), unseen[: 120 - copies]])
    found = copies_by_pixels(thumbnails(train), thumbnails(fakes), WHITE)
    assert float(found.flagged.double().mean()) == pytest.approx(SHARE, abs=0.05)
    right = found.nearest[:copies] == torch.arange(40, 40 + copies)
    assert float(right.double().mean()) > 0.95


@pytest.mark.parametrize("change", ["as they are", "mirrored"])
def test_copies_in_features(creatures: Pictures, change: str) -> None:
    train, unseen = creatures[:120], creatures[120:]
    fakes = np.concatenate([CHANGES[change](train[:36]), unseen[:84]])
    features = PyramidFeatures()
    plain, mirrored = features(train), features(np.ascontiguousarray(train[:, :, ::-1]))
    found = copies_by_features(plain, mirrored, features(fakes))
    assert float(found.flagged.double().mean()) == pytest.approx(SHARE, abs=0.05)


@pytest.mark.parametrize(
    "made",
    [
        lambda train, unseen: unseen,
        lambda train, unseen: np.full_like(unseen, 255),
        lambda train, unseen: np.repeat(train.mean(0, keepdims=True).astype(np.uint8), 50, axis=0),
        lambda train, unseen: np.random.default_rng(0).integers(0, 256, unseen.shape, np.uint8),
    ],
    ids=["unseen pictures", "empty pictures", "the mean picture", "noise"],
)
def test_what_is_no_copy_is_not_flagged(creatures: Pictures, made) -> None:
    train, unseen = creatures[:120], creatures[120:]
    found = copies_by_pixels(thumbnails(train), thumbnails(made(train, unseen)), WHITE)
    assert float(found.flagged.double().mean()) <= 0.03
    assert found.twins <= 0.03


def washed_out(pictures: Pictures) -> Pictures:
    """A tenth of their contrast, on the ground."""
    return (255 - (255 - pictures.astype(float)) / 10).astype(np.uint8)


def test_what_is_washed_out_is_no_copy_of_a_pale_picture(creatures: Pictures) -> None:
    """A pale creature is far from all others, and near to nothing but an empty ground."""
    train = np.concatenate([washed_out(creatures[:2]), creatures[2:120]])
    blank = np.full_like(creatures[:20], 255)
    fakes = np.concatenate([blank, washed_out(creatures[120:140])])
    found = copies_by_pixels(thumbnails(train), thumbnails(fakes), WHITE)
    assert float(found.flagged.double().mean()) <= 0.05
    again = copies_by_pixels(thumbnails(train), thumbnails(train[:2]), WHITE)
    assert bool(again.flagged.all())


def test_blurred_pictures_are_not_all_near_to_the_same_one(creatures: Pictures) -> None:
    train, unseen = creatures[:120], creatures[120:184]
    flat = (0.3 * unseen + 0.7 * unseen.mean(axis=0)).astype(np.uint8)
    found = copies_by_pixels(thumbnails(train), thumbnails(flat), WHITE)
    pixels = [thumbnails(one).reshape(len(one), -1).astype(float) for one in (train, flat)]
    plain = [np.square(pixels[0] - one).sum(axis=1).argmin() for one in pixels[1]]
    assert len(found.nearest.unique()) > 1.5 * len(set(plain))


def test_copies_of_a_picture_with_a_twin_are_found(creatures: Pictures) -> None:
    train = np.concatenate([creatures[:60], creatures[:20]])
    found = copies_by_pixels(thumbnails(train), thumbnails(noisy(creatures[:20])), WHITE)
    assert bool(found.flagged.all())
    assert found.twins == pytest.approx(0.5)


def test_the_rule_as_it_is_written() -> None:
    """Half of the nearest training picture's distance to the next, or of their lower quartile."""
    real = torch.tensor([[0.0], [8.0], [18.0], [19.0], [40.0]])  # apart 8, 8, 1, 1, 21: quartile 1
    fake = torch.tensor([[3.9], [-4.1], [18.4], [19.6], [50.4], [29.0]])
    far = real + 1000
    found = copies_by_features(real, far, fake)
    assert found.nearest.tolist() == [0, 0, 2, 3, 4, 3]
    closeness = torch.tensor([3.9 / 4, 4.1 / 4, 0.4 / 0.5, 0.6 / 0.5, 10.4 / 10.5, 10 / 0.5])
    torch.testing.assert_close(found.closeness.float(), closeness)
    assert found.flagged.tolist() == [True, False, True, False, True, False]


def test_thumbnails_of_small_pictures_are_the_pictures(creatures: Pictures) -> None:
    small = creatures[:3, ::4, ::4]
    assert (thumbnails(small) == small).all()
    assert thumbnails(creatures[:3]).shape == (3, 32, 32, 3)
    assert isinstance(copies_by_pixels(small, small, WHITE), Copies)
