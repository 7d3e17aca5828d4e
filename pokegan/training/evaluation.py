"""A generator measured against real pictures: from a run on disk to numbers and a sheet."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pokegan.config import RunConfig
from pokegan.data.cache import cached
from pokegan.data.options import PrepareOptions
from pokegan.data.packed import PackedImages
from pokegan.data.shrink import downscaled
from pokegan.data.sources import resolve
from pokegan.errors import ConfigError, DataError
from pokegan.metrics.digest import CHUNK, Reals, digest_reals
from pokegan.metrics.evaluation import LEAST, check_counts, evaluate
from pokegan.metrics.features import DEFAULT, Features, build_features
from pokegan.metrics.memorisation import NEAR, Copies
from pokegan.metrics.result import Conditions, Evaluation, Near
from pokegan.monitor.timing import Timing
from pokegan.render.neighbours import Pair, make_pairs_sheet
from pokegan.render.pictures import save_picture
from pokegan.training import checkpoint as checkpoints
from pokegan.training.generator import Generator, load
from pokegan.training.hardware import choose_device
from pokegan.training.pictures import prepare_options
from pokegan.training.run_folder import find

SAMPLES = 10_000
SHOWN = 32  # pairs of a sheet
_DISTANT = 1e9  # instead of infinity, which JSON has not

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Options:
    """How a run is evaluated; the fields are the flags of `pokegan evaluate`."""

    data: str | None = None
    samples: int = SAMPLES
    features: str = DEFAULT
    inception_weights: Path | None = None
    seed: int = 0
    truncation: float | None = None
    checkpoint: str | None = None
    average: bool = True
    device: str = "auto"


def evaluate_run(
    path: str | Path,
    options: Options | None = None,
    sheet: Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure the generator of a run folder, a checkpoint or a weight file.

    Args:
        path: of any of the three.
        options: what is compared, and how.
        sheet: a PNG that shows the pictures nearest to training pictures, beside those.
        progress: gets (pictures done, pictures in all) while pictures are generated.

    Raises:
        PokeganError: there is no generator, there are no pictures, or a setting cannot be used.
    """
    options = options or Options()
    path = Path(path)
    if options.samples < LEAST:
        raise ConfigError(f"-n {options.samples}: at least {LEAST} pictures are wanted")
    device = choose_device(options.device)
    generator = load(path, str(device), options.checkpoint, options.average)
    config = _config_of(path)
    features = build_features(options.features, device, options.inception_weights)
    packed = _open(config, options.data, generator.spec.size)
    check_counts(len(packed), options.samples)
    timing = Timing()
    reals = reals_of(packed, generator.spec.size, features, timing)
    chunks = generated(
        generator, options.samples, options.seed, options.truncation, timing, progress
    )
    known = Conditions(
        name=str(path) if options.checkpoint is None else f"{path} {options.checkpoint}",
        reals=len(packed),
        fakes=options.samples,
        size=generator.spec.size,
        features=features.name,
        identity=features.identity,
        dimensions=0,
        seed=options.seed,
        truncation=options.truncation,
        ema=config.training.ema_kimg > 0 and options.average if config else None,
        kimg=generator.spec.kimg,
        data=packed.manifest.source,
        checksum=packed.manifest.checksum,
    )
    found = evaluate(reals, chunks, features, known, timing)
    near = nearest_of(found.by_pixels, found.by_features, SHOWN)
    if sheet is not None:
        save_picture(_sheet(near, generator, packed, options), sheet)
    return dataclasses.replace(found.evaluation, nearest=near)


def reals_of(packed: PackedImages, size: int, features: Features, timing: Timing) -> Reals:
    """Return what is compared with: the pictures at `size` px, from block means where smaller."""
    pictures = downscaled(packed.images, size)
    return digest_reals(pictures, packed.background, packed.manifest.checksum, features, timing)


def generated(
    generator: Generator,
    count: int,
    seed: int,
    truncation: float | None,
    timing: Timing,
    progress: Progress | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Yield the first `count` samples of `seed` in chunks [n, size, size, 3] uint8."""
    for start in range(0, count, CHUNK):
        some = min(CHUNK, count - start)
        with timing.part("generation"):
            chunk = generator.sample(some, seed, truncation, start)
        yield chunk
        if progress is not None:
            progress(start + some, count)


def _config_of(path: Path) -> RunConfig | None:
    """Return the settings of the run that `path` is of, where that is known."""
    if path.is_dir():
        return find(path).read_config()
    if path.suffix == ".pt":
        return RunConfig.from_json(checkpoints.load(path)["config"])
    return None


def _open(config: RunConfig | None, data: str | None, size: int) -> PackedImages:
    source = data if data is not None else config.data.source if config else None
    if source is None:
        raise ConfigError("--data is wanted: a weight file does not say what it was trained on")
    known = PrepareOptions(size) if config is None else prepare_options(config.data)
    found = resolve(source)
    packed = found if isinstance(found, PackedImages) else cached(found, known)
    if packed.size % size:
        raise DataError(
            f"--data {source} is a set of {packed.size} px, but the generator makes {size} px: "
            f"give the pictures themselves, or prepare them at {size} px"
        )
    return packed


def nearest_of(by_pixels: Copies, by_features: Copies | None, count: int) -> list[Near]:
    """Return up to `count` generated pictures, each once: half by pixels, then half by features.

    Within a half the nearest stand first; without features all are by pixels.
    """
    spaces = {"pixels": by_pixels} | ({"features": by_features} if by_features else {})
    near: list[Near] = []
    taken: set[int] = set()
    for place, (space, copies) in enumerate(spaces.items(), start=1):
        order = [index for index in copies.closeness.argsort().tolist() if index not in taken]
        chosen = order[: count * place // len(spaces) - len(near)]
        near += [near_in(space, copies, index) for index in chosen]
        taken.update(chosen)
    return near


def near_in(space: str, copies: Copies, sample: int) -> Near:
    """Return what was found of one generated picture in a space."""
    distance = min(float(copies.distance[sample]), _DISTANT)
    return Near(space, sample, int(copies.nearest[sample]), distance)


def _sheet(
    near: Sequence[Near], generator: Generator, packed: PackedImages, options: Options
) -> NDArray[np.uint8]:
    """Return the pictures nearest to training pictures, each above the one that it is near to."""
    pictures = downscaled(packed.images, generator.spec.size)
    return make_pairs_sheet(
        [
            Pair(
                generator.sample(1, options.seed, options.truncation, one.sample)[0],
                pictures[one.picture],
                f"{one.distance:.2f} {one.space}",
                one.distance < NEAR,
            )
            for one in near
        ]
    )
