// Argument checks of the random fills, the same words on every back end.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace pokegan {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline bool same_device(const Tensor& one, const Tensor& other) {
  return one.is_cpu() == other.is_cpu() && one.get_device_index() == other.get_device_index();
}

// The call of PyTorch's own operator is spared where it would give the tensor back.
inline Tensor dense(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// A row-major tensor on the device of `like`, without the detour of new_empty through the
// dispatcher: beside these kernels that is a large part of a call.
template <size_t kDims>
Tensor new_dense(const Tensor& like, const std::array<int64_t, kDims>& sizes, ScalarType dtype) {
  std::array<int64_t, kDims> strides{};
  int64_t stride = 1;
  for (size_t i = kDims; i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<int64_t>(sizes[i], 1);
  }
  int32_t device_type;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      kDims, sizes.data(), strides.data(),
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)), device_type,
      like.get_device_index(), &handle));
  return Tensor(handle);
}

// What every counted operator is keyed by.
inline void check_place(const char* op, const Tensor& step, const Tensor& samples) {
  STD_TORCH_CHECK(samples.scalar_type() == ScalarType::Long && samples.dim() == 1, op,
                  ": samples must be int64 of the shape [B]");
  STD_TORCH_CHECK(step.scalar_type() == ScalarType::Long && step.dim() == 0, op,
                  ": step must be an int64 scalar tensor");
  STD_TORCH_CHECK(same_device(step, samples), op, ": step must be on the device of samples");
}

inline void check_fill(const char* op, const Tensor& step, const Tensor& samples, int64_t count) {
  check_place(op, step, samples);
  STD_TORCH_CHECK(count >= 0, op, ": count must not be negative, got ", count);
}

inline void check_normal(const Tensor& step, const Tensor& samples, int64_t count, double mean,
                         double deviation, ScalarType dtype) {
  constexpr double kLargest = std::numeric_limits<float>::max();
  check_fill("random_normal", step, samples, count);
  STD_TORCH_CHECK(std::abs(mean) <= kLargest, "random_normal: mean must be a finite float32, got ",
                  mean);
  STD_TORCH_CHECK(deviation >= 0 && deviation <= kLargest,
                  "random_normal: std must be a finite float32 of 0 or more, got ", deviation);
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::BFloat16,
                  "random_normal: dtype must be float32 or bfloat16");
}

}  // namespace pokegan
