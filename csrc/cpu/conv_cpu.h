// The convolution of tensors, both ways.
#pragma once

#include "../conv_check.h"
#include "conv_written.h"

namespace pokegan {

// [N, C, H, W] to [N, O, ...], of 1 part bfloat16, of 2 or 3 float32. `written`: sums of what is
// written in bfloat16, where they are wanted; empty where it has to be read again.
Tensor convolution(const char* op, const Tensor& input, const Tensor& weight,
                   const std::optional<Tensor>& bias, int64_t stride, int64_t padding, int parts,
                   int64_t units, bool winograd, WrittenSums* written);

Tensor transposed_convolution(const char* op, const Tensor& input, const Tensor& weight,
                              const std::optional<Tensor>& bias, int64_t stride, int64_t padding,
                              const std::vector<int64_t>& output_padding, int parts, int64_t units,
                              bool winograd, WrittenSums* written);

}  // namespace pokegan
