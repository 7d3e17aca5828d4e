"""Two standard normals from two words (Box and Muller, 1958), the same bits on every machine.

Every step is a float32 add, multiply or square root, which IEEE 754 rounds alike everywhere;
`csrc/box_muller.h` makes the same steps. The series are minimax fits whose coefficients are float32
numbers. A result is the exact Box-Muller value of its words to within 4 ulp of float32: over all
2^24 radii and all 2^24 angles the relative errors are at most 1.09e-7 and 1.26e-7, which together
with the rounding of their product, worked out by their leading bits, are 3.94 ulp at most.
"""

import math

import torch
from torch import Tensor

# -2 ln(1 + x) = -2 x + x^2 S(x), sin(pi / 4 x) = x S(x^2), cos(pi / 4 x) = S(x^2).
_LOG = (
    -0.1796263,
    0.28790149,
    -0.29722372,
    0.33112538,
    -0.39934462,
    0.50004488,
    -0.66667539,
    1.0,
)
_SINE = (-3.6609152e-05, 0.0024910164, -0.080745831, 0.78539819)
_COSINE = (-0.00031897702, 0.015850149, -0.30842441, 1.0)
_SQRT_HALF_BITS = 0x3F3504F3


def box_muller(radius_words: Tensor, angle_words: Tensor) -> tuple[Tensor, Tensor]:
    """Return two float32 normals for each pair of 32-bit words (int64).

    The uniforms are (radius word // 256 + 1) / 2^24 in (0, 1] and angle word // 256 / 2^24 turns.
    """
    # PyTorch's root may be one off in the last place; that of float64 rounds to the right float32.
    radius = _squared_radius((radius_words >> 8) + 1).double().sqrt().to(torch.float32)
    turn = angle_words >> 8  # of 2^24
    quarter = (turn + (1 << 21)) >> 22  # the nearest one
    angle = (turn - (quarter << 22)).to(torch.float32) * 2.0**-21  # of pi / 4, in [-1, 1], exact
    square = angle * angle
    sine = _series(_SINE, square) * angle
    cosine = _series(_COSINE, square)
    odd = (quarter & 1) != 0
    x, y = torch.where(odd, sine, cosine), torch.where(odd, cosine, sine)
    x = torch.where(((quarter + 1) & 2) != 0, -x, x)
    y = torch.where((quarter & 2) != 0, -y, y)
    return radius * x, radius * y


def _squared_radius(mantissa: Tensor) -> Tensor:
    """-2 ln(mantissa / 2^24) of integers in [1, 2^24], by a fraction in [0.71, 1.42)."""
    bits = mantissa.to(torch.float32).view(torch.int32)  # exact: 24 bits fit a float
    exponent = (bits - _SQRT_HALF_BITS) >> 23
    x = (bits - (exponent << 23)).view(torch.float32) - 1  # exact
    of_exponent = (24 - exponent).to(torch.float32) * (2 * math.log(2))
    return x * x * _series(_LOG, x) + (x * -2 + of_exponent)


def _series(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """Horner's rule, highest power first, each step rounded."""
    value = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value
