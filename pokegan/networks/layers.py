"""What several networks share: norms, activations, initialisation, the ladder of sizes."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from pokegan.errors import ConfigError
from pokegan.networks.batch_norm import BatchNorm2d
from pokegan.networks.spectral_norm import spectral_norms

NORMS = ("batch", "instance", "layer", "lrn", "spectral", "none")
ACTIVATIONS = ("relu", "lrelu")
INITIALISATIONS = ("normal", "xavier", "kaiming", "pytorch")
INIT_STD = 0.02  # DCGAN's
INIT_SLOPE = 0.2  # of the leaky ReLU that kaiming's gain counts on

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm1d, nn.InstanceNorm2d)
_NORMS = (*_BATCH_NORMS, nn.GroupNorm, nn.LayerNorm)


def norm_layer(name: str, channels: int) -> nn.Module | None:
    """Return the norm called `name` for feature maps [N, channels, H, W], or None.

    - batch: over N, H, W (arXiv 1502.03167), with learned weight and bias a channel.
    - instance: over H, W (arXiv 1607.08022), with learned weight and bias a channel.
    - layer: over channels, H, W (arXiv 1607.06450), with learned weight and bias a channel.
    - lrn: local response over 5 neighbouring channels (AlexNet, section 3.3), with PyTorch's
      k = 1 and alpha / 5 = 2e-5, so that small responses pass unchanged.
    - spectral, none: None; a spectral norm sits in the convolutions, see `spectral_norm_`.

    Raises:
        ConfigError: there is no such norm.
    """
    one_of("norm", name, NORMS)
    if name == "batch":
        return BatchNorm2d(channels)
    if name == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    if name == "layer":
        return nn.GroupNorm(1, channels)
    if name == "lrn":
        return nn.LocalResponseNorm(5)
    return None


def activation_layer(name: str, slope: float = 0.2, inplace: bool = True) -> nn.Module:
    """Return the activation called `name`: relu, or lrelu with `slope` below zero.

    Raises:
        ConfigError: there is no such activation, or `slope` is not in [0, 1).
    """
    if not 0 <= slope < 1:
        raise ConfigError(f"slope {slope:g}: a leaky ReLU's slope is at least 0 and below 1")
    one_of("activation", name, ACTIVATIONS)
    return nn.ReLU(inplace) if name == "relu" else nn.LeakyReLU(slope, inplace)


def one_of(option: str, value: object, choices: Sequence[object]) -> None:
    """Raise ConfigError unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{option} {value!r}: choose one of {', '.join(map(str, choices))}")


def ladder(size: int, base: int, channels: Sequence[int], extra: int = 0) -> tuple[int, ...]:
    """Return channel counts for each resolution from `base` to `size / 2`, widest first.

    `channels` is the list for some size; the end near the picture is kept. A larger size repeats
    the widest entry in front, a smaller one leaves the widest out. `extra` counts what a network
    has besides: layers that do not change the resolution.

    Raises:
        ConfigError: `size` is not `base` times a power of two, or `base` is below 2.
    """
    if base < 2:
        raise ConfigError(f"base {base}: the smallest feature map is at least 2 px wide")
    doublings = (size // base).bit_length() - 1
    if size != base << max(0, doublings) or doublings < 1:
        near = sorted({base << max(1, doublings), base << max(1, doublings + 1)})
        raise ConfigError(
            f"--size {size}: this network makes {base} px times a power of two; "
            f"the nearest are {' and '.join(map(str, near))}"
        )
    count = doublings + extra
    return (*[channels[0]] * (count - len(channels)), *channels)[-count:]


def initialise(network: nn.Module, name: str, generator: torch.Generator) -> None:
    """Draw the network's weights anew, in place; biases become 0, but with `pytorch`.

    - normal: weights N(0, 0.02), norms' weights N(1, 0.02), as in DCGAN (arXiv 1511.06434).
    - xavier: weights uniform with gain 1 (Glorot and Bengio 2010, eq. 16), norms' weights 1.
    - kaiming: weights N(0, 2 / ((1 + 0.2^2) fan_out)) (arXiv 1502.01852, eq. 14 with the slope
      of eq. 15), norms' weights 1; linear layers uniform in +-1 / sqrt(fan_in), since a layer
      of one output has a fan_out of 1.
    - pytorch: what PyTorch's layers start with: weights and biases uniform in +-1 / sqrt(fan_in)
      (kaiming_uniform_ with a slope of sqrt(5)), norms' weights 1 and biases 0.

    A fan is counted as PyTorch counts it: for a transposed convolution fan_out is that of the
    convolution it transposes. Spectral norms start anew on the new weights. Parameters of other
    modules, such as the gain of an attention layer, stay.

    Args:
        network: on the CPU.
        name: normal, xavier, kaiming or pytorch.
        generator: of the draws, on the CPU.

    Raises:
        ConfigError: there is no such initialisation.
    """
    one_of("--init", name, INITIALISATIONS)
    if name == "normal":
        init_normal(network, INIT_STD, generator)
    elif name == "xavier":
        _initialise(network, partial(nn.init.xavier_uniform_, generator=generator), generator)
    elif name == "pytorch":
        _initialise(network, partial(_by_fan_in, generator=generator), generator)
        _uniform_biases(network, generator)
    else:
        draw = partial(nn.init.kaiming_normal_, a=INIT_SLOPE, mode="fan_out", generator=generator)
        _initialise(network, draw, generator, linear=partial(_by_fan_in, generator=generator))


def init_normal(network: nn.Module, std: float, generator: torch.Generator) -> None:
    """Initialise as DCGAN does (arXiv 1511.06434): weights N(0, std), norms' weights N(1, std).

    Biases become 0; a spectral norm starts anew on the new weights. The draws come from
    `generator`, a CPU generator.
    """
    weights = partial(nn.init.normal_, mean=0.0, std=std, generator=generator)
    scales = partial(nn.init.normal_, mean=1.0, std=std, generator=generator)
    _initialise(network, weights, generator, scales)


def _initialise(
    network: nn.Module,
    weights: Callable[[Tensor], object],
    generator: torch.Generator,
    scales: Callable[[Tensor], object] = nn.init.ones_,
    linear: Callable[[Tensor], object] | None = None,
) -> None:
    """Fill weights and norms' weights by these functions, biases by 0; reset spectral norms."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            (linear or weights)(_own_weight(module))
        elif isinstance(module, _CONVOLUTIONS):
            weights(_own_weight(module))
        elif isinstance(module, _NORMS) and module.weight is not None:
            scales(module.weight)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    for norm in spectral_norms(network):
        norm.reset(generator)


def _uniform_biases(network: nn.Module, generator: torch.Generator) -> None:
    """Fill the biases of layers with weights as PyTorch does: uniform in +-1 / sqrt(fan_in)."""
    for module in network.modules():
        if isinstance(module, (nn.Linear, *_CONVOLUTIONS)) and module.bias is not None:
            bound = _fan_in_bound(_own_weight(module))
            nn.init.uniform_(module.bias, -bound, bound, generator=generator)


def _by_fan_in(weight: Tensor, generator: torch.Generator) -> None:
    bound = _fan_in_bound(weight)
    nn.init.uniform_(weight, -bound, bound, generator=generator)


def _fan_in_bound(weight: Tensor) -> float:
    return 1 / math.sqrt(weight[0].numel())


def _own_weight(module: nn.Module) -> Tensor:
    """Return the parameter that is optimised, also where the weight is computed from it."""
    weights = dict(module.named_parameters())
    parametrised = weights.get("parametrizations.weight.original")
    return weights["weight"] if parametrised is None else parametrised
