// Writes the sums of a product as bfloat16; and sums, over the pixels, what is written.
#pragma once

#include "conv_units.h"

namespace pokegan {

#ifdef POKEGAN_HAS_CONV

POKEGAN_AVX512_INLINE __m512 bias_of(const Unwritten& sums, int64_t first) {
  return sums.bias != nullptr ? _mm512_loadu_ps(sums.bias + first) : _mm512_setzero_ps();
}

// The 32 channels of pixel i of what is unwritten.
POKEGAN_AVX512_INLINE __m512i pixel_of(const Unwritten& sums, int64_t i, __m512 low_bias,
                                       __m512 high_bias) {
  const int64_t columns = sums.channels > 16 ? 2 : 1;
  const float* row = sums.sums + i / 16 * columns * 256 + i % 16 * 16;
  const __m512 low = _mm512_add_ps(_mm512_load_ps(row), low_bias);
  const __m512 high = _mm512_add_ps(_mm512_load_ps(row + 256 * (columns - 1)), high_bias);
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

// Half of 32 bfloat16.
POKEGAN_AVX512_INLINE __m512 wide_half(__m512i pixel, int half) {
  const __m256i part =
      half == 1 ? _mm512_extracti64x4_epi64(pixel, 1) : _mm512_castsi512_si256(pixel);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(part), 16));
}

// Nothing is summed.
class NoSums {
 public:
  POKEGAN_AVX512_INLINE explicit NoSums(const Unwritten&) {}
  POKEGAN_AVX512_INLINE void add(int64_t, __m512i) {}
  POKEGAN_AVX512_INLINE void keep() const {}
};

// What two sums over the pixels of a product have in common: they stand in registers, in float,
// until `keep` adds them to the share's.
class PairOfSums {
 protected:
  POKEGAN_AVX512_INLINE explicit PairOfSums(const Unwritten& sums) : sums_(sums) {
    for (int half = 0; half < 2; ++half) first_[half] = second_[half] = _mm512_setzero_ps();
  }
  POKEGAN_AVX512_INLINE bool counts(int64_t i) const { return (sums_.counted >> i & 1U) != 0; }

  const Unwritten& sums_;
  __m512 first_[2];
  __m512 second_[2];

 private:
  POKEGAN_AVX512_INLINE static void add_wide(__m512 values, double* out) {
    const __m256 low = _mm512_castps512_ps256(values);
    const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(values), 1));
    _mm512_store_pd(out, _mm512_add_pd(_mm512_load_pd(out), _mm512_cvtps_pd(low)));
    _mm512_store_pd(out + 8, _mm512_add_pd(_mm512_load_pd(out + 8), _mm512_cvtps_pd(high)));
  }

 public:
  POKEGAN_AVX512_INLINE void keep() const {
    ChannelSums& summed = *sums_.summed;
    for (int half = 0; half < 2; ++half) {
      add_wide(first_[half], summed.first + 16 * half);
      add_wide(second_[half], summed.second + 16 * half);
    }
    summed.count += __builtin_popcount(sums_.counted);
  }
};

class MomentSums : public PairOfSums {
 public:
  POKEGAN_AVX512_INLINE explicit MomentSums(const Unwritten& sums) : PairOfSums(sums) {
    if (sums.summed->count == 0) find_shift();
    for (int half = 0; half < 2; ++half) {
      shift_[half] = _mm512_load_ps(sums.summed->shift + 16 * half);
    }
  }

  POKEGAN_AVX512_INLINE void add(int64_t i, __m512i pixel) {
    if (!counts(i)) return;
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const __m512 away = _mm512_sub_ps(wide_half(pixel, half), shift_[half]);
      first_[half] = _mm512_add_ps(first_[half], away);
      second_[half] = _mm512_fmadd_ps(away, away, second_[half]);
    }
  }

 private:
  POKEGAN_AVX512_INLINE void find_shift() const {
    constexpr int kFirst = 8;
    __m512 means[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    int found = 0;
    for (int64_t i = 0; i < sums_.count && found < kFirst; ++i) {
      if (!counts(i)) continue;
      const __m512i pixel = pixel_of(sums_, i, bias_of(sums_, 0), bias_of(sums_, 16));
      for (int half = 0; half < 2; ++half) {
        means[half] = _mm512_add_ps(means[half], wide_half(pixel, half));
      }
      ++found;
    }
    const __m512 share = _mm512_set1_ps(found > 0 ? 1.0F / static_cast<float>(found) : 0.0F);
    for (int half = 0; half < 2; ++half) {
      _mm512_store_ps(sums_.summed->shift + 16 * half, _mm512_mul_ps(means[half], share));
    }
  }

  __m512 shift_[2];
};

// As `batch_norm_act_sums`: of a ReLU nothing is multiplied by 0.
class GradientSums : public PairOfSums {
 public:
  POKEGAN_AVX512_INLINE explicit GradientSums(const Unwritten& sums)
      : PairOfSums(sums),
        mask_(mask_of(sums.channels)),
        leaky_(sums.norm->slope != 0.0F ? 0xFFFFU : 0),
        slope_(_mm512_set1_ps(sums.norm->slope)) {
    const NormBefore& norm = *sums.norm;
    for (int half = 0; half < 2; ++half) {
      const int64_t channel = sums.channel + 16 * half;
      mean_[half] = _mm512_loadu_ps(norm.mean + channel);
      scale_[half] = _mm512_loadu_ps(norm.scale + channel);
      bias_[half] = _mm512_loadu_ps(norm.bias + channel);
    }
  }

  POKEGAN_AVX512_INLINE void add(int64_t i, __m512i pixel) {
    if (!counts(i)) return;
    const uint16_t* place = sums_.norm->x + (sums_.pixels[i] + sums_.offset - sums_.norm->out);
    const __m512i x = _mm512_maskz_loadu_epi16(mask_, place);
    const __m512 zero = _mm512_setzero_ps();
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const __m512 away = _mm512_sub_ps(wide_half(x, half), mean_[half]);
      const __m512 t = _mm512_fmadd_ps(scale_[half], away, bias_[half]);
      const __m512 dy = wide_half(pixel, half);
      const __mmask16 unordered = _mm512_cmp_ps_mask(t, zero, _CMP_UNORD_Q) & leaky_;
      const __mmask16 below = _mm512_cmp_ps_mask(t, zero, _CMP_LE_OQ) | unordered;
      const __m512 sloped = _mm512_maskz_mul_ps(leaky_, dy, slope_);
      const __m512 g = _mm512_mask_mov_ps(dy, below, sloped);
      first_[half] = _mm512_fmadd_ps(g, away, first_[half]);
      second_[half] = _mm512_add_ps(second_[half], g);
    }
  }

 private:
  const __mmask32 mask_;
  const __mmask16 leaky_;
  const __m512 slope_;
  __m512 mean_[2];
  __m512 scale_[2];
  __m512 bias_[2];
};

template <typename Sums>
class Writer {
 public:
  POKEGAN_AVX512_INLINE explicit Writer(const Unwritten& sums)
      : unwritten_(sums),
        mask_(mask_of(sums.channels)),
        low_bias_(bias_of(sums, 0)),
        high_bias_(bias_of(sums, 16)),
        sums_(sums) {}

  // The pixels [begin, end).
  POKEGAN_AVX512_INLINE void write(int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const __m512i pixel = pixel_of(unwritten_, i, low_bias_, high_bias_);
      _mm512_mask_storeu_epi16(unwritten_.pixels[i] + unwritten_.offset, mask_, pixel);
      sums_.add(i, pixel);
    }
  }

  // Behind the last pixel.
  POKEGAN_AVX512_INLINE void keep() const { sums_.keep(); }

 private:
  const Unwritten& unwritten_;
  const __mmask32 mask_;
  const __m512 low_bias_;
  const __m512 high_bias_;
  Sums sums_;
};

template <typename Sums>
POKEGAN_AVX512 void write_all_of(const Unwritten& sums) {
  Writer<Sums> writer(sums);
  writer.write(0, sums.count);
  writer.keep();
}

inline void write_all(const Unwritten& sums) {
  if (sums.summed == nullptr) {
    write_all_of<NoSums>(sums);
  } else if (sums.norm == nullptr) {
    write_all_of<MomentSums>(sums);
  } else {
    write_all_of<GradientSums>(sums);
  }
}

#endif

}  // namespace pokegan
