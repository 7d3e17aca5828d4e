"""Where features come from: the sources by name, and what every one of them offers."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pokegan.errors import ConfigError
from pokegan.metrics.efficientnet import EfficientNetLite2, require_timm, weights_path
from pokegan.metrics.inception import Inception
from pokegan.metrics.pyramid import LEAST, laplacian
from pokegan.metrics.resize import VERSION, as_floats

NAMES = ("efficientnet-lite2", "inception", "pyramid")
DEFAULT = NAMES[0]


class Features(Protocol):
    """Turns pictures [N, H, W, 3] uint8 into features [N, D] float32 on the CPU.

    Attributes:
        name: as the command line has it.
        identity: changes whenever the features of the same pictures would.
        batch: pictures at a time.
    """

    name: str
    identity: str
    batch: int

    def __call__(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Return the features."""
        ...


class PyramidFeatures:
    """Contrast and colour by place, from a Laplacian pyramid: no network, no download.

    For every band of detail the root mean square of each channel in a 4 x 4 grid, and for what
    remains its mean colours in an 8 x 8 grid. Knows little of what a picture shows; made for tests
    and for a fast eye on a run. The dimensions depend on the size of the pictures.
    """

    name = "pyramid"
    identity = f"pyramid-1-resize{VERSION}"
    batch = 256

    def __call__(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Return [N, 48 bands + 192] float32."""
        *bands, rest = laplacian(as_floats(pictures))
        pool = torch.nn.functional.adaptive_avg_pool2d
        contrast = [pool(band.square(), 4).sqrt().flatten(1) for band in bands]
        colours = pool(rest, min(LEAST // 2, rest.shape[-1])).flatten(1)
        return torch.cat([*contrast, colours], dim=1)


def build_features(
    name: str, device: torch.device, inception_weights: Path | None = None
) -> Features:
    """Return the source of features called `name`.

    Args:
        name: one of `NAMES`.
        device: where its network runs.
        inception_weights: a file, in place of the download.

    Raises:
        ConfigError: the name is unknown, a package is missing, or weights cannot be had.
    """
    if inception_weights is not None and name != "inception":
        raise ConfigError(
            f"--inception-weights {inception_weights} has no effect without --features inception"
        )
    if name == "efficientnet-lite2":
        return EfficientNetLite2(device)
    if name == "inception":
        return Inception(inception_weights, device)
    if name == "pyramid":
        return PyramidFeatures()
    raise ConfigError(f"--features {name}: choose one of {', '.join(NAMES)}")


def require(name: str) -> None:
    """Raise ConfigError when the packages that EfficientNet features need are not there."""
    if name == EfficientNetLite2.name:
        weights_path()
        require_timm()


def extract(features: Features, pictures: Iterable[NDArray[np.uint8]]) -> Tensor:
    """Return [N, D] float32 of all pictures, given in chunks [n, H, W, 3] of any length."""
    parts = [
        features(chunk[start : start + features.batch])
        for chunk in pictures
        for start in range(0, len(chunk), features.batch)
    ]
    return torch.cat(parts)
