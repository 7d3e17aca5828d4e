// Both directions of a convolution as one: each pixel that is written is a sum over the pixels that
// it is made of, whatever the kernel, stride and padding.
#pragma once

#include "conv_source.h"

namespace pokegan {

struct Gather {
  Maps source;
  Axis rows;              // of the pixels written, by those of `source`
  Axis columns;
  int64_t kernel_width;   // 1 for patches
  int64_t taps;           // 1 for patches
  const char* weights;    // [panel of 32 channels, tap, block of `source`] blocks
  const float* bias;      // padded to whole panels; or nullptr
  uint16_t* out;          // [N, rows, columns, channels]
  int64_t channels;
};

void run_gather(const Gather& gather, Units units);

// x and y as bfloat16 [N, H, W, C] and [N, OH, OW, O]; `weights` accumulates nothing: it is written.
struct WeightGradient {
  ConvShape shape;
  Maps x;
  Maps y;
  float* out_float;     // [O, KH, KW, C], one of the two
  uint16_t* out_bfloat;
};

void run_weight_gradient(const WeightGradient& gradient, Units units);

}  // namespace pokegan
