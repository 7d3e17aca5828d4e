// Convolutions of 4 x 4 kernels and stride 2 by minimal filtering: 9 products in place of 16.
//
// By the parities of rows and columns such a kernel is four of 2 x 2 and stride 1. Two neighbours
// on an axis, y0 = d0 g0 + d1 g1 and y1 = d1 g0 + d2 g1, take three products in place of four:
//
//   m0 = (d0 - d1) g0    m1 = d1 (g0 + g1)    m2 = (d1 - d2) g1    y0 = m0 + m1    y1 = m1 - m2
//
// (Winograd 1980; Lavin and Gray, arXiv 1509.09308.) So 2 x 2 pixels, a tile, take nine, and so do
// 2 x 2 taps of the gradient by the weight, whose g are the gradients of 2 x 2 pixels. What is
// multiplied is computed in float32 and rounded to bfloat16.
#pragma once

#include "conv_source.h"
#include "conv_weights.h"

namespace pokegan {

constexpr int64_t kWinogradTile = 2;      // neighbours on an axis that are made together
constexpr int64_t kWinogradProducts = 9;  // of a tile
constexpr int64_t kWinogradParities = 4;  // of rows and columns

inline bool suits_winograd(const ConvShape& shape) {
  return shape.kernel_height == 4 && shape.kernel_width == 4 && shape.stride == 2 &&
         shape.channels >= kBlockSide && shape.outputs >= kBlockSide;
}

#ifdef POKEGAN_HAS_CONV

// y of x, or transposed x of y. All maps are bfloat16.
struct WinogradConvolution {
  ConvShape shape;
  bool transposed;
  const uint16_t* source;
  Weights weights;
  const float* bias;  // padded to whole panels; or nullptr
  uint16_t* out;
};

void run_winograd(const WinogradConvolution& convolution, Units units);

// The gradient by the weight.
struct WinogradWeightGradient {
  ConvShape shape;
  const uint16_t* x;
  const uint16_t* y;
  float* out_float;  // [O, 4, 4, C]; either this or the other
  uint16_t* out_bfloat;
};

void run_winograd_weight_gradient(const WinogradWeightGradient& gradient, Units units);

#endif

}  // namespace pokegan
