// Convolutions by minimal filtering (Winograd 1980; Lavin and Gray, arXiv 1509.09308): of 3 x 3 and
// stride 1 with 16 products in place of 36, of 4 x 4 and stride 1 or 2 with 9 in place of 16.
//
// Two neighbours on an axis that are made by taps g of neighbours d take one product more than
// there are taps. With two taps, y0 = d0 g0 + d1 g1 and y1 = d1 g0 + d2 g1:
//
//   m0 = (d0 - d1) g0    m1 = d1 (g0 + g1)    m2 = (d2 - d1) g1    y0 = m0 + m1    y1 = m1 + m2
//
// With three, (g0 + g1 + g2) / 2 and (g0 - g1 + g2) / 2 stand in the middle. On two axes 2 x 2
// pixels, a tile, take 9 or 16 products. A kernel of 4 x 4 is four parts of 2 x 2 taps: with stride
// 2 by the parities of rows and columns, between which it is one of stride 1; with stride 1 its
// quarters. What is multiplied is computed in float32 and rounded to bfloat16.
#pragma once

#include "conv_source.h"
#include "conv_weights.h"

namespace pokegan {

constexpr int64_t kWinogradTile = 2;  // neighbours on an axis that are made together

inline bool suits_winograd(const ConvShape& shape) {
  const bool square = shape.kernel_height == shape.kernel_width;
  const bool known = (shape.kernel_height == 4 && shape.stride <= 2) ||
                     (shape.kernel_height == 3 && shape.stride == 1);
  return square && known && shape.channels >= kBlockSide && shape.outputs >= kBlockSide;
}

#ifdef POKEGAN_HAS_CONV

// How a kernel falls into parts of N - 1 taps an axis, and how far apart these are.
template <int N>
struct KernelParts {
  explicit KernelParts(const ConvShape& shape)
      : axis(shape.kernel_height / (N - 1)), step(shape.stride) {}

  int64_t count() const { return axis * axis; }
  int64_t row(int64_t part) const { return part / axis; }
  int64_t column(int64_t part) const { return part % axis; }
  int64_t first_tap(int64_t of_axis) const { return step == 1 ? of_axis * (N - 1) : of_axis; }

  const int64_t axis;
  const int64_t step;
};

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
  float* out_float;  // [O, KH, KW, C]; either this or the other
  uint16_t* out_bfloat;
};

void run_winograd_weight_gradient(const WinogradWeightGradient& gradient, Units units);

#endif

}  // namespace pokegan
