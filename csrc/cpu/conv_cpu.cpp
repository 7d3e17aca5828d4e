// Convolutions on the CPU, forward and both gradients, as matrix products: of bfloat16 feature
// maps, and of float32 ones, whose values are split into parts of bfloat16.
//
// Every operator packs its operands into blocks and multiplies these; see conv_products.h.
#include "conv_cpu.h"

#include <algorithm>
#include <cstring>

#include "../conv_check.h"
#include "conv_patches.h"
#include "conv_products.h"
#include "conv_scratch.h"
#include "conv_weights.h"
#include "conv_winograd.h"

namespace pokegan {
namespace {

Units chosen_units(const char* op, int64_t limit) {
  const auto widest = static_cast<int64_t>(widest_units());
  STD_TORCH_CHECK(limit >= 0 && limit <= widest && widest > 0, op,
                  ": this processor does not have these units");
  return static_cast<Units>(limit == 0 ? widest : limit);
}

int checked_parts(const char* op, int64_t parts) {
  STD_TORCH_CHECK(parts == 2 || parts == kMostParts, op, ": parts must be 2 or 3, got ", parts);
  return static_cast<int>(parts);
}

void check_winograd(const char* op, const ConvShape& shape, bool winograd) {
  STD_TORCH_CHECK(!winograd || suits_winograd(shape), op,
                  ": winograd needs a kernel of 4 x 4 and stride 1 or 2, or of 3 x 3 and stride 1, "
                  "and at least 32 channels on both sides");
}

#ifdef POKEGAN_HAS_CONV

// Where a place of few channels finds what its `stride` elements of an axis are made of.
Reach reach_of(int64_t kernel, int64_t stride, int64_t padding, bool transposed) {
  if (!transposed) return {-padding, kernel - 1 - padding};
  Reach reach{INT64_MAX, INT64_MIN};
  for (int64_t tap = 0; tap < kernel; ++tap) {
    for (int64_t phase = 0; phase < stride; ++phase) {
      const int64_t distance = phase + padding - tap;
      if (distance % stride != 0) continue;
      reach.first = std::min(reach.first, distance / stride);
      reach.last = std::max(reach.last, distance / stride);
    }
  }
  return reach;
}

constexpr int64_t kShuffledColumns = 16;

// Maps of few channels, of enough pixels in a row to fill a block.
bool suits_shuffle(int64_t channels, int64_t width, int64_t sources, const ConvShape& shape,
                   int64_t stride, int parts) {
  constexpr int64_t kLeastPlaces = 8;
  return parts == 1 && shape.taps() > 1 && sources >= kBlockSide &&
         stride * stride * channels <= kShuffledColumns && width >= kLeastPlaces * stride;
}

// Makes maps of few channels: x of y by a transposed convolution, or y of x by one of stride 1.
void shuffle(const ConvShape& shape, const Tensor& input, const Tensor& weight, const float* bias,
             bool transposed, Units units, Tensor& out) {
  thread_local Scratch scratch;
  const Weights weights = weights_of(shape, weight);
  const int64_t stride = transposed ? shape.stride : 1;
  const int64_t sources = transposed ? shape.outputs : shape.channels;
  const int64_t few = transposed ? shape.channels : shape.outputs;
  const Reach rows = reach_of(shape.kernel_height, shape.stride, shape.padding, transposed);
  const Reach columns = reach_of(shape.kernel_width, shape.stride, shape.padding, transposed);
  const int64_t padded = blocks_of(sources) * kBlockSide;
  std::vector<float> table(
      static_cast<size_t>(rows.size() * columns.size() * padded * kShuffledColumns), 0.0F);
  for (int64_t y = 0; y < shape.kernel_height; ++y) {
    for (int64_t x = 0; x < shape.kernel_width; ++x) {
      const int64_t tap = y * shape.kernel_width + x;
      // The phase that this tap is for, and how far it looks.
      const int64_t up = transposed ? y - shape.padding : 0;
      const int64_t left = transposed ? x - shape.padding : 0;
      const int64_t row_phase = (up % stride + stride) % stride;
      const int64_t column_phase = (left % stride + stride) % stride;
      const int64_t row = (transposed ? (row_phase - up) / stride : y - shape.padding) - rows.first;
      const int64_t column =
          (transposed ? (column_phase - left) / stride : x - shape.padding) - columns.first;
      const int64_t phase = (row_phase * stride + column_phase) * few;
      for (int64_t source = 0; source < sources; ++source) {
        float* out_row = table.data() +
                         ((row * columns.size() + column) * padded + source) * kShuffledColumns +
                         phase;
        for (int64_t c = 0; c < few; ++c) {
          const int64_t o = transposed ? source : c;
          out_row[c] =
              weights.at((o * shape.taps() + tap) * shape.channels + (transposed ? c : source));
        }
      }
    }
  }
  const int64_t blocks = rows.size() * columns.size() * padded / kBlockSide;
  char* packed = scratch.bytes(blocks * kBlockBytes);
  for (int64_t block = 0; block < blocks; ++block) {
    const BlockSource<float> source{table.data() + block * kBlockSide * kShuffledColumns,
                                    kShuffledColumns, kBlockSide, kShuffledColumns};
    pack_block<Form::kPairs, 1>(source, packed + block * kBlockBytes);
  }
  float biases[kShuffledColumns] = {};
  if (bias != nullptr) {
    for (int64_t i = 0; i < stride * stride * few; ++i) biases[i] = bias[i % few];
  }
  run_pixel_shuffle(
      {static_cast<const uint16_t*>(input.const_data_ptr()), shape.images, input.size(2),
       input.size(3), sources, rows, columns, packed, bias != nullptr ? biases : nullptr, stride,
       static_cast<uint16_t*>(out.mutable_data_ptr()), out.size(2), out.size(3), few},
      units);
}

WinogradConvolution winograd_of(const ConvShape& shape, bool transposed, const Tensor& input,
                                const Tensor& weight, const float* bias, Tensor& out) {
  return {shape,
          transposed,
          static_cast<const uint16_t*>(input.const_data_ptr()),
          weights_of(shape, weight),
          bias,
          static_cast<uint16_t*>(out.mutable_data_ptr())};
}

// In float32 and whole panels; empty without a bias.
std::vector<float> padded_bias(const std::optional<Tensor>& bias) {
  if (!bias.has_value()) return {};
  const int64_t count = bias->size(0);
  std::vector<float> values(static_cast<size_t>(blocks_of(count) * kBlockSide), 0.0F);
  for (int64_t i = 0; i < count; ++i) {
    values[static_cast<size_t>(i)] =
        bias->scalar_type() == ScalarType::Float
            ? static_cast<const float*>(bias->const_data_ptr())[i]
            : to_float(static_cast<const Bfloat16*>(bias->const_data_ptr())[i]);
  }
  return values;
}

#endif

void check_written(const char* op, const Tensor& out, const WrittenSums* written) {
  if (written == nullptr || !written->norm.has_value()) return;
  for (int64_t axis = 0; axis < 4; ++axis) {
    STD_TORCH_CHECK(out.size(axis) == written->sizes[static_cast<size_t>(axis)], op,
                    ": maps must have the shape of the result");
  }
}

int64_t conv_units() { return static_cast<int64_t>(widest_units()); }

}  // namespace

Tensor convolution(const char* op, const Tensor& input, const Tensor& weight,
                   const std::optional<Tensor>& bias, int64_t stride, int64_t padding, int parts,
                   int64_t units, bool winograd, WrittenSums* written) {
  check_maps(op, "input", input, parts);
  check_weight(op, weight, parts);
  STD_TORCH_CHECK(input.size(1) == weight.size(1), op, ": input has ", input.size(1),
                  " channels, weight is for ", weight.size(1));
  check_bias(op, bias, weight.size(0));
  [[maybe_unused]] const Units chosen = chosen_units(op, units);
  ConvShape shape{
      input.size(0),  input.size(1),  input.size(2), input.size(3), weight.size(0), 1, 1,
      weight.size(2), weight.size(3), stride,        padding};
  check_shape(op, shape);
  shape.out_height = conv_size(shape.height, shape.kernel_height, stride, padding);
  shape.out_width = conv_size(shape.width, shape.kernel_width, stride, padding);
  check_shape(op, shape);
  check_winograd(op, shape, winograd);
  Tensor out = empty_maps(input, {shape.images, shape.outputs, shape.out_height, shape.out_width},
                          dtype_of_maps(parts));
  check_written(op, out, written);
#ifdef POKEGAN_HAS_CONV
  if (out.numel() == 0) return out;
  const std::vector<float> bias_values = padded_bias(bias);
  const float* biases = bias.has_value() ? bias_values.data() : nullptr;
  if (winograd) {
    run_winograd(winograd_of(shape, false, input, weight, biases, out), chosen);
    return out;
  }
  if (uses_patches(shape)) {
    const std::vector<float> rows = patch_weights(shape, weights_of(shape, weight));
    const Weights weights{rows.data(), true, shape.outputs, 1, PatchLayout(shape).values()};
    run_patch_convolution(
        {shape, input.const_data_ptr(), parts, packed_weights(weights, false, parts), biases,
         out.mutable_data_ptr(), written},
        chosen);
    return out;
  }
  if (stride == 1 &&
      suits_shuffle(shape.outputs, shape.out_width, shape.channels, shape, 1, parts)) {
    shuffle(shape, input, weight, biases, false, chosen, out);
    return out;
  }
  const Gather gather{
      {input.const_data_ptr(), parts, shape.images, shape.height, shape.width, shape.channels},
      conv_axis(shape.out_height, shape.height, shape.kernel_height, stride, padding),
      conv_axis(shape.out_width, shape.width, shape.kernel_width, stride, padding),
      shape.kernel_width,
      shape.taps(),
      packed_weights(weights_of(shape, weight), false, parts),
      biases,
      out.mutable_data_ptr(),
      shape.outputs,
      {1, stride},
      written};
  run_gather(gather, chosen);
#endif
  return out;
}

Tensor transposed_convolution(const char* op, const Tensor& input, const Tensor& weight,
                              const std::optional<Tensor>& bias, int64_t stride, int64_t padding,
                              const std::vector<int64_t>& output_padding, int parts, int64_t units,
                              bool winograd, WrittenSums* written) {
  check_maps(op, "input", input, parts);
  check_weight(op, weight, parts);
  STD_TORCH_CHECK(input.size(1) == weight.size(0), op, ": input has ", input.size(1),
                  " channels, weight is for ", weight.size(0));
  check_bias(op, bias, weight.size(1));
  STD_TORCH_CHECK(output_padding.size() == 2, op, ": output_padding must hold two numbers");
  for (const int64_t one : output_padding) {
    STD_TORCH_CHECK(one >= 0 && one < stride, op, ": output_padding must be in [0, stride), got ",
                    one);
  }
  [[maybe_unused]] const Units chosen = chosen_units(op, units);
  ConvShape shape{
      input.size(0),  weight.size(1), 1,      1,      input.size(1), input.size(2), input.size(3),
      weight.size(2), weight.size(3), stride, padding};
  check_shape(op, shape);
  shape.height =
      transposed_size(shape.out_height, shape.kernel_height, stride, padding, output_padding[0]);
  shape.width =
      transposed_size(shape.out_width, shape.kernel_width, stride, padding, output_padding[1]);
  check_shape(op, shape);
  check_winograd(op, shape, winograd);
  Tensor out = empty_maps(input, {shape.images, shape.channels, shape.height, shape.width},
                          dtype_of_maps(parts));
  check_written(op, out, written);
#ifdef POKEGAN_HAS_CONV
  if (out.numel() == 0) return out;
  const std::vector<float> bias_values = padded_bias(bias);
  const float* biases = bias.has_value() ? bias_values.data() : nullptr;
  if (winograd) {
    run_winograd(winograd_of(shape, true, input, weight, biases, out), chosen);
    return out;
  }
  if (suits_shuffle(shape.channels, shape.width, shape.outputs, shape, stride, parts)) {
    shuffle(shape, input, weight, biases, true, chosen, out);
    return out;
  }
  const Gather gather{
      {input.const_data_ptr(), parts, shape.images, shape.out_height, shape.out_width,
       shape.outputs},
      transposed_axis(shape.height, shape.out_height, shape.kernel_height, stride, padding),
      transposed_axis(shape.width, shape.out_width, shape.kernel_width, stride, padding),
      shape.kernel_width,
      shape.taps(),
      packed_weights(weights_of(shape, weight), true, parts),
      biases,
      out.mutable_data_ptr(),
      shape.channels,
      {stride, 1},
      written};
  run_gather(gather, chosen);
#endif
  return out;
}

namespace {

Tensor weight_gradient(const char* op, const Tensor& large, const Tensor& small,
                       const std::vector<int64_t>& kernel, int64_t stride, int64_t padding,
                       ScalarType dtype, int parts, int64_t units, bool winograd) {
  check_maps(op, "large", large, parts);
  check_maps(op, "small", small, parts);
  STD_TORCH_CHECK(kernel.size() == 2, op, ": kernel must hold two numbers");
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::BFloat16, op,
                  ": dtype must be float32 or bfloat16");
  STD_TORCH_CHECK(large.size(0) == small.size(0), op, ": large and small must hold as many images");
  [[maybe_unused]] const Units chosen = chosen_units(op, units);
  const ConvShape shape{large.size(0), large.size(1), large.size(2), large.size(3),
                        small.size(1), small.size(2), small.size(3), kernel[0],
                        kernel[1],     stride,        padding};
  check_shape(op, shape);
  STD_TORCH_CHECK(conv_size(shape.height, kernel[0], stride, padding) == shape.out_height &&
                      conv_size(shape.width, kernel[1], stride, padding) == shape.out_width,
                  op, ": a convolution with this kernel does not make small of large");
  check_winograd(op, shape, winograd);
  Tensor out = empty_maps(large, {shape.outputs, shape.channels, kernel[0], kernel[1]}, dtype);
#ifdef POKEGAN_HAS_CONV
  if (out.numel() == 0) return out;
  if (shape.images == 0) {
    std::memset(out.mutable_data_ptr(), 0,
                static_cast<size_t>(out.numel()) * (dtype == ScalarType::Float ? 4 : 2));
    return out;
  }
  const bool wide = dtype == ScalarType::Float;
  float* out_float = wide ? static_cast<float*>(out.mutable_data_ptr()) : nullptr;
  uint16_t* out_bfloat = wide ? nullptr : static_cast<uint16_t*>(out.mutable_data_ptr());
  if (winograd) {
    run_winograd_weight_gradient(
        {shape, static_cast<const uint16_t*>(large.const_data_ptr()),
         static_cast<const uint16_t*>(small.const_data_ptr()), out_float, out_bfloat},
        chosen);
    return out;
  }
  if (uses_patches(shape)) {
    run_patch_weight_gradient(
        {shape, large.const_data_ptr(), small.const_data_ptr(), parts, out_float, out_bfloat},
        chosen);
    return out;
  }
  const WeightGradient gradient{
      shape,
      {large.const_data_ptr(), parts, shape.images, shape.height, shape.width, shape.channels},
      {small.const_data_ptr(), parts, shape.images, shape.out_height, shape.out_width,
       shape.outputs},
      out_float,
      out_bfloat};
  run_weight_gradient(gradient, chosen);
#endif
  return out;
}

Tensor conv2d_bf16_cpu(const Tensor& input, const Tensor& weight, std::optional<Tensor> bias,
                       int64_t stride, int64_t padding, int64_t units, bool winograd) {
  return convolution("conv2d_bf16", input, weight, bias, stride, padding, 1, units, winograd,
                     nullptr);
}

Tensor conv_transpose2d_bf16_cpu(const Tensor& input, const Tensor& weight,
                                 std::optional<Tensor> bias, int64_t stride, int64_t padding,
                                 std::vector<int64_t> output_padding, int64_t units,
                                 bool winograd) {
  return transposed_convolution("conv_transpose2d_bf16", input, weight, bias, stride, padding,
                                output_padding, 1, units, winograd, nullptr);
}

Tensor conv2d_weight_bf16_cpu(const Tensor& large, const Tensor& small, std::vector<int64_t> kernel,
                              int64_t stride, int64_t padding, ScalarType dtype, int64_t units,
                              bool winograd) {
  return weight_gradient("conv2d_weight_bf16", large, small, kernel, stride, padding, dtype, 1,
                         units, winograd);
}

Tensor conv2d_split_cpu(const Tensor& input, const Tensor& weight, std::optional<Tensor> bias,
                        int64_t stride, int64_t padding, int64_t parts, int64_t units) {
  const char* op = "conv2d_split";
  return convolution(op, input, weight, bias, stride, padding, checked_parts(op, parts), units,
                     false, nullptr);
}

Tensor conv_transpose2d_split_cpu(const Tensor& input, const Tensor& weight,
                                  std::optional<Tensor> bias, int64_t stride, int64_t padding,
                                  std::vector<int64_t> output_padding, int64_t parts,
                                  int64_t units) {
  const char* op = "conv_transpose2d_split";
  return transposed_convolution(op, input, weight, bias, stride, padding, output_padding,
                                checked_parts(op, parts), units, false, nullptr);
}

Tensor conv2d_weight_split_cpu(const Tensor& large, const Tensor& small,
                               std::vector<int64_t> kernel, int64_t stride, int64_t padding,
                               int64_t parts, int64_t units) {
  const char* op = "conv2d_weight_split";
  return weight_gradient(op, large, small, kernel, stride, padding, ScalarType::Float,
                         checked_parts(op, parts), units, false);
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CPU, library) {
  library.impl("conv2d_bf16", TORCH_BOX(&pokegan::conv2d_bf16_cpu));
  library.impl("conv_transpose2d_bf16", TORCH_BOX(&pokegan::conv_transpose2d_bf16_cpu));
  library.impl("conv2d_weight_bf16", TORCH_BOX(&pokegan::conv2d_weight_bf16_cpu));
  library.impl("conv2d_split", TORCH_BOX(&pokegan::conv2d_split_cpu));
  library.impl("conv_transpose2d_split", TORCH_BOX(&pokegan::conv_transpose2d_split_cpu));
  library.impl("conv2d_weight_split", TORCH_BOX(&pokegan::conv2d_weight_split_cpu));
}

STABLE_TORCH_LIBRARY_IMPL(pokegan, CompositeExplicitAutograd, library) {
  library.impl("conv_units", TORCH_BOX(&pokegan::conv_units));
}
