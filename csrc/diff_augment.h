// Arithmetic of diff_augment that both back ends share: a picture's parameters, where its pixels
// go, and what happens to their colours. No torch types here.
//
// After Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", 2020
// (arXiv 2006.10738): brightness, saturation, contrast, then translation, then cutout.
#pragma once

#include <cstdint>

#include "host_device.h"
#include "philox.h"

namespace pokegan {

struct Policy {
  bool colour;
  bool translation;
  bool cutout;
};

// Rows [top, bottom) and columns [left, right).
struct Region {
  int64_t top;
  int64_t bottom;
  int64_t left;
  int64_t right;

  POKEGAN_HOST_DEVICE bool has_row(int64_t y) const { return y >= top && y < bottom; }
  POKEGAN_HOST_DEVICE bool has(int64_t y, int64_t x) const {
    return has_row(y) && x >= left && x < right;
  }
};

// What is done to one picture. `visible` is what the moved picture covers of the output, `hole`
// what the cutout takes from it; both lie within the output.
struct Augmentation {
  float brightness;
  float saturation;
  float contrast;
  int64_t down;
  int64_t right;
  Region visible;
  Region hole;

  // Whether the output at (y, x) shows the picture: then it is the pixel (y - down, x - right).
  POKEGAN_HOST_DEVICE bool keeps(int64_t y, int64_t x) const {
    return visible.has(y, x) && !hole.has(y, x);
  }
};

POKEGAN_HOST_DEVICE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
POKEGAN_HOST_DEVICE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Uniform in {0, ..., count - 1} from the 24 bits that a uniform has; integers, so exact.
POKEGAN_HOST_DEVICE int64_t integer_below(uint32_t word, int64_t count) {
  return static_cast<int64_t>((static_cast<uint64_t>(word >> 8) * static_cast<uint64_t>(count)) >>
                              24);
}

// An eighth of the side, to the nearest pixel: the farthest that a picture moves.
POKEGAN_HOST_DEVICE int64_t farthest_move(int64_t side) { return (side + 4) / 8; }

// Half of the side, to the nearest pixel, halves up.
POKEGAN_HOST_DEVICE int64_t cutout_side(int64_t side) { return (side + 1) / 2; }

// The first row (column) of the cutout, perhaps outside. Its centre is anywhere on the picture; one
// of even length may also be centred on the far edge, so that both edges lose equally often.
POKEGAN_HOST_DEVICE int64_t cutout_begin(uint32_t word, int64_t side) {
  const int64_t length = cutout_side(side);
  return integer_below(word, side + 1 - length % 2) - length / 2;
}

// Words 0 to 6 of the sample: brightness, saturation, contrast, down, right, cutout's row, column.
// Every parameter has its own word, so leaving a policy out does not change the others.
POKEGAN_HOST_DEVICE Augmentation augmentation_of(const RandomKey& key, uint32_t sample,
                                                 const Policy& policy, int64_t height,
                                                 int64_t width) {
  const Words4 low = random_words(key, sample, 0);
  const Words4 high = random_words(key, sample, 1);
  Augmentation result{0.0F, 1.0F, 1.0F, 0, 0, {0, height, 0, width}, {0, 0, 0, 0}};
  if (policy.colour) {
    result.brightness = uniform_from(low.word[0]) - 0.5F;
    result.saturation = uniform_from(low.word[1]) * 2.0F;
    result.contrast = uniform_from(low.word[2]) + 0.5F;
  }
  if (policy.translation) {
    const int64_t far_down = farthest_move(height);
    const int64_t far_right = farthest_move(width);
    result.down = integer_below(low.word[3], 2 * far_down + 1) - far_down;
    result.right = integer_below(high.word[0], 2 * far_right + 1) - far_right;
    result.visible = {larger(0, result.down), smaller(height, height + result.down),
                      larger(0, result.right), smaller(width, width + result.right)};
  }
  if (policy.cutout) {
    const int64_t top = cutout_begin(high.word[1], height);
    const int64_t left = cutout_begin(high.word[2], width);
    result.hole = {larger(0, top), smaller(height, top + cutout_side(height)), larger(0, left),
                   smaller(width, left + cutout_side(width))};
  }
  return result;
}

// Columns [begin, end); empty when end <= begin.
struct Span {
  int64_t begin;
  int64_t end;
};

// The columns of output row y that show the picture: left and right of the hole.
struct KeptColumns {
  Span span[2];
};

POKEGAN_HOST_DEVICE KeptColumns kept_columns(const Augmentation& augmentation, int64_t y) {
  const Region& visible = augmentation.visible;
  const Region& hole = augmentation.hole;
  if (!visible.has_row(y)) return {{{0, 0}, {0, 0}}};
  if (!hole.has_row(y)) return {{{visible.left, visible.right}, {0, 0}}};
  return {{{visible.left, smaller(visible.right, hole.left)},
           {larger(visible.left, hole.right), visible.right}}};
}

// The three colour steps as one affine map of a value x of a pixel whose channels sum to s:
//   own * x + grey * s + constant.
//
// With brightness b, saturation a, contrast c, pixel mean m = s / 3 and picture mean M, the steps
// x + b, (x - m) a + m, (x - M) c + M give c a x + c (1 - a) m + (1 - c) M + b, since the first
// moves both means by b and the second moves neither. The linear part is symmetric, so it is its
// own adjoint: the backward pass uses the same map, on the gradient and its means, without b.
template <typename Real>
struct ColourMap {
  Real own;
  Real grey;
  Real constant;

  POKEGAN_HOST_DEVICE Real operator()(Real value, Real pixel_part) const {
    return own * value + pixel_part;
  }
  POKEGAN_HOST_DEVICE Real pixel_part(Real red, Real green, Real blue) const {
    return grey * (red + green + blue) + constant;
  }
};

template <typename Real>
POKEGAN_HOST_DEVICE ColourMap<Real> colour_map(const Augmentation& augmentation, Real mean,
                                               bool linear) {
  const Real saturation = augmentation.saturation;
  const Real contrast = augmentation.contrast;
  return {contrast * saturation, contrast * (1 - saturation) / 3,
          (1 - contrast) * mean + (linear ? Real(0) : Real(augmentation.brightness))};
}

}  // namespace pokegan
