// Argument checks of the operators that rearrange or mix channels_last maps.
#pragma once

#include <initializer_list>
#include <vector>

#include "conv_check.h"
#include "random_check.h"

namespace pokegan {

inline void check_maps(const char* op, const char* name, const Tensor& maps) {
  STD_TORCH_CHECK(maps.dim() == 4, op, ": ", name, " must have the shape [N, C, H, W]");
  const ScalarType dtype = maps.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::BFloat16, op, ": ", name,
                  " must be float32 or bfloat16");
  STD_TORCH_CHECK(maps.numel() == 0 || is_channels_last(maps), op, ": ", name,
                  " must be channels_last");
}

inline void check_shape(const char* op, const char* name, const Tensor& tensor, const Tensor& like,
                        std::initializer_list<int64_t> sizes) {
  bool right = tensor.scalar_type() == like.scalar_type() &&
               tensor.dim() == static_cast<int64_t>(sizes.size());
  int64_t axis = 0;
  for (const int64_t size : sizes) {
    right = right && tensor.size(axis) == size;
    ++axis;
  }
  STD_TORCH_CHECK(right, op, ": ", name, " has not the dtype and shape that fit the maps");
}

inline Tensor new_maps(const Tensor& like, const std::vector<int64_t>& sizes) {
  return empty_maps(like, sizes, like.scalar_type());
}

}  // namespace pokegan
