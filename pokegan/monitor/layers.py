"""The weights of a network by the names of their layers. torch is not imported for it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# What a parametrization, such as a spectral norm, and a plain layer put behind a layer's name.
_ENDINGS = (".parametrizations.weight.original", ".weight")


def layer_weights(network: "nn.Module") -> "dict[str, nn.Parameter]":
    """Return the weights of `network` by the dotted name of their layer, in the network's order.

    A weight is a parameter of two dimensions or more: of a convolution or a linear layer, not a
    bias, nor the scale of a norm. One that is not called `weight` keeps its own name.
    """
    return {
        _layer(name): parameter
        for name, parameter in network.named_parameters()
        if parameter.ndim >= 2
    }


def _layer(name: str) -> str:
    for ending in _ENDINGS:
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name
