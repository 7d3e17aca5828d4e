// Philox of 32 consecutive blocks of one sample: what does not depend on the block, half of the
// first two rounds, is worked out once. Lanes hold a word in their low half, as in philox_lanes.h.
#pragma once

#include <cstdint>

#include "../philox.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace pokegan {

constexpr int kRowBlocks = 32;
constexpr int kRowWords = 4 * kRowBlocks;

// The first two rounds of the counters (block, sample, step, stream). With a hat on what the block
// changes, and (high, low) the halves of a product:
//   round 1: (high1 ^ sample ^ k0, low1, high0^ ^ stream ^ k1, low0^) of block^ * M0 and step * M1;
//   round 2: (high1^ ^ low1 ^ k0', low1^, high0 ^ low0^ ^ k1', low0) of the words before.
struct RowStart {
  uint32_t with_high;  // stream ^ k1, of round 1
  uint32_t word0;      // what word 0 after round 2 is apart from the high half of its product
  uint32_t word2;      // what word 2 after round 2 is apart from block * M0
  uint32_t word3;      // word 3 after round 2
  uint32_t key[2][8];  // of rounds 3 to 10
};

inline RowStart row_start(const RandomKey& key, uint32_t sample) {
  uint32_t key0 = static_cast<uint32_t>(key.seed);
  uint32_t key1 = static_cast<uint32_t>(key.seed >> 32);
  const uint64_t product1 = static_cast<uint64_t>(kPhiloxMultiplier1) * key.step;
  const uint32_t first = static_cast<uint32_t>(product1 >> 32) ^ sample ^ key0;
  const uint64_t product0 = static_cast<uint64_t>(kPhiloxMultiplier0) * first;
  RowStart start{};
  start.with_high = key.stream ^ key1;
  key0 += kPhiloxWeyl0;
  key1 += kPhiloxWeyl1;
  start.word0 = static_cast<uint32_t>(product1) ^ key0;
  start.word2 = static_cast<uint32_t>(product0 >> 32) ^ key1;
  start.word3 = static_cast<uint32_t>(product0);
  for (int round = 0; round < kPhiloxRounds - 2; ++round) {
    start.key[0][round] = key0 += kPhiloxWeyl0;
    start.key[1][round] = key1 += kPhiloxWeyl1;
  }
  return start;
}

// Words 4 * block to 4 * block + 127 of a sample.
using DrawRow = void (*)(const RandomKey& key, uint32_t sample, uint32_t block, uint32_t* word);

inline void draw_row_plain(const RandomKey& key, uint32_t sample, uint32_t block, uint32_t* word) {
  for (uint32_t i = 0; i < kRowBlocks; ++i) {
    const Words4 words = random_words(key, sample, block + i);
    for (int j = 0; j < 4; ++j) word[4 * i + j] = words.word[j];
  }
}

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx2"))) inline void draw_row_avx2(const RandomKey& key, uint32_t sample,
                                                          uint32_t block, uint32_t* word) {
  const RowStart start = row_start(key, sample);
  const __m256i multiplier0 = _mm256_set1_epi64x(kPhiloxMultiplier0);
  const __m256i multiplier1 = _mm256_set1_epi64x(kPhiloxMultiplier1);
  __m256i blocks = _mm256_add_epi32(_mm256_set1_epi64x(block), _mm256_setr_epi64x(0, 1, 2, 3));
  for (int i = 0; i < kRowBlocks; i += 4) {
    const __m256i of_block = _mm256_mul_epu32(blocks, multiplier0);
    blocks = _mm256_add_epi32(blocks, _mm256_set1_epi64x(4));
    __m256i word2 =
        _mm256_xor_si256(_mm256_srli_epi64(of_block, 32), _mm256_set1_epi64x(start.with_high));
    __m256i word1 = _mm256_mul_epu32(word2, multiplier1);
    __m256i word0 = _mm256_xor_si256(_mm256_srli_epi64(word1, 32), _mm256_set1_epi64x(start.word0));
    word2 = _mm256_xor_si256(of_block, _mm256_set1_epi64x(start.word2));
    __m256i word3 = _mm256_set1_epi64x(start.word3);
#pragma GCC unroll 8
    for (int round = 0; round < kPhiloxRounds - 2; ++round) {
      const __m256i product0 = _mm256_mul_epu32(word0, multiplier0);
      const __m256i product1 = _mm256_mul_epu32(word2, multiplier1);
      word0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product1, 32), word1),
                               _mm256_set1_epi64x(start.key[0][round]));
      word1 = product1;
      word2 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product0, 32), word3),
                               _mm256_set1_epi64x(start.key[1][round]));
      word3 = product0;
    }
    const __m256i low = _mm256_blend_epi32(word0, _mm256_slli_epi64(word1, 32), 0xAA);
    const __m256i high = _mm256_blend_epi32(word2, _mm256_slli_epi64(word3, 32), 0xAA);
    const __m256i even = _mm256_unpacklo_epi64(low, high);
    const __m256i odd = _mm256_unpackhi_epi64(low, high);
    auto* out = reinterpret_cast<__m256i*>(word + 4 * i);
    _mm256_storeu_si256(out, _mm256_permute2x128_si256(even, odd, 0x20));
    _mm256_storeu_si256(out + 1, _mm256_permute2x128_si256(even, odd, 0x31));
  }
}

// A row's words as eight lanes of 64 bits: `word[i][j]` has word j of the blocks 8 i to 8 i + 7, in
// the low halves; the high halves are anything. Four chains of products at once, for one alone
// waits for itself. The forms with a mask of ones, because GCC 12 warns of its own header in those
// without.
__attribute__((target("avx512f"), always_inline)) inline void draw_lanes_of_row(
    const RowStart& start, uint32_t block, __m512i (&word)[kRowBlocks / 8][4]) {
  constexpr __mmask8 kAll = 0xFF;
  constexpr int kXor = 0x96;  // of three
  const __m512i multiplier0 = _mm512_set1_epi64(kPhiloxMultiplier0);
  const __m512i multiplier1 = _mm512_set1_epi64(kPhiloxMultiplier1);
  __m512i blocks =
      _mm512_add_epi32(_mm512_set1_epi64(block), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
#pragma GCC unroll 4
  for (auto& lane : word) {
    const __m512i of_block = _mm512_maskz_mul_epu32(kAll, blocks, multiplier0);
    blocks = _mm512_add_epi32(blocks, _mm512_set1_epi64(8));
    lane[2] = _mm512_xor_si512(_mm512_maskz_srli_epi64(kAll, of_block, 32),
                               _mm512_set1_epi64(start.with_high));
    lane[1] = _mm512_maskz_mul_epu32(kAll, lane[2], multiplier1);
    lane[0] = _mm512_xor_si512(_mm512_maskz_srli_epi64(kAll, lane[1], 32),
                               _mm512_set1_epi64(start.word0));
    lane[2] = _mm512_xor_si512(of_block, _mm512_set1_epi64(start.word2));
    lane[3] = _mm512_set1_epi64(start.word3);
  }
#pragma GCC unroll 8
  for (int round = 0; round < kPhiloxRounds - 2; ++round) {
    const __m512i key0 = _mm512_set1_epi64(start.key[0][round]);
    const __m512i key1 = _mm512_set1_epi64(start.key[1][round]);
#pragma GCC unroll 4
    for (auto& lane : word) {
      const __m512i product0 = _mm512_maskz_mul_epu32(kAll, lane[0], multiplier0);
      const __m512i product1 = _mm512_maskz_mul_epu32(kAll, lane[2], multiplier1);
      lane[0] = _mm512_ternarylogic_epi64(_mm512_maskz_srli_epi64(kAll, product1, 32), lane[1],
                                          key0, kXor);
      lane[1] = product1;
      lane[2] = _mm512_ternarylogic_epi64(_mm512_maskz_srli_epi64(kAll, product0, 32), lane[3],
                                          key1, kXor);
      lane[3] = product0;
    }
  }
}

__attribute__((target("avx512f"))) inline void draw_row_avx512(const RandomKey& key,
                                                               uint32_t sample, uint32_t block,
                                                               uint32_t* word) {
  constexpr __mmask8 kAll = 0xFF;
  const RowStart start = row_start(key, sample);
  const __m512i first = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
  const __m512i second = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
  __m512i lanes[kRowBlocks / 8][4];
  draw_lanes_of_row(start, block, lanes);
#pragma GCC unroll 4
  for (const auto& lane : lanes) {
    const __m512i low =
        _mm512_mask_blend_epi32(0xAAAA, lane[0], _mm512_maskz_slli_epi64(kAll, lane[1], 32));
    const __m512i high =
        _mm512_mask_blend_epi32(0xAAAA, lane[2], _mm512_maskz_slli_epi64(kAll, lane[3], 32));
    _mm512_storeu_si512(word, _mm512_permutex2var_epi64(low, first, high));
    _mm512_storeu_si512(word + 16, _mm512_permutex2var_epi64(low, second, high));
    word += 32;
  }
}

inline DrawRow widest_draw_row() {
  if (__builtin_cpu_supports("avx512f")) return &draw_row_avx512;
  return __builtin_cpu_supports("avx2") ? &draw_row_avx2 : &draw_row_plain;
}
#else
inline DrawRow widest_draw_row() { return &draw_row_plain; }
#endif

inline void draw_row(const RandomKey& key, uint32_t sample, uint32_t block, uint32_t* word) {
  static const DrawRow draw = widest_draw_row();
  draw(key, sample, block, word);
}

}  // namespace pokegan
