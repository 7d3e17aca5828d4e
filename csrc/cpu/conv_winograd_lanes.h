// The transforms of minimal filtering, of 32 channels at once; see conv_winograd.h. N is the count
// of products on an axis, 3 for two taps and 4 for three.
#pragma once

#include "conv_winograd.h"

namespace pokegan {

#ifdef POKEGAN_HAS_CONV

// 32 values in float32.
struct Floats {
  __m512 low;
  __m512 high;
};

POKEGAN_AVX512_INLINE Floats operator+(Floats a, Floats b) {
  return {_mm512_add_ps(a.low, b.low), _mm512_add_ps(a.high, b.high)};
}

POKEGAN_AVX512_INLINE Floats operator-(Floats a, Floats b) {
  return {_mm512_sub_ps(a.low, b.low), _mm512_sub_ps(a.high, b.high)};
}

POKEGAN_AVX512_INLINE Floats half_of(Floats a) {
  const __m512 half = _mm512_set1_ps(0.5F);
  return {_mm512_mul_ps(a.low, half), _mm512_mul_ps(a.high, half)};
}

POKEGAN_AVX512_INLINE Floats zeros() { return {_mm512_setzero_ps(), _mm512_setzero_ps()}; }

POKEGAN_AVX512_INLINE Floats load_lanes(const float* values, uint32_t mask) {
  return {_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), values),
          _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), values + 16)};
}

POKEGAN_AVX512_INLINE Floats load_lanes(const uint16_t* values, uint32_t mask) {
  const __m256i low = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(mask), values);
  const __m256i high = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(mask >> 16), values + 16);
  return {(__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(low), 16),
          (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16)};
}

POKEGAN_AVX512_INLINE __m512i rounded(Floats values) {
  return (__m512i)_mm512_cvtne2ps_pbh(values.high, values.low);
}

// What N neighbours are multiplied as; product `k` of them.
template <int N, int k>
POKEGAN_AVX512_INLINE Floats of_neighbours(const Floats (&d)[N]) {
  if constexpr (N == 3) {
    if constexpr (k == 0) return d[0] - d[1];
    if constexpr (k == 1) return d[1];
    return d[2] - d[1];
  } else {
    if constexpr (k == 0) return d[0] - d[2];
    if constexpr (k == 1) return d[1] + d[2];
    if constexpr (k == 2) return d[2] - d[1];
    return d[3] - d[1];
  }
}

template <int N>
POKEGAN_AVX512_INLINE void all_of_neighbours(const Floats (&d)[N], Floats (&made)[N]) {
  made[0] = of_neighbours<N, 0>(d);
  made[1] = of_neighbours<N, 1>(d);
  made[2] = of_neighbours<N, 2>(d);
  if constexpr (N == 4) made[3] = of_neighbours<N, 3>(d);
}

// What N - 1 taps are multiplied as.
template <int N>
POKEGAN_AVX512_INLINE void all_of_taps(const Floats (&g)[N - 1], Floats (&made)[N]) {
  made[0] = g[0];
  if constexpr (N == 3) {
    made[1] = g[0] + g[1];
    made[2] = g[1];
  } else {
    const Floats outer = g[0] + g[2];
    made[1] = half_of(outer + g[1]);
    made[2] = half_of(outer - g[1]);
    made[3] = g[2];
  }
}

// The two pixels that N products make.
template <int N>
POKEGAN_AVX512_INLINE void pixels_of(const Floats (&m)[N], Floats (&made)[2]) {
  if constexpr (N == 3) {
    made[0] = m[0] + m[1];
    made[1] = m[1] + m[2];
  } else {
    made[0] = m[0] + (m[1] + m[2]);
    made[1] = (m[1] - m[2]) + m[3];
  }
}

// What the gradients of two pixels are multiplied as; product `k` of them.
template <int N, int k>
POKEGAN_AVX512_INLINE Floats of_pixels(const Floats (&e)[2]) {
  if constexpr (k == 0) return e[0];
  if constexpr (k == 1) return e[0] + e[1];
  if constexpr (N == 4 && k == 2) return e[0] - e[1];
  return e[1];
}

template <int N>
POKEGAN_AVX512_INLINE void all_of_pixels(const Floats (&e)[2], Floats (&made)[N]) {
  made[0] = of_pixels<N, 0>(e);
  made[1] = of_pixels<N, 1>(e);
  made[2] = of_pixels<N, 2>(e);
  if constexpr (N == 4) made[3] = of_pixels<N, 3>(e);
}

// The gradients of the taps that N products make.
template <int N>
POKEGAN_AVX512_INLINE void taps_of(const Floats (&m)[N], Floats (&made)[N - 1]) {
  if constexpr (N == 3) {
    made[0] = m[0] + m[1];
    made[1] = m[1] + m[2];
  } else {
    const Floats outer = half_of(m[1] + m[2]);
    made[0] = m[0] + outer;
    made[1] = half_of(m[1] - m[2]);
    made[2] = outer + m[3];
  }
}

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
  int64_t groups() const { return ceil_div(count(), kBlockSide); }
  // Of 32 tiles.
  int64_t in_group(int64_t group) const {
    return std::min(kBlockSide, count() - group * kBlockSide);
  }
  Tile at(int64_t number) const {
    return {number / (rows * columns), number / columns % rows, number % columns};
  }
};

// [N, height, width, channels]
struct MapsOf {
  const uint16_t* values;
  int64_t height;
  int64_t width;
  int64_t channels;
};

// Where the window of the first tile begins, and how far apart its pixels and tiles' windows are.
struct Places {
  int64_t row;
  int64_t column;
  int64_t step;
};

// The windows of a group's tiles: kSide x kSide pixels; those outside of the image are zeros.
template <int kSide>
class Windows {
 public:
  Windows(const MapsOf& maps, const TileGrid& tiles, int64_t group, const Places& places)
      : channels_(maps.channels), count_(tiles.in_group(group)) {
    for (int64_t n = 0; n < count_; ++n) {
      const Tile tile = tiles.at(group * kBlockSide + n);
      const int64_t row = places.row + tile.row * kWinogradTile * places.step;
      const int64_t column = places.column + tile.column * kWinogradTile * places.step;
      follows_[n] = n > 0 && tile.column > 0;
      for (int i = 0; i < kSide; ++i) {
        const int64_t y = row + i * places.step;
        for (int j = 0; j < kSide; ++j) {
          const int64_t x = column + j * places.step;
          const bool inside = y >= 0 && y < maps.height && x >= 0 && x < maps.width;
          const int64_t pixel = inside ? (tile.image * maps.height + y) * maps.width + x : 0;
          pixels_[n][i][j] = maps.values + pixel * maps.channels;
          inside_[n][i][j] = inside ? 0xFFFFFFFFU : 0;
        }
      }
    }
  }

  int64_t count() const { return count_; }
  // Whether a tile lies right of the one before, whose window it shares columns with.
  bool follows(int64_t tile) const { return follows_[tile]; }

  // Column j of a tile's window, the 32 channels from `channel` on.
  POKEGAN_AVX512_INLINE void load(int64_t tile, int j, int64_t channel,
                                  Floats (&values)[kSide]) const {
    const uint32_t mask = mask_of(channels_ - channel);
#pragma GCC unroll 4
    for (int i = 0; i < kSide; ++i) {
      values[i] = load_lanes(pixels_[tile][i][j] + channel, inside_[tile][i][j] & mask);
    }
  }

 private:
  int64_t channels_;
  int64_t count_;
  bool follows_[kBlockSide];
  const uint16_t* pixels_[kBlockSide][kSide][kSide];
  uint32_t inside_[kBlockSide][kSide][kSide];
};

#endif

}  // namespace pokegan
