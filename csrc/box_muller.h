// Two standard normals from two words (Box and Muller, 1958), in float32 steps of add, multiply
// and square root alone, which IEEE 754 rounds alike everywhere. No torch types here.
// pokegan/ops/box_muller.py is the same in plain PyTorch; it says how exact they are.
#pragma once

#include <cstdint>
#include <cstring>

#include "exact.h"

namespace pokegan {

struct NormalPair {
  float first;
  float second;
};

POKEGAN_HOST_DEVICE int32_t float_bits(float value) {
  int32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

POKEGAN_HOST_DEVICE float float_of(int32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// -2 ln(mantissa / 2^24) for an integer mantissa in [1, 2^24]: the quotient is f 2^e with f in
// [0.71, 1.42), and x = f - 1 is exact; the series is -2 ln(1 + x) = -2 x + x^2 (1 - 2/3 x + ...).
POKEGAN_HOST_DEVICE float squared_radius(uint32_t mantissa) {
  constexpr int32_t kSqrtHalf = 0x3F3504F3;
  const float exact = static_cast<float>(static_cast<int32_t>(mantissa));
  const int32_t bits = float_bits(exact) - (kSqrtHalf + (24 << 23));
  const float x = float_of((bits & 0x7FFFFF) + kSqrtHalf) - 1.0F;
  float series = -0.1796263F;
  series = multiply_add(series, x, 0.28790149F);
  series = multiply_add(series, x, -0.29722372F);
  series = multiply_add(series, x, 0.33112538F);
  series = multiply_add(series, x, -0.39934462F);
  series = multiply_add(series, x, 0.50004488F);
  series = multiply_add(series, x, -0.66667539F);
  series = multiply_add(series, x, 1.0F);
  const float of_exponent = static_cast<float>(bits >> 23) * -1.3862944F;  // 2 ln 2
  return multiply_add(x * x, series, multiply_add(x, -2.0F, of_exponent));
}

// The uniforms are (radius_word / 256 + 1) / 2^24 in (0, 1] and angle_word / 256 / 2^24 of a turn.
POKEGAN_HOST_DEVICE NormalPair box_muller(uint32_t radius_word, uint32_t angle_word) {
  const float radius = square_root(squared_radius((radius_word >> 8) + 1U));
  // The top two bits are the nearest quarter turn; those below, the way from half a quarter before.
  const uint32_t turn = angle_word + 0x20000000U;
  const int32_t past = static_cast<int32_t>(turn & 0x3FFFFF00U) - 0x20000000;
  const float angle = static_cast<float>(past) * (1.0F / 536870912.0F);  // of pi / 4, exact
  const float z = angle * angle;
  float sine = -3.6609152e-05F;
  sine = multiply_add(sine, z, 0.0024910164F);
  sine = multiply_add(sine, z, -0.080745831F);
  sine = multiply_add(sine, z, 0.78539819F) * angle;
  float cosine = -0.00031897702F;
  cosine = multiply_add(cosine, z, 0.015850149F);
  cosine = multiply_add(cosine, z, -0.30842441F);
  cosine = multiply_add(cosine, z, 1.0F);
  const bool odd = (turn & 0x40000000U) != 0;
  const float x = odd ? sine : cosine;
  const float y = odd ? cosine : sine;
  const auto x_sign = static_cast<int32_t>((turn + 0x40000000U) & 0x80000000U);
  const auto y_sign = static_cast<int32_t>(turn & 0x80000000U);
  return {radius * float_of(float_bits(x) ^ x_sign), radius * float_of(float_bits(y) ^ y_sign)};
}

// What a fill makes of a normal.
struct NormalScale {
  float mean;
  float std;

  POKEGAN_HOST_DEVICE float of(float normal) const { return multiply_add(std, normal, mean); }
};

}  // namespace pokegan
