"""The printed order of generators: a collapsed one never stands above a diverse one."""

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pokegan.metrics.digest import digest_reals
from pokegan.metrics.evaluation import evaluate
from pokegan.metrics.features import PyramidFeatures
from pokegan.metrics.result import Conditions, Evaluation, ranked, ranking_text
from pokegan.monitor.timing import Timing

Pictures = NDArray[np.uint8]
WHITE = (255, 255, 255)
COUNT = 120


def uint8(pictures: NDArray[np.floating]) -> Pictures:
    return pictures.clip(0, 255).round().astype(np.uint8)


def blurred(pictures: Pictures, radius: float) -> Pictures:
    soft = ImageFilter.GaussianBlur(radius)
    return np.stack([np.asarray(Image.fromarray(one).filter(soft)) for one in pictures])


def few(
    train: Pictures, modes: int, noise: float = 0.0, moved: int = 0, light: float = 0
) -> Pictures:
    """`modes` training pictures again and again, each a little noisy, moved, lighter or darker."""
    random = np.random.default_rng(modes)
    again = train[random.integers(0, modes, COUNT)].astype(float)
    if moved:
        by = random.integers(-moved, moved + 1, (COUNT, 2))
        again = np.stack(
            [np.roll(one, way, axis=(0, 1)) for one, way in zip(again, by, strict=True)]
        )
    factors = 1 + light * random.uniform(-1, 1, (COUNT, 1, 1, 1))
    return uint8(again * factors + noise * random.normal(size=again.shape))


def mean_picture(train: Pictures, noise: float) -> Pictures:
    random = np.random.default_rng(0)
    return uint8(train.mean(axis=0) + noise * random.normal(size=train.shape))


COLLAPSED = {
    "1 picture": lambda train: few(train, 1),
    "1 picture, noisy": lambda train: few(train, 1, noise=8),
    "1 picture, moved": lambda train: few(train, 1, moved=1),
    "4 pictures": lambda train: few(train, 4),
    "4 pictures, noisy": lambda train: few(train, 4, noise=8),
    "4 pictures, lit": lambda train: few(train, 4, light=0.05),
    "16 pictures": lambda train: few(train, 16),
    "16 pictures, noisy": lambda train: few(train, 16, noise=4),
    "mean picture": lambda train: mean_picture(train, 0),
    "mean picture, noisy": lambda train: mean_picture(train, 8),
    "empty": lambda train: np.full_like(train, 255),
}
DIVERSE = {
    "unseen": lambda other: other,
    "unseen, blurred": lambda other: blurred(other, 1),
    "unseen, much blurred": lambda other: blurred(other, 2.5),
    "unseen, noisy": lambda other: uint8(
        other + 60 * np.random.default_rng(0).normal(size=other.shape)
    ),
    "unseen, faint": lambda other: uint8(255 - 0.5 * (255.0 - other)),
    "unseen, in other colours": lambda other: np.ascontiguousarray(other[..., ::-1]),
    "unseen, upside down": lambda other: np.ascontiguousarray(other[:, ::-1]),
}


@pytest.fixture(scope="module")
def found(creatures: Pictures) -> dict[str, Evaluation]:
    small = np.ascontiguousarray(creatures[:, ::2, ::2])  # 32 px: quicker
    train, other = small[:COUNT], small[COUNT:]
    features = PyramidFeatures()
    reals = digest_reals(train, WHITE, "ranking", features, Timing())
    made = {name: make(train) for name, make in COLLAPSED.items()}
    made |= {name: make(other) for name, make in DIVERSE.items()}
    known = Conditions("", 0, 0, 0, "", "", 0, seed=0)
    with pytest.MonkeyPatch.context() as patch:  # the distance of patches is tested elsewhere
        patch.setattr("pokegan.metrics.sliced.PATCHES", 16)
        patch.setattr("pokegan.metrics.sliced.DIRECTIONS", 32)
        return {
            name: evaluate(
                reals, [pictures], features, dataclasses.replace(known, name=name)
            ).evaluation
            for name, pictures in made.items()
        }


@pytest.mark.parametrize("collapsed", COLLAPSED)
@pytest.mark.parametrize("diverse", DIVERSE)
def test_the_diverse_one_is_first(
    found: dict[str, Evaluation], collapsed: str, diverse: str
) -> None:
    pair = [found[collapsed], found[diverse]]
    assert [one.conditions.name for one in ranked(pair)] == [diverse, collapsed]
    lines = ranking_text(pair).splitlines()
    assert lines[1].strip().startswith(f"1. {diverse}")
    assert lines[2].strip().startswith(f"2. {collapsed}")
    assert lines[2].endswith("collapsed")


def test_distances_alone_would_mislead(found: dict[str, Evaluation]) -> None:
    """The cases are hard: some collapsed one has a lower distance than some diverse one."""
    for measure in ("fid", "swd"):
        best = min(found[name].value(measure) for name in COLLAPSED)
        worst = max(found[name].value(measure) for name in DIVERSE)
        assert best < worst
