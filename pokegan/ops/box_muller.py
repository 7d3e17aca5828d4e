"""Two standard normals from two words (Box and Muller, 1958), the same bits on every machine.

Every step is a float64 add, multiply, divide or square root, which IEEE 754 rounds alike
everywhere; `csrc/box_muller.h` makes the same steps. The series are cut below 1e-11, so a result is
the exact Box-Muller value of its words to within 1 ulp of float32.
"""

import math

import torch
from torch import Tensor

_LOG = (1 / 13, 1 / 11, 1 / 9, 1 / 7, 1 / 5, 1 / 3, 1.0)
_SINE = (-1 / 39916800, 1 / 362880, -1 / 5040, 1 / 120, -1 / 6, 1.0)
_COSINE = (1 / 479001600, -1 / 3628800, 1 / 40320, -1 / 720, 1 / 24, -1 / 2, 1.0)
_SQRT_HALF_BITS = 0x3F3504F3


def box_muller(radius_words: Tensor, angle_words: Tensor) -> tuple[Tensor, Tensor]:
    """Return two float32 normals for each pair of 32-bit words (int64).

    The uniforms are (radius word // 256 + 1) / 2^24 in (0, 1] and angle word // 256 / 2^24 turns.
    """
    radius = torch.sqrt(_log_of_unit((radius_words >> 8) + 1) * -2)
    turn = angle_words >> 8  # of 2^24
    quarter = (turn + (1 << 21)) >> 22  # the nearest one
    angle = (turn - (quarter << 22)).double() * (2 * math.pi / 2**24)  # in [-pi / 4, pi / 4]
    square = angle * angle
    sine = _series(_SINE, square) * angle
    cosine = _series(_COSINE, square)
    odd = (quarter & 1) != 0
    x, y = torch.where(odd, sine, cosine), torch.where(odd, cosine, sine)
    x = torch.where(((quarter + 1) & 2) != 0, -x, x)
    y = torch.where((quarter & 2) != 0, -y, y)
    return (radius * x).float(), (radius * y).float()


def _log_of_unit(mantissa: Tensor) -> Tensor:
    """ln(mantissa / 2^24) of integers in [1, 2^24], by ln f = 2 atanh((f - 1) / (f + 1))."""
    bits = mantissa.to(torch.float32).view(torch.int32)  # exact: 24 bits fit a float
    exponent = (bits - _SQRT_HALF_BITS) >> 23
    fraction = (bits - (exponent << 23)).view(torch.float32).double()  # in [0.71, 1.42)
    ratio = (fraction - 1) / (fraction + 1)
    log_fraction = (ratio + ratio) * _series(_LOG, ratio * ratio)
    return (exponent - 24).double() * math.log(2) + log_fraction


def _series(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """Horner's rule, highest power first, each step rounded."""
    value = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value
