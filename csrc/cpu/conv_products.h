// The two products that all operators are. Nothing here knows tensors.
#pragma once

#include "conv_source.h"
#include "conv_written.h"

namespace pokegan {

// Elements `count` apart on an axis that is written are made of the source in the same way: of
// what is `step` further on for each of them.
struct Phases {
  int64_t count;
  int64_t step;
};

// Maps of maps, in either direction: each pixel that is written is a sum over the pixels that it is
// made of, whatever the kernel, stride and padding.
struct Gather {
  Maps source;
  Axis rows;  // of the pixels written, by those of `source`
  Axis columns;
  int64_t kernel_width;
  int64_t taps;
  const char* weights;  // [panel of 32 channels, tap, block of `source`] blocks
  const float* bias;    // padded to whole panels; or nullptr
  void* out;            // [N, rows, columns, channels], bfloat16 of one part, else float32
  int64_t channels;
  Phases phases;
  WrittenSums* written = nullptr;

  const float* panel_bias(int64_t panel) const {
    return bias != nullptr ? bias + panel * kBlockSide : nullptr;
  }
};

void run_gather(const Gather& gather, Units units);

// The same, where `suits_bands` says so.
void run_bands(const Gather& gather, Units units);
bool suits_bands(const Gather& gather);

// The gradient by the weight, from the maps on both sides.
struct WeightGradient {
  ConvShape shape;
  Maps x;
  Maps y;
  float* out_float;  // [O, KH, KW, C]; either this or the other
  uint16_t* out_bfloat;
};

void run_weight_gradient(const WeightGradient& gradient, Units units);

}  // namespace pokegan
