// Batch norm with an activation over rows of channels: for AVX512-BF16, and for any processor.
#pragma once

#include <cstdint>

#include "../batch_norm_act.h"
#include "vector.h"

namespace pokegan {

// A stretch of rows.
template <typename Scalar>
struct Rows {
  const Scalar* input;
  const Scalar* gradient;
  Scalar* out;
  int64_t count;
  int64_t channels;
};

// [C] each: x is normalised to scale * (x - mean) + bias.
struct Channels {
  const float* mean;
  const float* scale;
  const float* bias;
  float slope;
};

// [C] each: dx is scale * g + along * (x - mean) + level, with g behind the activation's gradient.
struct Terms {
  const float* along;
  const float* level;
};

// What is done with a stretch of rows; by Activation, where there is one.
template <typename Scalar>
struct RowKernels {
  // What is subtracted, and sums of the differences and of their squares: [3, C].
  void (*moments)(const Rows<Scalar>& rows, float* planes);
  // out = act(norm(input)).
  void (*apply[3])(const Rows<Scalar>& rows, const Channels& by);
  // Sums of g (input - mean) and of g: [2, C].
  void (*sums[3])(const Rows<Scalar>& rows, const Channels& by, float* planes);
  // out = the gradient by the input.
  void (*backward[3])(const Rows<Scalar>& rows, const Channels& by, const Terms& terms);
  // values = act(values).
  void (*activate[3])(Scalar* values, int64_t count, float slope);
  // out = the gradient by what `result` is the activation of.
  void (*activate_backward[3])(const Scalar* gradient, const Scalar* result, Scalar* out,
                               int64_t count, float slope);
};

const RowKernels<float>& plain_kernels(const float*);
const RowKernels<Bfloat16>& plain_kernels(const Bfloat16*);

// Only where `widest_units()` is not none.
const RowKernels<float>& avx512_kernels(const float*);
const RowKernels<Bfloat16>& avx512_kernels(const Bfloat16*);

}  // namespace pokegan
