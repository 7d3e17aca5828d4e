"""PyTorch's convolutions and tanh, computed by `pokegan.ops`.

Parameters, state dicts and results are those of `torch.nn`; only who computes them may differ.
"""

from torch import Tensor, nn
from torch.nn.modules import module
from torch.nn.utils.parametrize import is_parametrized

from pokegan.ops import conv2d, conv2d_moments, conv_transpose2d, conv_transpose2d_moments
from pokegan.ops.activation import tanh
from pokegan.ops.conv_choice import direct_layer
from pokegan.ops.conv_layer import ConvLayer

_HOOKS = ("backward", "backward_pre", "forward", "forward_pre")


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not _is_plain(self):
            out: Tensor = super()._conv_forward(input, weight, bias)
            return out
        return conv2d(input, weight, bias, self.stride[0], int(self.padding[0]))

    def with_moments(self, input: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what `forward` does; and its means and variances, [2, O], where they are free."""
        if not _is_plain(self) or has_hooks(self):
            return self(input), None
        numbers = self.stride[0], int(self.padding[0])
        return conv2d_moments(input, self.weight, self.bias, *numbers)


class ConvTranspose2d(nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d`."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[N, C, H, W] to the size that `torch.nn.ConvTranspose2d` gives."""
        if output_size is not None or not _is_plain(self):
            return super().forward(input, output_size)
        down, right = self.output_padding
        return conv_transpose2d(
            input, self.weight, self.bias, self.stride[0], int(self.padding[0]), (down, right)
        )

    def with_moments(self, input: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what `forward` does; and its means and variances, [2, C], where they are free."""
        if not _is_plain(self) or has_hooks(self):
            return self(input), None
        down, right = self.output_padding
        numbers = self.stride[0], int(self.padding[0]), (down, right)
        return conv_transpose2d_moments(input, self.weight, self.bias, *numbers)


class Tanh(nn.Tanh):
    """`torch.nn.Tanh`."""

    def forward(self, input: Tensor) -> Tensor:
        """Of any shape, to the same."""
        return tanh(input)


def layer_of(layer: nn.Module | None, input: Tensor) -> ConvLayer | None:
    """Return how our operators convolve `input` with it; None for PyTorch, and other modules."""
    if not isinstance(layer, Conv2d | ConvTranspose2d) or not _is_plain(layer):
        return None
    if has_hooks(layer) or is_parametrized(layer):  # whose weight may be looked at once a call
        return None
    transposed = isinstance(layer, ConvTranspose2d)
    down, right = layer.output_padding if transposed else (0, 0)
    numbers = layer.stride[0], int(layer.padding[0]), (down, right)
    return direct_layer(transposed, input, layer.weight, *numbers)


def has_hooks(layer: nn.Module) -> bool:
    """Whether somebody asked to see its calls, as `torch.nn.Module` looks before it calls."""
    own = (getattr(layer, f"_{name}_hooks") for name in _HOOKS)
    return any(own) or any(getattr(module, f"_global_{name}_hooks") for name in _HOOKS)


def _is_plain(layer: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    """Whether it is a whole convolution, zero-padded, with the same numbers down and right."""
    return (
        layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and layer.stride[0] == layer.stride[1]
        and not isinstance(layer.padding, str)
        and layer.padding[0] == layer.padding[1]
    )
