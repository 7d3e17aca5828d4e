// Two standard normals from two words (Box and Muller, 1958), in float64 steps of add, multiply,
// divide and square root alone, which IEEE 754 rounds alike everywhere. No torch types here.
// pokegan/ops/box_muller.py is the same in plain PyTorch.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "exact.h"

namespace pokegan {

struct NormalPair {
  float first;
  float second;
};

// ln(mantissa / 2^24) for an integer mantissa in [1, 2^24]: x = f 2^e with f in [0.71, 1.42) and
// ln f = 2 atanh((f - 1) / (f + 1)), whose series is cut at 2e-12.
POKEGAN_HOST_DEVICE double log_of_unit(uint32_t mantissa) {
  const float exact = static_cast<float>(static_cast<int32_t>(mantissa));
  int32_t bits;
  std::memcpy(&bits, &exact, sizeof(bits));
  const int32_t exponent = (bits - 0x3F3504F3) >> 23;
  bits -= exponent * (1 << 23);
  float fraction;
  std::memcpy(&fraction, &bits, sizeof(fraction));
  const double f = fraction;
  const double s = (f - 1.0) / (f + 1.0);
  const double z = s * s;
  double series = 1.0 / 13;
  series = multiply_add(series, z, 1.0 / 11);
  series = multiply_add(series, z, 1.0 / 9);
  series = multiply_add(series, z, 1.0 / 7);
  series = multiply_add(series, z, 1.0 / 5);
  series = multiply_add(series, z, 1.0 / 3);
  series = multiply_add(series, z, 1.0);
  const double log_fraction = (s + s) * series;
  return multiply_add(static_cast<double>(exponent - 24), 0.6931471805599453, log_fraction);
}

// The uniforms are (radius_word / 256 + 1) / 2^24 in (0, 1] and angle_word / 256 / 2^24 of a turn.
POKEGAN_HOST_DEVICE NormalPair box_muller(uint32_t radius_word, uint32_t angle_word) {
  const double radius = std::sqrt(-2.0 * log_of_unit((radius_word >> 8) + 1U));
  const int32_t turn = static_cast<int32_t>(angle_word >> 8);  // of 2^24
  const int32_t quarter = (turn + (1 << 21)) >> 22;            // the nearest one
  const double angle = static_cast<double>(turn - quarter * (1 << 22)) * 3.7450702829239286e-07;
  const double z = angle * angle;  // |angle| <= pi / 4; Taylor series cut at 1e-11
  double sine = -1.0 / 39916800;
  sine = multiply_add(sine, z, 1.0 / 362880);
  sine = multiply_add(sine, z, -1.0 / 5040);
  sine = multiply_add(sine, z, 1.0 / 120);
  sine = multiply_add(sine, z, -1.0 / 6);
  sine = multiply_add(sine, z, 1.0) * angle;
  double cosine = 1.0 / 479001600;
  cosine = multiply_add(cosine, z, -1.0 / 3628800);
  cosine = multiply_add(cosine, z, 1.0 / 40320);
  cosine = multiply_add(cosine, z, -1.0 / 720);
  cosine = multiply_add(cosine, z, 1.0 / 24);
  cosine = multiply_add(cosine, z, -0.5);
  cosine = multiply_add(cosine, z, 1.0);
  const bool odd = (quarter & 1) != 0;
  const double x = odd ? sine : cosine;
  const double y = odd ? cosine : sine;
  return {static_cast<float>(radius * (((quarter + 1) & 2) != 0 ? -x : x)),
          static_cast<float>(radius * ((quarter & 2) != 0 ? -y : y))};
}

}  // namespace pokegan
