// Argument checks and results of the convolution's operators.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <vector>

#include "conv.h"

namespace pokegan {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline bool is_channels_last(const Tensor& tensor) {
  int64_t expected = 1;
  for (const int64_t axis : {1, 3, 2, 0}) {
    if (tensor.size(axis) != 1 && tensor.stride(axis) != expected) return false;
    expected *= tensor.size(axis);
  }
  return true;
}

// Maps are bfloat16, and float32 where they are split into parts.
inline ScalarType dtype_of_maps(int64_t parts) {
  return parts == 1 ? ScalarType::BFloat16 : ScalarType::Float;
}

inline void check_maps(const char* op, const char* name, const Tensor& maps, int64_t parts) {
  STD_TORCH_CHECK(maps.dim() == 4, op, ": ", name, " must have 4 dimensions");
  STD_TORCH_CHECK(maps.scalar_type() == dtype_of_maps(parts), op, ": ", name, " must be ",
                  parts == 1 ? "bfloat16" : "float32");
  STD_TORCH_CHECK(maps.numel() == 0 || is_channels_last(maps), op, ": ", name,
                  " must be channels_last");
}

inline void check_weight(const char* op, const Tensor& weight, int64_t parts) {
  STD_TORCH_CHECK(weight.dim() == 4, op, ": weight must have 4 dimensions");
  STD_TORCH_CHECK(weight.scalar_type() == ScalarType::Float ||
                      (parts == 1 && weight.scalar_type() == ScalarType::BFloat16),
                  op, ": weight must be float32", parts == 1 ? " or bfloat16" : "");
  STD_TORCH_CHECK(weight.numel() == 0 || is_channels_last(weight), op,
                  ": weight must be channels_last");
}

inline void check_bias(const char* op, const std::optional<Tensor>& bias, int64_t channels) {
  if (!bias.has_value()) return;
  STD_TORCH_CHECK(
      bias->scalar_type() == ScalarType::Float || bias->scalar_type() == ScalarType::BFloat16, op,
      ": bias must be float32 or bfloat16");
  STD_TORCH_CHECK(bias->dim() == 1 && bias->size(0) == channels && bias->is_contiguous(), op,
                  ": bias must be contiguous of the shape [", channels, "]");
}

inline void check_shape(const char* op, const ConvShape& shape) {
  constexpr int64_t kMost = 1 << 20;  // products of these and of sizes stay in 64 bits
  STD_TORCH_CHECK(shape.stride >= 1, op, ": stride must be at least 1, got ", shape.stride);
  STD_TORCH_CHECK(shape.padding >= 0, op, ": padding must not be negative, got ", shape.padding);
  STD_TORCH_CHECK(shape.stride <= kMost && shape.padding <= kMost, op,
                  ": stride and padding must be at most ", kMost);
  STD_TORCH_CHECK(shape.kernel_height >= 1 && shape.kernel_height <= kMaxKernel &&
                      shape.kernel_width >= 1 && shape.kernel_width <= kMaxKernel,
                  op, ": the kernel must have 1 to ", kMaxKernel, " rows and columns");
  STD_TORCH_CHECK(shape.channels >= 1 && shape.outputs >= 1, op, ": there must be channels");
  STD_TORCH_CHECK(
      shape.height >= 1 && shape.width >= 1 && shape.out_height >= 1 && shape.out_width >= 1, op,
      ": the maps are too small for the kernel");
}

// Uninitialised, channels_last.
inline Tensor empty_maps(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType dtype) {
  int32_t device_type = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  const std::vector<int64_t> strides = {sizes[1] * sizes[2] * sizes[3], 1, sizes[1] * sizes[3],
                                        sizes[1]};
  const int32_t number =
      dtype == ScalarType::Float ? aoti_torch_dtype_float32() : aoti_torch_dtype_bfloat16();
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(4, sizes.data(), strides.data(), number,
                                                  device_type, like.get_device_index(), &handle));
  return Tensor(handle);
}

}  // namespace pokegan
