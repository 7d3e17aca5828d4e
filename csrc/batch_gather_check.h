// Argument checks of batch_gather, the same words on every back end.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <vector>

#include "batch_gather.h"

namespace pokegan {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check_batch_gather(const Tensor& images, const Tensor& indices,
                               const std::optional<Tensor>& flip,
                               const std::optional<Tensor>& shift,
                               const std::vector<int64_t>& background, ScalarType dtype) {
  STD_TORCH_CHECK(images.scalar_type() == ScalarType::Byte, "batch_gather: images must be uint8");
  STD_TORCH_CHECK(images.dim() == 4 && images.size(3) == 3,
                  "batch_gather: images must have the shape [N, H, W, 3]");
  STD_TORCH_CHECK(images.is_contiguous(), "batch_gather: images must be contiguous");
  STD_TORCH_CHECK(indices.scalar_type() == ScalarType::Long && indices.dim() == 1,
                  "batch_gather: indices must be int64 of the shape [B]");
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::BFloat16,
                  "batch_gather: dtype must be float32 or bfloat16");
  STD_TORCH_CHECK(background.size() == 3, "batch_gather: background must hold 3 bytes");
  for (const int64_t value : background) {
    STD_TORCH_CHECK(value >= 0 && value <= 255,
                    "batch_gather: background must be in [0, 255], got ", value);
  }
  const auto same_device = [&](const Tensor& other) {
    return other.get_device_index() == images.get_device_index() &&
           other.is_cpu() == images.is_cpu();
  };
  STD_TORCH_CHECK(same_device(indices), "batch_gather: indices must be on the device of images");
  if (flip.has_value()) {
    STD_TORCH_CHECK(flip->scalar_type() == ScalarType::Bool && flip->dim() == 1 &&
                        flip->size(0) == indices.size(0),
                    "batch_gather: flip must be bool of the shape [B]");
    STD_TORCH_CHECK(same_device(*flip), "batch_gather: flip must be on the device of images");
  }
  if (shift.has_value()) {
    STD_TORCH_CHECK(shift->scalar_type() == ScalarType::Long && shift->dim() == 2 &&
                        shift->size(0) == indices.size(0) && shift->size(1) == 2,
                    "batch_gather: shift must be int64 of the shape [B, 2]");
    STD_TORCH_CHECK(same_device(*shift), "batch_gather: shift must be on the device of images");
  }
}

inline Background to_background(const std::vector<int64_t>& background) {
  Background result{0};
  for (int channel = 0; channel < 3; ++channel) {
    result.packed |= static_cast<uint32_t>(background[channel]) << (8 * channel);
  }
  return result;
}

}  // namespace pokegan
