// The weights of a convolution as blocks, in the order in which each kernel multiplies them.
#pragma once

#include <vector>

#include "../conv_check.h"
#include "conv_patches.h"
#include "conv_scratch.h"
#include "vector.h"

namespace pokegan {

#ifdef POKEGAN_HAS_CONV

// [outputs, taps, channels]
struct Weights {
  const void* values;
  bool wide;  // float32, else bfloat16
  int64_t outputs;
  int64_t taps;
  int64_t channels;

  float at(int64_t index) const {
    return wide ? static_cast<const float*>(values)[index]
                : to_float(static_cast<const Bfloat16*>(values)[index]);
  }
};

inline Weights weights_of(const ConvShape& shape, const Tensor& weight) {
  return {weight.const_data_ptr(), weight.scalar_type() == ScalarType::Float, shape.outputs,
          shape.taps(), shape.channels};
}

// Blocks [panel, tap, block]: of c for products over o, or of o for products over c.
template <int kParts, typename Value>
void pack_weights(const Weights& weights, bool over_outputs, char* packed) {
  const int64_t taps = weights.taps;
  const int64_t channels = weights.channels;
  const int64_t panels = blocks_of(over_outputs ? channels : weights.outputs);
  const int64_t blocks = blocks_of(over_outputs ? weights.outputs : channels);
  const int64_t row = taps * channels;
  share_jobs(
      panels * taps, [](const auto& work) { work(); },
      [&](int64_t job) {
        const int64_t panel = job / taps;
        const int64_t tap = job % taps;
        char* out = packed + job * blocks * kParts * kBlockBytes;
        for (int64_t block = 0; block < blocks; ++block, out += kParts * kBlockBytes) {
          const int64_t o = kBlockSide * (over_outputs ? block : panel);
          const int64_t c = kBlockSide * (over_outputs ? panel : block);
          const BlockSource<Value> source{
              static_cast<const Value*>(weights.values) + o * row + tap * channels + c, row,
              weights.outputs - o, channels - c};
          if (over_outputs) {
            pack_block<Form::kPairs, kParts>(source, out);
          } else {
            pack_block<Form::kTransposed, kParts>(source, out);
          }
        }
      });
}

inline const char* packed_weights(const Weights& weights, bool over_outputs, int parts) {
  thread_local Scratch scratch;
  char* packed = scratch.bytes(weights.taps * blocks_of(weights.channels) *
                               blocks_of(weights.outputs) * parts * kBlockBytes);
  const auto pack = !weights.wide ? pack_weights<1, uint16_t>
                    : parts == 1  ? pack_weights<1, float>
                    : parts == 2  ? pack_weights<2, float>
                                  : pack_weights<3, float>;
  pack(weights, over_outputs, packed);
  return packed;
}

// The weights of all outputs, each as a patch lies.
inline std::vector<float> patch_weights(const ConvShape& shape, const Weights& weights) {
  const PatchLayout layout(shape);
  std::vector<float> rows(static_cast<size_t>(shape.outputs * layout.values()), 0.0F);
  int64_t index = 0;
  for (int64_t o = 0; o < shape.outputs; ++o) {
    for (int64_t tap = 0; tap < layout.rows; ++tap) {
      const int64_t place = o * layout.values() + tap * layout.padded;
      for (int64_t i = 0; i < layout.run; ++i) {
        rows[static_cast<size_t>(place + i)] = weights.at(index++);
      }
    }
  }
  return rows;
}

#endif

}  // namespace pokegan
