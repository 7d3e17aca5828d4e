// Batch norm with an activation over rows of channels, left to the compiler to vectorise.
#include <algorithm>

#include "batch_norm_rows.h"

// What is written is never what is read, nor is it written twice.
#if defined(__clang__)
#define POKEGAN_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define POKEGAN_INDEPENDENT _Pragma("GCC ivdep")
#else
#define POKEGAN_INDEPENDENT
#endif

namespace pokegan {
namespace {

POKEGAN_INLINE float load(float value) { return value; }
POKEGAN_INLINE float load(Bfloat16 value) { return to_float(value); }
POKEGAN_INLINE void store(float value, float* place) { *place = value; }
POKEGAN_INLINE void store(float value, Bfloat16* place) { *place = to_bfloat16(value); }

template <typename Scalar>
POKEGAN_INLINE void moments_of(const Rows<Scalar>& rows, float* planes) {
  const int64_t channels = rows.channels;
  float* shift = planes;
  float* sum = planes + channels;
  float* square = planes + 2 * channels;
  const Scalar* start = rows.input;
  const int64_t apart = rows.count < kShiftRows ? 0 : channels;
  for (int64_t c = 0; c < channels; ++c) {
    const auto value = [&](int64_t row) { return load(start[c + row * apart]); };
    shift[c] = 0.125F * (((value(0) + value(1)) + (value(2) + value(3))) +
                         ((value(4) + value(5)) + (value(6) + value(7))));
  }
  std::fill_n(sum, 2 * channels, 0.0F);
  int64_t row = 0;
  for (; row + 4 <= rows.count; row += 4) {
    const Scalar* x = rows.input + row * channels;
    POKEGAN_INDEPENDENT
    for (int64_t c = 0; c < channels; ++c) {
      const float d0 = load(x[c]) - shift[c];
      const float d1 = load(x[c + channels]) - shift[c];
      const float d2 = load(x[c + 2 * channels]) - shift[c];
      const float d3 = load(x[c + 3 * channels]) - shift[c];
      sum[c] += (d0 + d1) + (d2 + d3);
      square[c] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3);
    }
  }
  for (; row < rows.count; ++row) {
    const Scalar* x = rows.input + row * channels;
    POKEGAN_INDEPENDENT
    for (int64_t c = 0; c < channels; ++c) {
      const float d = load(x[c]) - shift[c];
      sum[c] += d;
      square[c] += d * d;
    }
  }
}

template <Activation kActivation, typename Scalar>
POKEGAN_INLINE void apply_to(const Rows<Scalar>& rows, const Channels& by) {
  const auto [mean, scale, bias, slope] = by;
  for (int64_t row = 0; row < rows.count; ++row) {
    const Scalar* x = rows.input + row * rows.channels;
    Scalar* y = rows.out + row * rows.channels;
    POKEGAN_INDEPENDENT
    for (int64_t c = 0; c < rows.channels; ++c) {
      const float t = scale[c] * (load(x[c]) - mean[c]) + bias[c];
      store(activate<kActivation>(t, slope), y + c);
    }
  }
}

template <Activation kActivation, typename Scalar>
POKEGAN_INLINE void sums_of(const Rows<Scalar>& rows, const Channels& by, float* planes) {
  const auto [mean, scale, bias, slope] = by;
  float* along = planes;
  float* level = planes + rows.channels;
  std::fill_n(planes, 2 * rows.channels, 0.0F);
  for (int64_t row = 0; row < rows.count; ++row) {
    const Scalar* x = rows.input + row * rows.channels;
    const Scalar* dy = rows.gradient + row * rows.channels;
    POKEGAN_INDEPENDENT
    for (int64_t c = 0; c < rows.channels; ++c) {
      const float d = load(x[c]) - mean[c];
      const float t = scale[c] * d + bias[c];
      const float g = activate_backward<kActivation>(load(dy[c]), t, slope);
      along[c] += g * d;
      level[c] += g;
    }
  }
}

template <Activation kActivation, typename Scalar>
POKEGAN_INLINE void backward_of(const Rows<Scalar>& rows, const Channels& by, const Terms& terms) {
  const auto [mean, scale, bias, slope] = by;
  const auto [along, level] = terms;
  for (int64_t row = 0; row < rows.count; ++row) {
    const Scalar* x = rows.input + row * rows.channels;
    const Scalar* dy = rows.gradient + row * rows.channels;
    Scalar* dx = rows.out + row * rows.channels;
    POKEGAN_INDEPENDENT
    for (int64_t c = 0; c < rows.channels; ++c) {
      const float d = load(x[c]) - mean[c];
      const float t = scale[c] * d + bias[c];
      const float g = activate_backward<kActivation>(load(dy[c]), t, slope);
      store(scale[c] * g + (along[c] * d + level[c]), dx + c);
    }
  }
}

template <Activation kActivation, typename Scalar>
POKEGAN_INLINE void activate_all(Scalar* values, int64_t count, float slope) {
  POKEGAN_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    store(activate<kActivation>(load(values[i]), slope), values + i);
  }
}

template <Activation kActivation, typename Scalar>
POKEGAN_INLINE void activate_back(const Scalar* gradient, const Scalar* result, Scalar* out,
                                  int64_t count, float slope) {
  POKEGAN_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    store(activate_backward<kActivation>(load(gradient[i]), load(result[i]), slope), out + i);
  }
}

// Clones cannot be templates: one for each type in memory and activation.
#define POKEGAN_BY_ACTIVATION(Scalar, name, Activate)                                            \
  POKEGAN_CLONES void apply_##name(const Rows<Scalar>& rows, const Channels& by) {               \
    apply_to<Activate>(rows, by);                                                                \
  }                                                                                              \
  POKEGAN_CLONES void sums_##name(const Rows<Scalar>& rows, const Channels& by, float* planes) { \
    sums_of<Activate>(rows, by, planes);                                                         \
  }                                                                                              \
  POKEGAN_CLONES void backward_##name(const Rows<Scalar>& rows, const Channels& by,              \
                                      const Terms& terms) {                                      \
    backward_of<Activate>(rows, by, terms);                                                      \
  }                                                                                              \
  POKEGAN_CLONES void activate_##name(Scalar* values, int64_t count, float slope) {              \
    activate_all<Activate>(values, count, slope);                                                \
  }                                                                                              \
  POKEGAN_CLONES void activate_back_##name(const Scalar* gradient, const Scalar* result,         \
                                           Scalar* out, int64_t count, float slope) {            \
    activate_back<Activate>(gradient, result, out, count, slope);                                \
  }

#define POKEGAN_KERNELS(Scalar, name)                                            \
  POKEGAN_BY_ACTIVATION(Scalar, name##_none, Activation::kNone)                  \
  POKEGAN_BY_ACTIVATION(Scalar, name##_relu, Activation::kRelu)                  \
  POKEGAN_BY_ACTIVATION(Scalar, name##_leaky, Activation::kLeaky)                \
  POKEGAN_CLONES void moments_##name(const Rows<Scalar>& rows, float* planes) {  \
    moments_of(rows, planes);                                                    \
  }                                                                              \
  constexpr RowKernels<Scalar> kernels_##name = {                                \
      moments_##name,                                                            \
      {apply_##name##_none, apply_##name##_relu, apply_##name##_leaky},          \
      {sums_##name##_none, sums_##name##_relu, sums_##name##_leaky},             \
      {backward_##name##_none, backward_##name##_relu, backward_##name##_leaky}, \
      {activate_##name##_none, activate_##name##_relu, activate_##name##_leaky}, \
      {activate_back_##name##_none, activate_back_##name##_relu, activate_back_##name##_leaky}};

POKEGAN_KERNELS(float, float)
POKEGAN_KERNELS(Bfloat16, bfloat16)

}  // namespace

const RowKernels<float>& plain_kernels(const float*) { return kernels_float; }
const RowKernels<Bfloat16>& plain_kernels(const Bfloat16*) { return kernels_bfloat16; }

}  // namespace pokegan
