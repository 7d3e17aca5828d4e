"""What the measures need of a set of pictures, gathered chunk by chunk so that memory is bounded.

Of every picture its features and a thumbnail are kept; whole ones only as far as patches use them.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from pokegan.cache_folder import cache_folder
from pokegan.data.options import RGB
from pokegan.files import write_bytes
from pokegan.metrics.colour import Colours, colours
from pokegan.metrics.features import Features, extract
from pokegan.metrics.memorisation import thumbnails
from pokegan.metrics.sliced import MOST_PICTURES
from pokegan.monitor.timing import Timing

CHUNK = 256


@dataclass(frozen=True)
class Digest:
    """What is kept of N pictures.

    Attributes:
        features: [N, D] float32.
        thumbnails: [N, 32, 32, 3] uint8, or smaller where the pictures are.
        whole: [min(N, 2048), H, W, 3] uint8, the first ones.
        colours: of all.
    """

    features: Tensor
    thumbnails: NDArray[np.uint8]
    whole: NDArray[np.uint8]
    colours: Colours

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class Reals:
    """The real pictures' digest, the features of their mirror images, and their background."""

    digest: Digest
    mirrored: Tensor
    background: RGB


def digest(
    chunks: Iterable[NDArray[np.uint8]], features: Features, background: RGB, timing: Timing
) -> Digest:
    """Return the digest of pictures given in chunks [n, H, W, 3] uint8."""
    found, small, whole, kept = [], [], [], 0
    for chunk in chunks:
        with timing.part("features"):
            found.append(extract(features, [chunk]))
        with timing.part("pixels"):
            small.append(thumbnails(chunk))
        whole.append(chunk[: max(0, MOST_PICTURES - kept)].copy())
        kept += len(whole[-1])
    tensors, thumbs = torch.cat(found), np.concatenate(small)
    with timing.part("pixels"):
        pixels = colours(thumbs, background)
    return Digest(tensors, thumbs, np.concatenate(whole), pixels)


def digest_reals(
    pictures: NDArray[np.uint8],
    background: RGB,
    checksum: str,
    features: Features,
    timing: Timing,
) -> Reals:
    """Return what is compared with; the features come from the cache where they are there.

    Args:
        pictures: [N, H, W, 3] uint8.
        background: their colour around the creatures.
        checksum: identity of the pictures: of equal ones the features are computed once.
        features: where features come from.
        timing: gets the parts' durations.
    """
    with timing.part("features"):
        plain, mirrored = features_of(pictures, checksum, features)
    with timing.part("pixels"):
        thumbs = np.concatenate([thumbnails(chunk) for chunk in chunked(pictures)])
        pixels = colours(thumbs, background)
    whole = np.array(pictures[:MOST_PICTURES])
    return Reals(Digest(plain, thumbs, whole, pixels), mirrored, background)


def chunked(pictures: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Yield pictures a chunk at a time."""
    for start in range(0, len(pictures), CHUNK):
        yield pictures[start : start + CHUNK]


def cached_features(
    shape: tuple[int, ...], checksum: str, identity: str
) -> tuple[Tensor, Tensor] | None:
    """Return the features of pictures and of their mirror images, or None if not in the cache.

    Args:
        shape: of the pictures, [N, H, W, 3].
        checksum: their identity.
        identity: of the source of features.
    """
    with suppress(SafetensorError, OSError, KeyError):  # damaged or not there
        stored = load_file(_cache_file(shape, checksum, identity))
        if len(stored["plain"]) == len(stored["mirrored"]) == shape[0]:
            return stored["plain"], stored["mirrored"]
    return None


def features_of(
    pictures: NDArray[np.uint8], checksum: str, features: Features
) -> tuple[Tensor, Tensor]:
    """Return the features of pictures and of their mirror images, from the cache or into it."""
    stored = cached_features(pictures.shape, checksum, features.identity)
    if stored is not None:
        return stored
    plain = extract(features, chunked(pictures))
    mirrored = extract(features, (chunk[:, :, ::-1] for chunk in chunked(pictures)))
    with suppress(OSError):  # a cache that cannot be written costs time, not the result
        path = _cache_file(pictures.shape, checksum, features.identity)
        write_bytes(path, save({"plain": plain, "mirrored": mirrored}))
    return plain, mirrored


def _cache_file(shape: tuple[int, ...], checksum: str, identity: str) -> Path:
    key = f"{checksum} {shape} {identity}"
    name = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return cache_folder() / "features" / f"{name}.safetensors"
