// Argument checks of the random fills, the same words on every back end.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

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

}  // namespace pokegan
