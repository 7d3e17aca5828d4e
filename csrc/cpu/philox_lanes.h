// Philox of 32 counters at once. A counter's word stands in the low half of a 64-bit lane, where
// vector units multiply 32 by 32 bits; what gathers in the high half never comes down again.
#pragma once

#include <cstdint>

#include "../philox.h"
#include "vector.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace pokegan {

constexpr int kLanes = 32;

// Only the low 32 bits of samples and blocks count.
struct Lanes {
  uint64_t sample[kLanes];
  uint64_t block[kLanes];
  uint32_t word[kLanes][4];
};

using DrawLanes = void (*)(const RandomKey& key, Lanes& lanes);

inline void draw_lanes_plain(const RandomKey& key, Lanes& lanes) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const Words4 words = random_words(key, static_cast<uint32_t>(lanes.sample[lane]),
                                      static_cast<uint32_t>(lanes.block[lane]));
    for (int i = 0; i < 4; ++i) lanes.word[lane][i] = words.word[i];
  }
}

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx2"))) inline void draw_lanes_avx2(const RandomKey& key, Lanes& lanes) {
  const __m256i multiplier0 = _mm256_set1_epi64x(kPhiloxMultiplier0);
  const __m256i multiplier1 = _mm256_set1_epi64x(kPhiloxMultiplier1);
  for (int lane = 0; lane < kLanes; lane += 4) {
    __m256i word0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lanes.block + lane));
    __m256i word1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lanes.sample + lane));
    __m256i word2 = _mm256_set1_epi64x(key.step);
    __m256i word3 = _mm256_set1_epi64x(key.stream);
    uint32_t key0 = static_cast<uint32_t>(key.seed);
    uint32_t key1 = static_cast<uint32_t>(key.seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < kPhiloxRounds; ++round) {
      const __m256i product0 = _mm256_mul_epu32(word0, multiplier0);
      const __m256i product1 = _mm256_mul_epu32(word2, multiplier1);
      word0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product1, 32), word1),
                               _mm256_set1_epi64x(key0));
      word1 = product1;
      word2 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product0, 32), word3),
                               _mm256_set1_epi64x(key1));
      word3 = product0;
      key0 += kPhiloxWeyl0;
      key1 += kPhiloxWeyl1;
    }
    const __m256i low = _mm256_blend_epi32(word0, _mm256_slli_epi64(word1, 32), 0xAA);
    const __m256i high = _mm256_blend_epi32(word2, _mm256_slli_epi64(word3, 32), 0xAA);
    const __m256i even = _mm256_unpacklo_epi64(low, high);
    const __m256i odd = _mm256_unpackhi_epi64(low, high);
    auto* out = reinterpret_cast<__m256i*>(lanes.word[lane]);
    _mm256_storeu_si256(out, _mm256_permute2x128_si256(even, odd, 0x20));
    _mm256_storeu_si256(out + 1, _mm256_permute2x128_si256(even, odd, 0x31));
  }
}

// The forms with a mask of ones, because GCC 12 warns of its own header in those without.
__attribute__((target("avx512f"))) inline void draw_lanes_avx512(const RandomKey& key,
                                                                 Lanes& lanes) {
  constexpr __mmask8 kAll = 0xFF;
  constexpr int kXor = 0x96;  // of three
  const __m512i multiplier0 = _mm512_set1_epi64(kPhiloxMultiplier0);
  const __m512i multiplier1 = _mm512_set1_epi64(kPhiloxMultiplier1);
  const __m512i first = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
  const __m512i second = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
  for (int lane = 0; lane < kLanes; lane += 8) {
    __m512i word0 = _mm512_loadu_si512(lanes.block + lane);
    __m512i word1 = _mm512_loadu_si512(lanes.sample + lane);
    __m512i word2 = _mm512_set1_epi64(key.step);
    __m512i word3 = _mm512_set1_epi64(key.stream);
    uint32_t key0 = static_cast<uint32_t>(key.seed);
    uint32_t key1 = static_cast<uint32_t>(key.seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < kPhiloxRounds; ++round) {
      const __m512i product0 = _mm512_maskz_mul_epu32(kAll, word0, multiplier0);
      const __m512i product1 = _mm512_maskz_mul_epu32(kAll, word2, multiplier1);
      word0 = _mm512_ternarylogic_epi64(_mm512_maskz_srli_epi64(kAll, product1, 32), word1,
                                        _mm512_set1_epi64(key0), kXor);
      word1 = product1;
      word2 = _mm512_ternarylogic_epi64(_mm512_maskz_srli_epi64(kAll, product0, 32), word3,
                                        _mm512_set1_epi64(key1), kXor);
      word3 = product0;
      key0 += kPhiloxWeyl0;
      key1 += kPhiloxWeyl1;
    }
    const __m512i low =
        _mm512_mask_blend_epi32(0xAAAA, word0, _mm512_maskz_slli_epi64(kAll, word1, 32));
    const __m512i high =
        _mm512_mask_blend_epi32(0xAAAA, word2, _mm512_maskz_slli_epi64(kAll, word3, 32));
    _mm512_storeu_si512(lanes.word[lane], _mm512_permutex2var_epi64(low, first, high));
    _mm512_storeu_si512(lanes.word[lane + 4], _mm512_permutex2var_epi64(low, second, high));
  }
}

inline DrawLanes widest_draw_lanes() {
  if (__builtin_cpu_supports("avx512f")) return &draw_lanes_avx512;
  return __builtin_cpu_supports("avx2") ? &draw_lanes_avx2 : &draw_lanes_plain;
}
#else
inline DrawLanes widest_draw_lanes() { return &draw_lanes_plain; }
#endif

// The words 4 * block to 4 * block + 3 of every lane's sample.
inline void draw_lanes(const RandomKey& key, Lanes& lanes) {
  static const DrawLanes draw = widest_draw_lanes();
  draw(key, lanes);
}

}  // namespace pokegan
