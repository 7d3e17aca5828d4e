// Argument checks and memory layout of diff_augment, the same on every back end.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cmath>
#include <cstdint>

#include "diff_augment.h"

namespace pokegan {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// What decides the parameters of a batch, besides its size.
struct AugmentChoice {
  const Tensor& step;
  const Tensor& samples;
  int64_t seed;  // the bits of an unsigned one
  int64_t stream;
  Policy policy;
};

// `name` is `images`, or `gradient` in the backward pass.
inline void check_diff_augment(const Tensor& images, const AugmentChoice& choice, const char* name,
                               double fill) {
  const ScalarType dtype = images.scalar_type();
  STD_TORCH_CHECK(
      dtype == ScalarType::Float || dtype == ScalarType::BFloat16 || dtype == ScalarType::Double,
      "diff_augment: ", name, " must be float32, bfloat16 or float64");
  STD_TORCH_CHECK(images.dim() == 4 && images.size(1) == 3, "diff_augment: ", name,
                  " must have the shape [N, 3, H, W]");
  const auto same_device = [&](const Tensor& other) {
    return other.get_device_index() == images.get_device_index() &&
           other.is_cpu() == images.is_cpu();
  };
  STD_TORCH_CHECK(choice.step.scalar_type() == ScalarType::Long && choice.step.dim() == 0,
                  "diff_augment: step must be an int64 scalar");
  STD_TORCH_CHECK(same_device(choice.step), "diff_augment: step must be on the device of ", name);
  STD_TORCH_CHECK(choice.samples.scalar_type() == ScalarType::Long && choice.samples.dim() == 1 &&
                      choice.samples.size(0) == images.size(0),
                  "diff_augment: samples must be int64 of the shape [N]");
  STD_TORCH_CHECK(same_device(choice.samples), "diff_augment: samples must be on the device of ",
                  name);
  STD_TORCH_CHECK(choice.stream >= 0 && choice.stream <= INT64_C(0xFFFFFFFF),
                  "diff_augment: stream must be in [0, 2^32)");
  STD_TORCH_CHECK(std::isfinite(fill), "diff_augment: fill must be finite");
}

// [N, 3, H, W] in memory as it is, or as [N, H, W, 3].
struct DenseImages {
  Tensor tensor;
  bool interleaved;
};

inline bool is_channels_last(const Tensor& images) {
  const int64_t height = images.size(2);
  const int64_t width = images.size(3);
  return images.stride(1) == 1 && (width == 1 || images.stride(3) == 3) &&
         (height == 1 || images.stride(2) == 3 * width) &&
         (images.size(0) == 1 || images.stride(0) == 3 * height * width);
}

// The tensor itself where it is dense in one of the two layouts, else a contiguous copy.
inline DenseImages to_dense(const Tensor& images) {
  if (images.is_contiguous()) return {images, false};
  if (is_channels_last(images)) return {images, true};
  return {torch::stable::contiguous(images), false};
}

inline RandomKey to_key(const AugmentChoice& choice, int64_t step) {
  return {static_cast<uint64_t>(choice.seed), static_cast<uint32_t>(choice.stream),
          static_cast<uint32_t>(step)};
}

}  // namespace pokegan
