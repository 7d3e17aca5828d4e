// Argument checks and results of the operators of batch norm with an activation.
#pragma once

#include <optional>
#include <vector>

#include "batch_norm_act.h"
#include "random_check.h"

namespace pokegan {

// The strides of [N, C, ...] in memory as [N, ..., C].
inline std::vector<int64_t> channels_last_strides(const Tensor& maps) {
  std::vector<int64_t> strides(static_cast<size_t>(maps.dim()), 1);
  int64_t stride = maps.size(1);
  for (int64_t axis = maps.dim() - 1; axis >= 2; --axis) {
    strides[static_cast<size_t>(axis)] = stride;
    stride *= maps.size(axis);
  }
  strides[0] = stride;
  return strides;
}

inline void check_rows(const char* op, const char* name, const Tensor& maps) {
  STD_TORCH_CHECK(maps.dim() >= 2, op, ": ", name, " must have at least 2 dimensions");
  const ScalarType dtype = maps.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::BFloat16, op, ": ", name,
                  " must be float32 or bfloat16");
  STD_TORCH_CHECK(maps.numel() > 0, op, ": ", name, " must not be empty");
  const std::vector<int64_t> strides = channels_last_strides(maps);
  for (int64_t axis = 0; axis < maps.dim(); ++axis) {
    STD_TORCH_CHECK(maps.size(axis) == 1 || maps.stride(axis) == strides[static_cast<size_t>(axis)],
                    op, ": ", name, " must be dense with the channels last in memory");
  }
}

inline void check_like(const char* op, const char* name, const Tensor& maps, const Tensor& input) {
  check_rows(op, name, maps);
  bool like = maps.scalar_type() == input.scalar_type() && maps.dim() == input.dim();
  for (int64_t axis = 0; like && axis < maps.dim(); ++axis) {
    like = maps.size(axis) == input.size(axis);
  }
  STD_TORCH_CHECK(like, op, ": ", name, " must have the dtype and shape of input");
}

inline void check_pairs(const char* op, const char* name, const Tensor& pairs, int64_t channels) {
  STD_TORCH_CHECK(pairs.scalar_type() == ScalarType::Float && pairs.dim() == 2 &&
                      pairs.size(0) == 2 && pairs.size(1) == channels && pairs.is_contiguous(),
                  op, ": ", name, " must be contiguous float32 of the shape [2, ", channels, "]");
}

inline void check_channels(const char* op, const char* name, const std::optional<Tensor>& values,
                           int64_t channels) {
  if (!values.has_value()) return;
  STD_TORCH_CHECK(values->scalar_type() == ScalarType::Float && values->dim() == 1 &&
                      values->size(0) == channels && values->is_contiguous(),
                  op, ": ", name, " must be contiguous float32 of the shape [", channels, "]");
}

// Uninitialised, of the dtype and shape of `maps`, channels last.
inline Tensor empty_rows(const Tensor& maps) {
  std::vector<int64_t> sizes;
  for (int64_t axis = 0; axis < maps.dim(); ++axis) sizes.push_back(maps.size(axis));
  const std::vector<int64_t> strides = channels_last_strides(maps);
  int32_t device_type = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(maps.get(), &device_type));
  int32_t dtype = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(maps.get(), &dtype));
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(maps.dim(), sizes.data(), strides.data(), dtype,
                                                  device_type, maps.get_device_index(), &handle));
  return Tensor(handle);
}

}  // namespace pokegan
