// Blocks of 32 x 32 values, rounded to bfloat16 and put into the order in which a matrix unit reads
// them: two tiles of 16 rows of 64 bytes. Rows and columns that a block lacks are zeros.
//
// A float32 may also be split, into 2 or 3 bfloat16 that add up to it; each has its block.
#pragma once

#include <type_traits>

#include "../conv.h"
#include "conv_split.h"
#include "conv_units.h"

namespace pokegan {

constexpr int64_t kBlockSide = 32;
constexpr int64_t kTileBytes = 1024;
constexpr int64_t kBlockBytes = 2 * kTileBytes;

inline int64_t blocks_of(int64_t count) { return ceil_div(count, kBlockSide); }

// Of what a value is that is split into so many parts.
template <int kParts>
using ValueOf = std::conditional_t<kParts == 1, uint16_t, float>;

enum class Form {
  kRows,        // tile r / 16: row r. A left operand whose columns are summed over
  kPairs,       // tile c / 16: rows 2j and 2j + 1, interleaved. A right operand; rows are summed
  kTransposed,  // tile r / 16: pairs of columns, transposed. A right operand; columns are summed
  kPairsTransposed  // tile c / 16: column c. A left operand; rows are summed
};

#ifdef POKEGAN_HAS_CONV

POKEGAN_AVX512_INLINE __m512i load_values(const uint16_t* values, __mmask32 mask) {
  return _mm512_maskz_loadu_epi16(mask, values);
}

POKEGAN_AVX512_INLINE __m512i load_values(const float* values, __mmask32 mask) {
  const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), values);
  const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), values + 16);
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

// Writes 32 sums, where `mask` says.
POKEGAN_AVX512_INLINE void store_values(float* out, uint32_t mask, __m512 low, __m512 high) {
  _mm512_mask_storeu_ps(out, static_cast<__mmask16>(mask), low);
  _mm512_mask_storeu_ps(out + 16, static_cast<__mmask16>(mask >> 16), high);
}

// 16 x 16 words of 32 bits, in place.
POKEGAN_AVX512_INLINE void transpose_words(__m512i* rows) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    rows[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    rows[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    rows[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    rows[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512i even = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0x88);
    const __m512i odd = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0xDD);
    const __m512i later_even = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0x88);
    const __m512i later_odd = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0xDD);
    t[i] = _mm512_shuffle_i32x4(even, later_even, 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(odd, later_odd, 0x88);
    t[i + 8] = _mm512_shuffle_i32x4(even, later_even, 0xDD);
    t[i + 12] = _mm512_shuffle_i32x4(odd, later_odd, 0xDD);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) rows[i] = t[i];
}

// What pack_block reads: `rows` x `columns` values, at most 32 x 32, rows `stride` values apart.
template <typename Value>
struct BlockSource {
  const Value* values;
  int64_t stride;
  int64_t rows;
  int64_t columns;
};

template <bool kWhole, typename Value>
POKEGAN_AVX512_INLINE __m512i load_row(const BlockSource<Value>& source, int64_t row) {
  if constexpr (kWhole) return load_values(source.values + row * source.stride, 0xFFFFFFFFU);
  if (row >= source.rows) return _mm512_setzero_si512();
  return load_values(source.values + row * source.stride, mask_of(source.columns));
}

// Parts one after the other, each of them the 32 rows.
template <int kParts>
POKEGAN_AVX512_INLINE void split_block(const BlockSource<float>& source, uint16_t* out) {
  const uint32_t mask = mask_of(source.columns);
  for (int64_t r = 0; r < kBlockSide; ++r, out += kBlockSide) {
    const float* row = source.values + r * source.stride;
    __m512i parts[kParts];
    if (r < source.rows) {
      split_row<kParts>(_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), row),
                        _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), row + 16), parts);
    } else {
      for (__m512i& part : parts) part = _mm512_setzero_si512();
    }
#pragma GCC unroll 3
    for (int part = 0; part < kParts; ++part) {
      _mm512_store_si512(out + part * kBlockSide * kBlockSide, parts[part]);
    }
  }
}

POKEGAN_AVX512_INLINE void store_tile(const __m512i* rows, char* out) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm512_store_si512(out + 64 * i, rows[i]);
}

template <Form form, bool kWhole, typename Value>
POKEGAN_AVX512_INLINE void pack_rows(const BlockSource<Value>& source, char* out) {
  if constexpr (form == Form::kRows) {
    for (int64_t r = 0; r < kBlockSide; ++r)
      _mm512_store_si512(out + 64 * r, load_row<kWhole>(source, r));
    return;
  }
  const __m512i pairs = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40,
                                         8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  for (int tile = 0; tile < 2; ++tile) {
    __m512i words[16];
    if constexpr (form == Form::kTransposed) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) words[i] = load_row<kWhole>(source, 16 * tile + i);
    } else {
      const __m512i order =
          _mm512_add_epi16(pairs, _mm512_set1_epi16(static_cast<short>(16 * tile)));
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        words[i] = _mm512_permutex2var_epi16(load_row<kWhole>(source, 2 * i), order,
                                             load_row<kWhole>(source, 2 * i + 1));
      }
    }
    if constexpr (form != Form::kPairs) transpose_words(words);
    store_tile(words, out + kTileBytes * tile);
  }
}

template <Form form, typename Value>
POKEGAN_AVX512_INLINE void pack_part(const BlockSource<Value>& source, char* out) {
  if (source.rows >= kBlockSide && source.columns >= kBlockSide) {
    pack_rows<form, true>(source, out);
  } else {
    pack_rows<form, false>(source, out);
  }
}

// As many blocks as there are parts.
template <Form form, int kParts, typename Value>
POKEGAN_AVX512 void pack_block(const BlockSource<Value>& source, char* out) {
  if constexpr (kParts == 1) {
    pack_part<form>(source, out);
  } else if constexpr (form == Form::kRows) {
    split_block<kParts>(source, reinterpret_cast<uint16_t*>(out));
  } else {
    constexpr int64_t kValues = kBlockSide * kBlockSide;
    alignas(64) uint16_t parts[kParts * kValues];
    split_block<kParts>(source, parts);
    for (int part = 0; part < kParts; ++part, out += kBlockBytes) {
      const BlockSource<uint16_t> one{parts + part * kValues, kBlockSide, kBlockSide, kBlockSide};
      pack_part<form>(one, out);
    }
  }
}

#endif

}  // namespace pokegan
