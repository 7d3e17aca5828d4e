// Sixteen numbers at once, in as many registers as the processor needs, and their exponential. For
// functions that are cloned for each instruction set: everything here becomes part of them.
#pragma once

#include "vector.h"

namespace pokegan {

constexpr int kLanes = 16;

using Lanes = float __attribute__((vector_size(kLanes * sizeof(float))));
using Unaligned = float __attribute__((vector_size(kLanes * sizeof(float)), aligned(4)));
using Bits = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));

// e^x of x <= 0, to 2 ulp, and 0 below e^-87; a NaN stays one. x = n ln 2 + r, |r| <= ln 2 / 2.
POKEGAN_INLINE void exp_of_negative(Lanes& x) {
  const Lanes bounded = x > -87.0F ? x : Lanes{} - 87.0F;
  const Lanes whole = Lanes{} + 12582912.0F;  // 1.5 * 2^23: what is added to it loses its fraction
  const Lanes n = (bounded * 1.44269504F + whole) - whole;
  const Lanes r = (bounded - n * 0.693359375F) + n * 2.12194440e-4F;
  Lanes series = Lanes{} + 1.0F / 5040;
  series = series * r + 1.0F / 720;
  series = series * r + 1.0F / 120;
  series = series * r + 1.0F / 24;
  series = series * r + 1.0F / 6;
  series = series * r + 0.5F;
  series = series * r + 1.0F;
  series = series * r + 1.0F;
  const Bits exponent = (__builtin_convertvector(n, Bits) + 127) << 23;
  Lanes power;
  std::memcpy(&power, &exponent, sizeof(power));
  const Lanes small = x > -87.0F ? series * power : Lanes{};
  x = x == x ? small : x;
}

}  // namespace pokegan
