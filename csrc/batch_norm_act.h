// Batch norm (arXiv 1502.03167) with the activation behind it: the arithmetic of one channel. No
// torch types here.
//
// Maps are rows of channels: a row is a pixel of a picture. Rows are summed in chunks whose length
// depends on the shape alone; a chunk's sums are in float, what is made of all chunks in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "host_device.h"

namespace pokegan {

// t, max(t, 0), or t and slope * t below 0.
enum class Activation : int64_t { kNone, kRelu, kLeaky };

inline Activation activation_of(double slope) {
  if (slope == 1) return Activation::kNone;
  return slope == 0 ? Activation::kRelu : Activation::kLeaky;
}

// A NaN stays one. A ReLU multiplies nothing by 0, so that infinities below it vanish.
template <Activation kActivation>
POKEGAN_HOST_DEVICE float activate(float t, float slope) {
  if constexpr (kActivation == Activation::kNone) return t;
  if constexpr (kActivation == Activation::kRelu) return t < 0.0F ? 0.0F : t;
  return t > 0.0F ? t : t * slope;
}

// The gradient by t of what has `gradient` by the activation of t; at 0 that from below.
template <Activation kActivation>
POKEGAN_HOST_DEVICE float activate_backward(float gradient, float t, float slope) {
  if constexpr (kActivation == Activation::kNone) return gradient;
  if constexpr (kActivation == Activation::kRelu) return t <= 0.0F ? 0.0F : gradient;
  return t > 0.0F ? gradient : gradient * slope;
}

// Rows that are summed in float before double takes over, a multiple of 8.
inline int64_t chunk_rows(int64_t channels) {
  constexpr int64_t kValues = 1 << 15;
  return std::clamp<int64_t>(kValues / std::max<int64_t>(channels, 1), 16, 256) / 8 * 8;
}

// Rows whose mean is subtracted from a chunk before it is summed; of fewer the first alone.
constexpr int64_t kShiftRows = 8;

// Of one channel in a chunk of `count` rows: sums of the differences from `shift`. That is no
// further from the chunk's mean than sqrt(count / 8) deviations (or sqrt(count),
// if it is one row alone), so that the variance loses little.
struct ChunkSums {
  double count;
  double shift;
  double sum;
  double square;

  double total() const { return count * shift + sum; }

  // The sum of squared distances from `mean`, which is that of all chunks.
  double spread(double mean) const {
    const double along = sum / count;
    const double away = shift + along - mean;
    return square - sum * along + count * away * away;
  }
};

inline double inverse_deviation(float variance, double eps) {
  return 1 / std::sqrt(static_cast<double>(variance) + eps);
}

}  // namespace pokegan
