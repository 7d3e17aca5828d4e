"""Every measure of generated pictures against real ones, in one pass over each."""

import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pokegan.errors import DataError
from pokegan.metrics.colour import colour_distance, coverage_distance
from pokegan.metrics.digest import Digest, Reals, digest
from pokegan.metrics.estimate import Estimate, bootstrap_mean, share
from pokegan.metrics.features import Features
from pokegan.metrics.frechet import fit, frechet_estimate
from pokegan.metrics.kernel import kernel_distance
from pokegan.metrics.manifold import manifold, spread
from pokegan.metrics.memorisation import Copies, coarse, copies_by_features, copies_by_pixels
from pokegan.metrics.result import Conditions, Evaluation
from pokegan.metrics.sliced import sliced_wasserstein
from pokegan.monitor.timing import Timing

LEAST = 10  # pictures of either side
_SCALE = 1000.0  # of the kernel distance


@dataclass(frozen=True)
class Found:
    """An evaluation, and which pictures are copies of which."""

    evaluation: Evaluation
    by_features: Copies
    by_pixels: Copies

    @property
    def flagged(self) -> Tensor:
        """[N] whether each generated picture is a copy, by either."""
        return self.by_features.flagged | self.by_pixels.flagged


def evaluate(
    reals: Reals,
    fakes: Iterable[NDArray[np.uint8]],
    features: Features,
    conditions: Conditions,
    timing: Timing | None = None,
) -> Found:
    """Measure generated pictures, given in chunks [n, H, W, 3] uint8, against real ones.

    Args:
        reals: what `digest_reals` made of the real pictures.
        fakes: the generated pictures; only a chunk of them need be in memory.
        features: where the features of both come from.
        conditions: what is known of the fakes; the numbers of pictures are filled in.
        timing: adds up where the time goes; the caller may have opened parts of its own.

    Raises:
        DataError: one side has fewer than 10 pictures.
    """
    timing = timing or Timing()
    start = time.perf_counter()
    generated = digest(fakes, features, reals.background, timing)
    check_counts(len(reals.digest), len(generated))
    real, seed = reals.digest, conditions.seed
    measures: dict[str, Estimate] = {}
    with timing.part("frechet"):
        measures["fid"] = frechet_estimate(fit(real.features), generated.features, seed)
    with timing.part("kernel"):
        kernel = kernel_distance(real.features, generated.features)
        measures["kid"] = _scaled(kernel, _SCALE)
    with timing.part("patches"):
        levels = sliced_wasserstein(real.whole, generated.whole, seed)
        measures["swd"] = Estimate(sum(levels.values()) / len(levels))
    with timing.part("neighbours"):
        measures |= _neighbourhood(real, generated, seed)
        by_features = copies_by_features(real.features, reals.mirrored, generated.features)
    with timing.part("copies in pixels"):
        by_pixels = copies_by_pixels(real.thumbnails, generated.thumbnails, reals.background)
    measures |= _copied(by_features, by_pixels)
    measures["colour"] = Estimate(colour_distance(real.colours, generated.colours))
    measures["coverage_distance"] = Estimate(coverage_distance(real.colours, generated.colours))
    known = dataclasses.replace(
        conditions,
        reals=len(real),
        fakes=len(generated),
        size=real.whole.shape[1],
        features=features.name,
        identity=features.identity,
        dimensions=real.features.shape[1],
    )
    twins = {"features": by_features.twins, "pixels": by_pixels.twins}
    wall = time.perf_counter() - start
    seconds = {name: share * wall for name, share in timing.snapshot_and_reset().items()}
    return Found(Evaluation(known, measures, levels, twins, seconds), by_features, by_pixels)


def check_counts(reals: int, fakes: int) -> None:
    """Raise DataError when a side has too few pictures to measure anything."""
    for count, side, remedy in (
        (reals, "real pictures", "give more of them with --data"),
        (fakes, "generated pictures", "give a larger -n"),
    ):
        if count < LEAST:
            raise DataError(f"{count} {side}: at least {LEAST} are wanted; {remedy}")


def _neighbourhood(real: Digest, fake: Digest, seed: int) -> dict[str, Estimate]:
    seen = manifold(real.features, fake.features)
    return {
        "precision": share(seen.precision),
        "recall": share(seen.recall),
        "density": bootstrap_mean(seen.density, seed),
        "coverage": share(seen.coverage),
        "feature_spread": Estimate(seen.spread),
        "pixel_spread": Estimate(spread(coarse(real.thumbnails)[0], coarse(fake.thumbnails)[0])),
    }


def _copied(by_features: Copies, by_pixels: Copies) -> dict[str, Estimate]:
    either = by_features.flagged | by_pixels.flagged
    return {
        "memorised": share(either),
        "memorised_features": share(by_features.flagged),
        "memorised_pixels": share(by_pixels.flagged),
    }


def _scaled(one: Estimate, factor: float) -> Estimate:
    low, high = one.low, one.high
    if low is None or high is None:
        return Estimate(one.value * factor)
    return Estimate(one.value * factor, low * factor, high * factor)
