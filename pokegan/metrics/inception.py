"""Features of the network of the published Fréchet distances, through torch-fidelity."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pokegan.damage import UNUSABLE
from pokegan.errors import ConfigError
from pokegan.metrics.resize import VERSION, as_floats, resize
from pokegan.tf32 import exact_float32

FEATURES = 2048
SIZE = 299


class Inception:
    """Features of pictures: the 2048 of InceptionV3's last pooling, with the weights of 2015.

    Pictures are resized before, as every source of features does it here (arXiv 2104.11222), not
    by the network's own interpolation, which does not antialias.

    Args:
        weights: the file of torch-fidelity, or None for its download, kept by torch.hub.
        device: where the network runs, in float32.

    Raises:
        ConfigError: torch-fidelity is not installed, or the weights cannot be had.
    """

    name = "inception"
    dimensions = FEATURES
    batch = 32

    def __init__(self, weights: Path | None = None, device: torch.device | str = "cpu") -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import (
                URL_INCEPTION_V3,
                FeatureExtractorInceptionV3,
            )
        except ImportError as error:
            raise ConfigError(
                f"--features inception: {error.name or error} is not installed: pip install "
                "'pokegan[metrics]'"
            ) from None
        path = weights if weights is not None else _download(URL_INCEPTION_V3)
        _check(path)
        try:
            network: Any = FeatureExtractorInceptionV3("inception", ["2048"], str(path))
        except UNUSABLE as error:
            raise _unusable(path, error) from error
        self.network = network.to(device)
        self.device = torch.device(device)
        self.identity = identity(path)

    @torch.inference_mode()
    def __call__(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Return [N, 2048] float32 on the CPU, of pictures [N, H, W, 3] uint8."""
        images = resize(as_floats(pictures, self.device), SIZE)
        with exact_float32():
            features: Tensor = self.network(images.mul(255).round().byte())[0]
        return features.cpu()


def identity(path: Path) -> str:
    """Return what the features of these weights are known by in the cache."""
    digest = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    return f"{Inception.name}-2015-{digest}-{SIZE}px-resize{VERSION}"


def _download(url: str) -> Path:
    name = url.rpartition("/")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=name[-12:-4], progress=False)
    except (OSError, RuntimeError) as error:  # no network, no space, a damaged file
        raise ConfigError(
            f"--features inception: its weights cannot be downloaded ({error}): fetch {url} on "
            "another machine and give the file with --inception-weights, or use --features "
            "efficientnet-lite2"
        ) from None
    return path


def _check(path: Path) -> None:
    """Refuse what is not a plain file of tensors: torch-fidelity would unpickle anything."""
    if not path.is_file():
        raise ConfigError(f"--inception-weights {path}: there is no such file")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except UNUSABLE as error:
        raise _unusable(path, error) from error
    if not isinstance(weights, dict) or "fc.weight" not in weights:
        raise _unusable(path, None)


def _unusable(path: Path, error: Exception | None) -> ConfigError:
    lines = str(error).strip().splitlines() if error else []
    reason = f" ({lines[0][:120]})" if lines else ""
    return ConfigError(
        f"--inception-weights {path}: damaged, or not the weights of torch-fidelity{reason}"
    )
