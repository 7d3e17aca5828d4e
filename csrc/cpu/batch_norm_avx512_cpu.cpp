// Batch norm with an activation over rows of channels by AVX512-BF16: 16 channels at a time, some
// rows together, so that what belongs to a channel is loaded once for all of them.
#include <algorithm>

#include "batch_norm_rows.h"
#include "conv_units.h"

namespace pokegan {

#ifdef POKEGAN_HAS_CONV
namespace {

constexpr int kLanes = 16;
constexpr int64_t kLine = 32;  // values, of which a bfloat16 cache line is made

POKEGAN_AVX512_INLINE __m512 load(const float* place, __mmask16 used) {
  return _mm512_maskz_loadu_ps(used, place);
}

POKEGAN_AVX512_INLINE __m512 load(const Bfloat16* place, __mmask16 used) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(used, place));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

POKEGAN_AVX512_INLINE void store(__m512 values, float* place, __mmask16 used) {
  _mm512_mask_storeu_ps(place, used, values);
}

POKEGAN_AVX512_INLINE void store(__m512 values, Bfloat16* place, __mmask16 used) {
  _mm256_mask_storeu_epi16(place, used, (__m256i)_mm512_cvtneps_pbh(values));
}

// As `activate`.
template <Activation kActivation>
POKEGAN_AVX512_INLINE __m512 activate_lanes(__m512 t, __m512 slope) {
  const __m512 zero = _mm512_setzero_ps();
  if constexpr (kActivation == Activation::kNone) return t;
  if constexpr (kActivation == Activation::kRelu) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(t, zero, _CMP_NLT_UQ), t);
  }
  return _mm512_mask_mul_ps(t, _mm512_cmp_ps_mask(t, zero, _CMP_NGT_UQ), t, slope);
}

// As `activate_backward`.
template <Activation kActivation>
POKEGAN_AVX512_INLINE __m512 backward_lanes(__m512 gradient, __m512 t, __m512 slope) {
  const __m512 zero = _mm512_setzero_ps();
  if constexpr (kActivation == Activation::kNone) return gradient;
  if constexpr (kActivation == Activation::kRelu) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(t, zero, _CMP_NLE_UQ), gradient);
  }
  return _mm512_mask_mul_ps(gradient, _mm512_cmp_ps_mask(t, zero, _CMP_NGT_UQ), gradient, slope);
}

// Which of the 16 channels from `c` there are.
POKEGAN_AVX512_INLINE __mmask16 used_lanes(int64_t c, int64_t channels) {
  return channels - c >= kLanes ? 0xFFFFU : static_cast<__mmask16>((1U << (channels - c)) - 1U);
}

template <int kRows, typename Scalar>
POKEGAN_AVX512_INLINE void moments_rows(const Rows<Scalar>& rows, int64_t row, float* planes) {
  const int64_t channels = rows.channels;
  const Scalar* x = rows.input + row * channels;
  ask_ahead(x, kRows * channels * sizeof(Scalar));
  for (int64_t c = 0; c < channels; c += kLanes) {
    const __mmask16 used = used_lanes(c, channels);
    const __m512 shift = load(planes + c, used);
    __m512 sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    __m512 squares[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const __m512 d = _mm512_sub_ps(load(x + i * channels + c, used), shift);
      sums[i % 2] = _mm512_add_ps(sums[i % 2], d);
      squares[i % 2] = _mm512_fmadd_ps(d, d, squares[i % 2]);
    }
    float* sum = planes + channels + c;
    float* square = sum + channels;
    store(_mm512_add_ps(load(sum, used), _mm512_add_ps(sums[0], sums[1])), sum, used);
    store(_mm512_add_ps(load(square, used), _mm512_add_ps(squares[0], squares[1])), square, used);
  }
}

template <typename Scalar>
POKEGAN_AVX512 void moments_avx512(const Rows<Scalar>& rows, float* planes) {
  constexpr int kTogether = 8;
  const int64_t channels = rows.channels;
  const int64_t apart = rows.count < kShiftRows ? 0 : channels;
  for (int64_t c = 0; c < channels; c += kLanes) {
    const __mmask16 used = used_lanes(c, channels);
    __m512 values[kShiftRows];
#pragma GCC unroll 8
    for (int64_t i = 0; i < kShiftRows; ++i) {
      values[i] = load(rows.input + i * apart + c, used);
    }
#pragma GCC unroll 8
    for (int64_t i = 0; i < 4; ++i) values[i] = _mm512_add_ps(values[2 * i], values[2 * i + 1]);
    const __m512 sum =
        _mm512_add_ps(_mm512_add_ps(values[0], values[1]), _mm512_add_ps(values[2], values[3]));
    store(_mm512_mul_ps(sum, _mm512_set1_ps(0.125F)), planes + c, used);
  }
  std::fill_n(planes + channels, 2 * channels, 0.0F);
  int64_t row = 0;
  for (; row + kTogether <= rows.count; row += kTogether)
    moments_rows<kTogether>(rows, row, planes);
  for (; row < rows.count; ++row) moments_rows<1>(rows, row, planes);
}

template <Activation kActivation, int kRows, typename Scalar>
POKEGAN_AVX512_INLINE void apply_rows(const Rows<Scalar>& rows, int64_t row, const Channels& by) {
  const int64_t channels = rows.channels;
  const Scalar* x = rows.input + row * channels;
  Scalar* y = rows.out + row * channels;
  ask_ahead(x, kRows * channels * sizeof(Scalar));
  const __m512 slope = _mm512_set1_ps(by.slope);
  for (int64_t c = 0; c < channels; c += kLanes) {
    const __mmask16 used = used_lanes(c, channels);
    const __m512 mean = load(by.mean + c, used);
    const __m512 scale = load(by.scale + c, used);
    const __m512 bias = load(by.bias + c, used);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const __m512 d = _mm512_sub_ps(load(x + i * channels + c, used), mean);
      const __m512 t = _mm512_fmadd_ps(scale, d, bias);
      store(activate_lanes<kActivation>(t, slope), y + i * channels + c, used);
    }
  }
}

template <Activation kActivation, typename Scalar>
POKEGAN_AVX512 void apply_avx512(const Rows<Scalar>& rows, const Channels& by) {
  constexpr int kTogether = 4;
  int64_t row = 0;
  for (; row + kTogether <= rows.count; row += kTogether) {
    apply_rows<kActivation, kTogether>(rows, row, by);
  }
  for (; row < rows.count; ++row) apply_rows<kActivation, 1>(rows, row, by);
}

template <Activation kActivation, int kRows, typename Scalar>
POKEGAN_AVX512_INLINE void sums_rows(const Rows<Scalar>& rows, int64_t row, const Channels& by,
                                     float* planes) {
  const int64_t channels = rows.channels;
  const Scalar* x = rows.input + row * channels;
  const Scalar* dy = rows.gradient + row * channels;
  ask_ahead(x, kRows * channels * sizeof(Scalar));
  ask_ahead(dy, kRows * channels * sizeof(Scalar));
  const __m512 slope = _mm512_set1_ps(by.slope);
  for (int64_t c = 0; c < channels; c += kLanes) {
    const __mmask16 used = used_lanes(c, channels);
    const __m512 mean = load(by.mean + c, used);
    const __m512 scale = load(by.scale + c, used);
    const __m512 bias = load(by.bias + c, used);
    __m512 along = _mm512_setzero_ps();
    __m512 level = _mm512_setzero_ps();
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const __m512 d = _mm512_sub_ps(load(x + i * channels + c, used), mean);
      const __m512 t = _mm512_fmadd_ps(scale, d, bias);
      const __m512 g = backward_lanes<kActivation>(load(dy + i * channels + c, used), t, slope);
      along = _mm512_fmadd_ps(g, d, along);
      level = _mm512_add_ps(level, g);
    }
    float* alongs = planes + c;
    float* levels = alongs + channels;
    store(_mm512_add_ps(load(alongs, used), along), alongs, used);
    store(_mm512_add_ps(load(levels, used), level), levels, used);
  }
}

template <Activation kActivation, typename Scalar>
POKEGAN_AVX512 void sums_avx512(const Rows<Scalar>& rows, const Channels& by, float* planes) {
  constexpr int kTogether = 8;
  std::fill_n(planes, 2 * rows.channels, 0.0F);
  int64_t row = 0;
  for (; row + kTogether <= rows.count; row += kTogether) {
    sums_rows<kActivation, kTogether>(rows, row, by, planes);
  }
  for (; row < rows.count; ++row) sums_rows<kActivation, 1>(rows, row, by, planes);
}

template <Activation kActivation, int kRows, typename Scalar>
POKEGAN_AVX512_INLINE void backward_rows(const Rows<Scalar>& rows, int64_t row, const Channels& by,
                                         const Terms& terms) {
  const int64_t channels = rows.channels;
  const Scalar* x = rows.input + row * channels;
  const Scalar* dy = rows.gradient + row * channels;
  Scalar* dx = rows.out + row * channels;
  ask_ahead(x, kRows * channels * sizeof(Scalar));
  ask_ahead(dy, kRows * channels * sizeof(Scalar));
  const __m512 slope = _mm512_set1_ps(by.slope);
  for (int64_t c = 0; c < channels; c += kLanes) {
    const __mmask16 used = used_lanes(c, channels);
    const __m512 mean = load(by.mean + c, used);
    const __m512 scale = load(by.scale + c, used);
    const __m512 bias = load(by.bias + c, used);
    const __m512 along = load(terms.along + c, used);
    const __m512 level = load(terms.level + c, used);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const __m512 d = _mm512_sub_ps(load(x + i * channels + c, used), mean);
      const __m512 t = _mm512_fmadd_ps(scale, d, bias);
      const __m512 g = backward_lanes<kActivation>(load(dy + i * channels + c, used), t, slope);
      const __m512 rest = _mm512_fmadd_ps(along, d, level);
      store(_mm512_fmadd_ps(scale, g, rest), dx + i * channels + c, used);
    }
  }
}

template <Activation kActivation, typename Scalar>
POKEGAN_AVX512 void backward_avx512(const Rows<Scalar>& rows, const Channels& by,
                                    const Terms& terms) {
  constexpr int kTogether = 4;
  int64_t row = 0;
  for (; row + kTogether <= rows.count; row += kTogether) {
    backward_rows<kActivation, kTogether>(rows, row, by, terms);
  }
  for (; row < rows.count; ++row) backward_rows<kActivation, 1>(rows, row, by, terms);
}

template <Activation kActivation, typename Scalar>
POKEGAN_AVX512 void activate_avx512(Scalar* values, int64_t count, float slope) {
  const __m512 slopes = _mm512_set1_ps(slope);
  for (int64_t i = 0; i < count; i += kLanes) {
    const __mmask16 used = used_lanes(i, count);
    if (i % kLine == 0) ask_ahead(values + i, kLine * sizeof(Scalar));
    store(activate_lanes<kActivation>(load(values + i, used), slopes), values + i, used);
  }
}

template <Activation kActivation, typename Scalar>
POKEGAN_AVX512 void activate_back_avx512(const Scalar* gradient, const Scalar* result, Scalar* out,
                                         int64_t count, float slope) {
  const __m512 slopes = _mm512_set1_ps(slope);
  for (int64_t i = 0; i < count; i += kLanes) {
    const __mmask16 used = used_lanes(i, count);
    if (i % kLine == 0) {
      ask_ahead(gradient + i, kLine * sizeof(Scalar));
      ask_ahead(result + i, kLine * sizeof(Scalar));
    }
    const __m512 dy = load(gradient + i, used);
    store(backward_lanes<kActivation>(dy, load(result + i, used), slopes), out + i, used);
  }
}

template <typename Scalar>
constexpr RowKernels<Scalar> kKernels = {
    moments_avx512<Scalar>,
    {apply_avx512<Activation::kNone, Scalar>, apply_avx512<Activation::kRelu, Scalar>,
     apply_avx512<Activation::kLeaky, Scalar>},
    {sums_avx512<Activation::kNone, Scalar>, sums_avx512<Activation::kRelu, Scalar>,
     sums_avx512<Activation::kLeaky, Scalar>},
    {backward_avx512<Activation::kNone, Scalar>, backward_avx512<Activation::kRelu, Scalar>,
     backward_avx512<Activation::kLeaky, Scalar>},
    {activate_avx512<Activation::kNone, Scalar>, activate_avx512<Activation::kRelu, Scalar>,
     activate_avx512<Activation::kLeaky, Scalar>},
    {activate_back_avx512<Activation::kNone, Scalar>,
     activate_back_avx512<Activation::kRelu, Scalar>,
     activate_back_avx512<Activation::kLeaky, Scalar>}};

}  // namespace

const RowKernels<float>& avx512_kernels(const float*) { return kKernels<float>; }
const RowKernels<Bfloat16>& avx512_kernels(const Bfloat16*) { return kKernels<Bfloat16>; }

#else

const RowKernels<float>& avx512_kernels(const float* type) { return plain_kernels(type); }
const RowKernels<Bfloat16>& avx512_kernels(const Bfloat16* type) { return plain_kernels(type); }

#endif

}  // namespace pokegan
