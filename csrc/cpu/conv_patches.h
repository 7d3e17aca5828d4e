// Convolutions between maps of few channels, as pictures have them, and maps of many. Maps of few
// would leave most of a block empty; here all values under the kernel, a patch, are a row of one.
#pragma once

#include "conv_written.h"

namespace pokegan {

constexpr int64_t kPatchValues = 512;

// How a patch lies in its blocks: one row of the kernel after the other, each so padded with zeros
// that none begins in one block and ends in the next.
struct PatchLayout {
  explicit PatchLayout(const ConvShape& shape)
      : rows(shape.kernel_height),
        run(shape.kernel_width * shape.channels),
        padded(run <= kBlockSide / 2 ? kBlockSide / 2 : ceil_div(run, kBlockSide) * kBlockSide) {}

  int64_t rows;
  int64_t run;
  int64_t padded;

  int64_t blocks() const { return blocks_of(rows * padded); }
  int64_t values() const { return blocks() * kBlockSide; }
};

inline bool uses_patches(const ConvShape& shape) {
  return shape.channels < kBlockSide && shape.taps() > 1 &&
         PatchLayout(shape).values() <= kPatchValues;
}

// A convolution whose large side has few channels.
struct PatchConvolution {
  ConvShape shape;
  const void* x;  // bfloat16 of one part, else float32
  int parts;
  const char* weights;  // [panel of 32 outputs, block of a patch] blocks
  const float* bias;    // padded to whole panels; or nullptr
  void* out;            // as x
  WrittenSums* written = nullptr;
};

void run_patch_convolution(const PatchConvolution& convolution, Units units);

// The gradient by the weight where the large side has few channels.
struct PatchWeightGradient {
  ConvShape shape;
  const void* x;
  const void* y;
  int parts;
  float* out_float;  // [O, KH, KW, C]; either this or the other
  uint16_t* out_bfloat;
};

void run_patch_weight_gradient(const PatchWeightGradient& gradient, Units units);

// Which places of many channels, by their distance from its own, a place of few is made of.
struct Reach {
  int64_t first;
  int64_t last;
  int64_t size() const { return last - first + 1; }
};

// Maps of few channels made of bfloat16 maps of many: the `stride` x `stride` pixels of each place
// are made together, so that a value is read once for all of them. Weights are zeros where a pixel
// is not made of a place: what is not finite there becomes NaN here.
struct PixelShuffleConvolution {
  const uint16_t* source;  // [N, height, width, channels]
  int64_t images;
  int64_t height;
  int64_t width;
  int64_t channels;
  Reach rows;
  Reach columns;
  const char* weights;  // [row, column, block of channels] blocks; columns: [row, column, channel]
  const float* bias;    // of 16 columns; or nullptr
  int64_t stride;
  uint16_t* out;  // [N, out_height, out_width, out_channels]
  int64_t out_height;
  int64_t out_width;
  int64_t out_channels;  // at most 16 / stride^2
};

void run_pixel_shuffle(const PixelShuffleConvolution& convolution, Units units);

}  // namespace pokegan
