// Dropout with counted randomness: which values stay and what they are multiplied by.
// No torch types here. pokegan/ops/dropout.py is the same in plain PyTorch.
//
// Word i of a sample decides about its value i; values are counted with channels fastest, in any
// memory layout. Whole feature maps take word i for channel i.
#pragma once

#include <cmath>
#include <cstdint>

#include "philox.h"

namespace pokegan {

// A value stays where its word is at least `limit`, which is where its uniform is at least p.
struct DropoutRule {
  uint32_t limit;
  float scale;  // 1 / (1 - p)
};

// p in [0, 1), which becomes a float first, as a float tensor is compared with it. Where that makes
// it 1, no uniform reaches it: everything is multiplied by 0.
inline DropoutRule dropout_rule(double p) {
  const double units = std::ceil(static_cast<double>(static_cast<float>(p)) * 16777216.0);
  if (units >= 16777216.0) return {0, 0.0F};
  return {static_cast<uint32_t>(units) << 8, static_cast<float>(1.0 / (1.0 - p))};
}

template <typename Value>
POKEGAN_HOST_DEVICE Value dropout_factor(uint32_t word, uint32_t limit, Value scale) {
  return word >= limit ? scale : Value(0);
}

// How the words of a sample belong to its values, which are `count` in memory order.
enum class DropoutOrder {
  kInOrder,          // value i has word i
  kPlanes,           // [C, H W] in memory, counted as [H W, C]
  kInterleavedMaps,  // [H W, C] in memory, a word for each channel
  kPlanarMaps,       // [C, H W] in memory, a word for each channel
};

template <DropoutOrder kOrder>
POKEGAN_HOST_DEVICE uint32_t dropout_word(uint32_t value, uint32_t channels, uint32_t pixels) {
  if constexpr (kOrder == DropoutOrder::kInOrder) return value;
  if constexpr (kOrder == DropoutOrder::kPlanes) {
    return value % pixels * channels + value / pixels;
  }
  return kOrder == DropoutOrder::kInterleavedMaps ? value % channels : value / pixels;
}

// Row `row` of a batch that is several passes over `share` samples: each pass has its own stream.
POKEGAN_HOST_DEVICE RandomKey dropout_key(RandomKey key, int64_t row, int64_t share) {
  key.stream += static_cast<uint32_t>(row / share);
  return key;
}

}  // namespace pokegan
