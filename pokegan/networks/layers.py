"""What several networks share: norms, activations, initialisation, the ladder of sizes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pokegan.errors import ConfigError
from pokegan.networks.spectral_norm import spectral_norms


def norm_layer(name: str, channels: int) -> nn.Module | None:
    """Return the norm called `name` for `channels` feature maps, or None for `none`."""
    if name in ("none", "spectral"):  # a spectral norm sits in the convolutions
        return None
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    raise ConfigError(f"norm {name!r}: choose one of batch, instance, spectral, none")


def activation_layer(name: str) -> nn.Module:
    """Return the activation called `name`: relu, or lrelu with the slope 0.2 of DCGAN."""
    if name == "relu":
        return nn.ReLU(inplace=True)
    if name == "lrelu":
        return nn.LeakyReLU(0.2, inplace=True)
    raise ConfigError(f"activation {name!r}: choose one of relu, lrelu")


def ladder(size: int, base: int, channels: Sequence[int]) -> tuple[int, ...]:
    """Return channel counts for each resolution from `base` to `size / 2`, widest first.

    `channels` is the list for some size; the end near the picture is kept. A larger size repeats
    the widest entry in front, a smaller one leaves the widest out.

    Raises:
        ConfigError: `size` is not `base` times a power of two.
    """
    doublings = (size // base).bit_length() - 1
    if size != base << doublings or doublings < 1:
        near = sorted({base << max(1, doublings), base << (doublings + 1)})
        raise ConfigError(
            f"--size {size}: this network makes {base} px times a power of two; "
            f"the nearest are {' and '.join(map(str, near))}"
        )
    widest = [channels[0]] * max(0, doublings - len(channels))
    return (*widest, *channels)[-doublings:]


def init_normal(network: nn.Module, std: float, generator: torch.Generator) -> None:
    """Initialise as DCGAN does (arXiv 1511.06434): weights N(0, std), norms' weights N(1, std).

    Biases become 0; a spectral norm starts anew on the new weights. The draws come from
    `generator`, a CPU generator.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(_own_weight(module), 0.0, std, generator=generator)
        elif isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d):
            nn.init.normal_(module.weight, 1.0, std, generator=generator)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    for norm in spectral_norms(network):
        norm.reset(generator)


def _own_weight(module: nn.Module) -> Tensor:
    """Return the parameter that is optimised, also where the weight is computed from it."""
    weights = dict(module.named_parameters())
    parametrised = weights.get("parametrizations.weight.original")
    return weights["weight"] if parametrised is None else parametrised
