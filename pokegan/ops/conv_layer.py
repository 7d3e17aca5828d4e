"""A layer's convolution in bfloat16 and its gradients one by one, for who fuses it with others."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pokegan.ops.conv import BF16
from pokegan.ops.conv_gradients import Settings, channels_last
from pokegan.ops.conv_summed import conv2d_norm_sums_bf16, conv_transpose2d_norm_sums_bf16


class ConvLayer(NamedTuple):
    """How our operators compute a layer, direct and with the widest units.

    `more` is the output padding of a transposed one.
    """

    transposed: bool
    settings: Settings
    more: tuple[int, int]

    def run(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, summed: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return the result, and if `summed` its moments; below autograd."""
        operation = "conv_transpose2d" if self.transposed else "conv2d"
        numbers: list[Any] = [self.settings.stride, self.settings.padding]
        if self.transposed:
            numbers.append(self.more)
        given = (channels_last(input), channels_last(weight), bias, *numbers)
        with torch._C._AutoDispatchBelowAutograd():
            if summed:
                out, moments = BF16.operator(f"{operation}_moments")(*given)
                return out, moments
            return BF16.operator(operation)(*given), None

    def by_input(self, gradient: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """Return the gradient by the input, of the size of `like`; differentiable."""
        weight = channels_last(weight)
        if self.transposed:
            return BF16.convolve(gradient, weight, self.settings)
        return BF16.transpose(gradient, weight, like, self.settings)

    def by_input_and_sums(
        self, gradient: Tensor, weight: Tensor, maps: Tensor, norm: tuple[Any, ...]
    ) -> tuple[Tensor, Tensor]:
        """Return the gradient by the input, which is act(norm(maps)), and the norm's sums.

        `norm` are moments, weight, bias, eps and slope.
        """
        numbers = self.settings.stride, self.settings.padding
        if self.transposed:
            return conv2d_norm_sums_bf16(gradient, weight, *numbers, maps, *norm)
        down, right = self.settings.output_padding(gradient, weight, maps)
        return conv_transpose2d_norm_sums_bf16(
            gradient, weight, *numbers, (down, right), maps, *norm
        )

    def by_weight(self, input: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
        """Return the gradient by the weight; differentiable."""
        large, small = (gradient, input) if self.transposed else (input, gradient)
        return BF16.weight(large, small, weight, self.settings)
