// The transforms of minimal filtering, of 32 channels at once; see conv_winograd.h.
#pragma once

#include "conv_winograd.h"

namespace pokegan {

#ifdef POKEGAN_HAS_CONV

// 32 values in float32.
struct Lanes {
  __m512 low;
  __m512 high;
};

POKEGAN_AVX512_INLINE Lanes operator+(Lanes a, Lanes b) {
  return {_mm512_add_ps(a.low, b.low), _mm512_add_ps(a.high, b.high)};
}

POKEGAN_AVX512_INLINE Lanes operator-(Lanes a, Lanes b) {
  return {_mm512_sub_ps(a.low, b.low), _mm512_sub_ps(a.high, b.high)};
}

POKEGAN_AVX512_INLINE Lanes load_lanes(const float* values, uint32_t mask) {
  return {_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), values),
          _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), values + 16)};
}

POKEGAN_AVX512_INLINE Lanes load_lanes(const uint16_t* values, uint32_t mask) {
  const __m256i low = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(mask), values);
  const __m256i high = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(mask >> 16), values + 16);
  return {(__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(low), 16),
          (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16)};
}

// What d is multiplied as, by rows and columns: d0 - d1, d1, d1 - d2.
POKEGAN_AVX512_INLINE void differences(const Lanes (&d)[3][3], Lanes (&made)[3][3]) {
  Lanes rows[3][3];
#pragma GCC unroll 3
  for (int j = 0; j < 3; ++j) {
    rows[0][j] = d[0][j] - d[1][j];
    rows[1][j] = d[1][j];
    rows[2][j] = d[1][j] - d[2][j];
  }
#pragma GCC unroll 3
  for (int i = 0; i < 3; ++i) {
    made[i][0] = rows[i][0] - rows[i][1];
    made[i][1] = rows[i][1];
    made[i][2] = rows[i][1] - rows[i][2];
  }
}

// What g is multiplied as: g0, g0 + g1, g1.
POKEGAN_AVX512_INLINE void sums_of_pairs(const Lanes (&g)[2][2], Lanes (&made)[3][3]) {
  Lanes rows[3][2];
#pragma GCC unroll 2
  for (int j = 0; j < 2; ++j) {
    rows[0][j] = g[0][j];
    rows[1][j] = g[0][j] + g[1][j];
    rows[2][j] = g[1][j];
  }
#pragma GCC unroll 3
  for (int i = 0; i < 3; ++i) {
    made[i][0] = rows[i][0];
    made[i][1] = rows[i][0] + rows[i][1];
    made[i][2] = rows[i][1];
  }
}

// What the products make: m0 + m1, m1 - m2.
POKEGAN_AVX512_INLINE void pixels_of(const Lanes (&m)[3][3], Lanes (&made)[2][2]) {
  Lanes rows[2][3];
#pragma GCC unroll 3
  for (int j = 0; j < 3; ++j) {
    rows[0][j] = m[0][j] + m[1][j];
    rows[1][j] = m[1][j] - m[2][j];
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    made[i][0] = rows[i][0] + rows[i][1];
    made[i][1] = rows[i][1] - rows[i][2];
  }
}

// Rounds to bfloat16 and stores what each product multiplies, `apart` bytes from one another.
POKEGAN_AVX512_INLINE void store_rounded(const Lanes (&made)[3][3], int64_t apart, char* out) {
#pragma GCC unroll 9
  for (int64_t k = 0; k < kWinogradProducts; ++k) {
    const Lanes value = made[k / 3][k % 3];
    _mm512_store_si512(out + k * apart, (__m512i)_mm512_cvtne2ps_pbh(value.high, value.low));
  }
}

// [N, height, width, channels]
struct MapsOf {
  const uint16_t* values;
  int64_t height;
  int64_t width;
  int64_t channels;
};

// kSide x kSide pixels of an image, `step` apart; those outside of it are zeros.
template <int kSide>
class WindowOf {
 public:
  void set(const MapsOf& maps, int64_t image, int64_t row, int64_t column, int64_t step) {
    channels_ = maps.channels;
    for (int i = 0; i < kSide; ++i) {
      const int64_t y = row + i * step;
      for (int j = 0; j < kSide; ++j) {
        const int64_t x = column + j * step;
        const bool inside = y >= 0 && y < maps.height && x >= 0 && x < maps.width;
        const int64_t pixel = inside ? (image * maps.height + y) * maps.width + x : 0;
        pixels_[i][j] = maps.values + pixel * maps.channels;
        inside_[i][j] = inside ? 0xFFFFFFFFU : 0;
      }
    }
  }

  // The channels from `channel` on.
  POKEGAN_AVX512_INLINE void load(int64_t channel, Lanes (&values)[kSide][kSide]) const {
    const uint32_t mask = mask_of(channels_ - channel);
#pragma GCC unroll 3
    for (int i = 0; i < kSide; ++i) {
#pragma GCC unroll 3
      for (int j = 0; j < kSide; ++j) {
        values[i][j] = load_lanes(pixels_[i][j] + channel, inside_[i][j] & mask);
      }
    }
  }

 private:
  int64_t channels_;
  const uint16_t* pixels_[kSide][kSide];
  uint32_t inside_[kSide][kSide];
};

struct Tile {
  int64_t image;
  int64_t row;
  int64_t column;
};

// The tiles of all images, in the order in which they lie in memory.
struct TileGrid {
  int64_t images;
  int64_t rows;
  int64_t columns;

  int64_t count() const { return images * rows * columns; }
  Tile at(int64_t number) const {
    return {number / (rows * columns), number / columns % rows, number % columns};
  }
};

#endif

}  // namespace pokegan
