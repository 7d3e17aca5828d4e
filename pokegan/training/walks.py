"""Ways through the latent space, frame by frame: closed walks, truncation sweeps, lines."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pokegan.errors import ConfigError
from pokegan.training.generator import Generator
from pokegan.training.latents import between, toward_mean


def walk(
    generator: Generator,
    n: int,
    frames: int,
    keys: int = 4,
    seed: int = 0,
    truncation: float | None = None,
    first: int = 0,
    psi: float = 1.0,
) -> Iterator[NDArray[np.uint8]]:
    """Yield `frames` times [n, size, size, 3] uint8: n creatures, each on its own closed walk.

    The first frame is `generator.sample(n, seed, truncation, first, psi)`; the walk goes on through
    the next n samples, and so on through `keys` of them, and back to the first: the frame after the
    last would be the first.

    Raises:
        ConfigError: as `Generator.sample`; fewer than 2 keys, or fewer frames than keys.
    """
    if keys < 2 or frames < keys:
        raise ConfigError(f"--keys {keys}: 2 or more are wanted, and at most the {frames} frames")
    latents = generator.latents(n * keys, seed, truncation, first, psi)
    stops = [*torch.split(latents, n), latents[:n]]
    for frame in range(frames):
        leg, place = divmod(frame * keys, frames)
        yield _at(generator, stops[leg], stops[leg + 1], place / frames)


def sweep(
    generator: Generator,
    n: int,
    frames: int,
    seed: int = 0,
    first: int = 0,
) -> Iterator[NDArray[np.uint8]]:
    """Yield `frames` times [n, size, size, 3] uint8: psi from 1 to 0 and back, smoothly; it loops.

    Raises:
        ConfigError: as `Generator.sample`.
    """
    latents = generator.latents(n, seed, None, first)
    for frame in range(frames):
        psi = 0.5 + 0.5 * math.cos(2 * math.pi * frame / frames)
        yield generator.decode(toward_mean(latents, min(1.0, max(0.0, psi))))


def line(
    generator: Generator,
    rows: int,
    columns: int,
    seed: int = 0,
    truncation: float | None = None,
    first: int = 0,
    psi: float = 1.0,
) -> NDArray[np.uint8]:
    """Return [rows * columns, size, size, 3] uint8: row r goes from sample r to sample r + 1.

    Both ends of a row are those samples; what lies between is evenly spaced.

    Raises:
        ConfigError: as `Generator.sample`; fewer than 2 columns.
    """
    if columns < 2:
        raise ConfigError(f"--interpolate {columns}: 2 or more columns are wanted")
    latents = generator.latents(rows + 1, seed, truncation, first, psi)
    shares = [column / (columns - 1) for column in range(columns)]
    across = [_at(generator, latents[:-1], latents[1:], share) for share in shares]
    return np.stack(across, axis=1).reshape(rows * columns, *across[0].shape[1:])


def _at(generator: Generator, start: Tensor, end: Tensor, share: float) -> NDArray[np.uint8]:
    return generator.decode(between(generator.spec.latent, start, end, share))
