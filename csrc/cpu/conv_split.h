// Float32 values as sums of bfloat16, for units that multiply nothing wider.
//
// Each part is the nearest bfloat16 to what the parts before it leave. What n parts leave is at
// most 2^-8 of a value for n = 1, 2^-17 for n = 2, and nothing for n = 3, unless it is below
// 2^-126.
#pragma once

#include "conv_units.h"

namespace pokegan {

#ifdef POKEGAN_HAS_CONV

// In the upper halves of words; the lower halves are zeros.
template <int kParts>
POKEGAN_AVX512_INLINE void split_rest(__m512 rest, int first, __m512i* parts) {
  const __m512i half = _mm512_set1_epi32(0x8000);
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000));
#pragma GCC unroll 3
  for (int part = first; part < kParts; ++part) {
    parts[part] = _mm512_and_si512(_mm512_add_epi32((__m512i)rest, half), upper);
    rest = _mm512_sub_ps(rest, (__m512)parts[part]);
  }
}

// Values that round to an infinity are rounded towards zero. Infinities, and what is no number, are
// the last part, with 1 as the first and 0 between: so they meet the first part of their factor
// alone, and no two infinities of opposite signs are added.
template <int kParts>
POKEGAN_AVX512 __attribute__((noinline)) void split_large(__m512 values, __m512i* parts) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000));
  const __m512i exponent = _mm512_set1_epi32(0x7F800000);
  const auto bits = (__m512i)values;
  const __m512i size = _mm512_and_si512(bits, _mm512_set1_epi32(0x7FFFFFFF));
  const __mmask16 special = _mm512_cmpge_epi32_mask(size, exponent);
  const __mmask16 large = _mm512_cmpge_epi32_mask(size, _mm512_set1_epi32(0x7F7F8000));
  const __m512 finite = _mm512_maskz_mov_ps(static_cast<__mmask16>(~special), values);
  split_rest<1>(finite, 0, parts);
  parts[0] = _mm512_mask_and_epi32(parts[0], large, (__m512i)finite, upper);
  split_rest<kParts>(_mm512_sub_ps(finite, (__m512)parts[0]), 1, parts);
  const __m512i signs = _mm512_and_si512(bits, _mm512_set1_epi32(static_cast<int>(0x80000000)));
  const __m512i ones = _mm512_or_si512(signs, _mm512_set1_epi32(0x3F800000));
  parts[0] = _mm512_mask_mov_epi32(parts[0], special, ones);
  const auto quiet = (__m512i)_mm512_add_ps(values, values);
  parts[kParts - 1] = _mm512_mask_and_epi32(parts[kParts - 1], special, quiet, upper);
}

template <int kParts>
POKEGAN_AVX512_INLINE void split_values(__m512 values, __m512i* parts) {
  const __m512i size = _mm512_and_si512((__m512i)values, _mm512_set1_epi32(0x7FFFFFFF));
  const __mmask16 large = _mm512_cmpge_epi32_mask(size, _mm512_set1_epi32(0x7F7F8000));
  if (__builtin_expect(large != 0, 0)) {
    split_large<kParts>(values, parts);
  } else {
    split_rest<kParts>(values, 0, parts);
  }
}

// 32 values: 16 in each argument.
template <int kParts>
POKEGAN_AVX512_INLINE void split_row(__m512 low, __m512 high, __m512i* parts) {
  const __m512i odd =
      _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27,
                       25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  __m512i low_parts[kParts];
  __m512i high_parts[kParts];
  split_values<kParts>(low, low_parts);
  split_values<kParts>(high, high_parts);
#pragma GCC unroll 3
  for (int part = 0; part < kParts; ++part) {
    parts[part] = _mm512_permutex2var_epi16(low_parts[part], odd, high_parts[part]);
  }
}

#endif

}  // namespace pokegan
