// Convolutions on the CPU, forward and both gradients, as matrix products: of bfloat16 feature
// maps, and of float32 ones, whose values are split into parts of bfloat16.
//
// Every operator packs its operands into blocks and multiplies these; see conv_products.h.
#include <algorithm>
#include <cstring>

#include "../conv_check.h"
#include "conv_products.h"
#include "conv_scratch.h"
#include "vector.h"

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

#ifdef POKEGAN_HAS_CONV

// Blocks [panel, tap, block]: of c for products over o, or of o for products over c.
template <int kParts, typename Value>
void pack_weights(const ConvShape& shape, const Value* weights, bool over_outputs, char* packed) {
  const bool patches = !over_outputs && uses_patches(shape);
  const int64_t taps = patches ? 1 : shape.taps();
  const int64_t channels = patches ? shape.taps() * shape.channels : shape.channels;
  const int64_t panels = blocks_of(over_outputs ? channels : shape.outputs);
  const int64_t blocks = blocks_of(over_outputs ? shape.outputs : channels);
  const int64_t row = taps * channels;
  share_jobs(
      panels * taps, [](const auto& work) { work(); },
      [&](int64_t job) {
        const int64_t panel = job / taps;
        const int64_t tap = job % taps;
        char* out = packed + job * blocks * kParts * kBlockBytes;
        for (int64_t block = 0; block < blocks; ++block, out += kParts * kBlockBytes) {
          const int64_t o = kBlockSide * (over_outputs ? block : panel);
          const int64_t c = kBlockSide * (over_outputs ? panel : block);
          const BlockSource<Value> source{weights + o * row + tap * channels + c, row,
                                          shape.outputs - o, channels - c};
          if (over_outputs) {
            pack_block<Form::kPairs, kParts>(source, out);
          } else {
            pack_block<Form::kTransposed, kParts>(source, out);
          }
        }
      });
}

const char* packed_weights(const ConvShape& shape, const Tensor& weight, bool over_outputs,
                           int parts) {
  thread_local Scratch scratch;
  const bool patches = !over_outputs && uses_patches(shape);
  const int64_t c_blocks =
      patches ? blocks_of(shape.taps() * shape.channels) : blocks_of(shape.channels) * shape.taps();
  char* packed = scratch.bytes(c_blocks * blocks_of(shape.outputs) * parts * kBlockBytes);
  const void* data = weight.const_data_ptr();
  if (weight.scalar_type() == ScalarType::Float) {
    const auto pack = parts == 1   ? pack_weights<1, float>
                      : parts == 2 ? pack_weights<2, float>
                                   : pack_weights<3, float>;
    pack(shape, static_cast<const float*>(data), over_outputs, packed);
  } else {
    pack_weights<1>(shape, static_cast<const uint16_t*>(data), over_outputs, packed);
  }
  return packed;
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

int64_t conv_units() { return static_cast<int64_t>(widest_units()); }

Tensor convolution(const char* op, const Tensor& input, const Tensor& weight,
                   const std::optional<Tensor>& bias, int64_t stride, int64_t padding, int parts,
                   int64_t units) {
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
  Tensor out = empty_maps(input, {shape.images, shape.outputs, shape.out_height, shape.out_width},
                          dtype_of_maps(parts));
#ifdef POKEGAN_HAS_CONV
  if (out.numel() == 0) return out;
  const bool patches = uses_patches(shape);
  const std::vector<float> bias_values = padded_bias(bias);
  Gather gather{{input.const_data_ptr(), parts, shape.images, shape.height, shape.width,
                 shape.channels, patches ? &shape : nullptr},
                {},
                {},
                patches ? 1 : shape.kernel_width,
                patches ? 1 : shape.taps(),
                packed_weights(shape, weight, false, parts),
                bias.has_value() ? bias_values.data() : nullptr,
                out.mutable_data_ptr(),
                shape.outputs};
  if (patches) {
    gather.rows = conv_axis(shape.out_height, shape.out_height, 1, 1, 0);
    gather.columns = conv_axis(shape.out_width, shape.out_width, 1, 1, 0);
  } else {
    gather.rows = conv_axis(shape.out_height, shape.height, shape.kernel_height, stride, padding);
    gather.columns = conv_axis(shape.out_width, shape.width, shape.kernel_width, stride, padding);
  }
  run_gather(gather, chosen);
#endif
  return out;
}

Tensor transposed_convolution(const char* op, const Tensor& input, const Tensor& weight,
                              const std::optional<Tensor>& bias, int64_t stride, int64_t padding,
                              const std::vector<int64_t>& output_padding, int parts,
                              int64_t units) {
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
  Tensor out = empty_maps(input, {shape.images, shape.channels, shape.height, shape.width},
                          dtype_of_maps(parts));
#ifdef POKEGAN_HAS_CONV
  if (out.numel() == 0) return out;
  const std::vector<float> bias_values = padded_bias(bias);
  const Gather gather{
      {input.const_data_ptr(), parts, shape.images, shape.out_height, shape.out_width,
       shape.outputs, nullptr},
      transposed_axis(shape.height, shape.out_height, shape.kernel_height, stride, padding),
      transposed_axis(shape.width, shape.out_width, shape.kernel_width, stride, padding),
      shape.kernel_width,
      shape.taps(),
      packed_weights(shape, weight, true, parts),
      bias.has_value() ? bias_values.data() : nullptr,
      out.mutable_data_ptr(),
      shape.channels};
  run_gather(gather, chosen);
#endif
  return out;
}

Tensor weight_gradient(const char* op, const Tensor& large, const Tensor& small,
                       const std::vector<int64_t>& kernel, int64_t stride, int64_t padding,
                       ScalarType dtype, int parts, int64_t units) {
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
  Tensor out = empty_maps(large, {shape.outputs, shape.channels, kernel[0], kernel[1]}, dtype);
#ifdef POKEGAN_HAS_CONV
  if (out.numel() == 0) return out;
  if (shape.images == 0) {
    std::memset(out.mutable_data_ptr(), 0,
                static_cast<size_t>(out.numel()) * (dtype == ScalarType::Float ? 4 : 2));
    return out;
  }
  const bool wide = dtype == ScalarType::Float;
  const WeightGradient gradient{
      shape,
      {large.const_data_ptr(), parts, shape.images, shape.height, shape.width, shape.channels,
       uses_patches(shape) ? &shape : nullptr},
      {small.const_data_ptr(), parts, shape.images, shape.out_height, shape.out_width,
       shape.outputs, nullptr},
      wide ? static_cast<float*>(out.mutable_data_ptr()) : nullptr,
      wide ? nullptr : static_cast<uint16_t*>(out.mutable_data_ptr())};
  run_weight_gradient(gradient, chosen);
#endif
  return out;
}

Tensor conv2d_bf16_cpu(const Tensor& input, const Tensor& weight, std::optional<Tensor> bias,
                       int64_t stride, int64_t padding, int64_t units) {
  return convolution("conv2d_bf16", input, weight, bias, stride, padding, 1, units);
}

Tensor conv_transpose2d_bf16_cpu(const Tensor& input, const Tensor& weight,
                                 std::optional<Tensor> bias, int64_t stride, int64_t padding,
                                 std::vector<int64_t> output_padding, int64_t units) {
  return transposed_convolution("conv_transpose2d_bf16", input, weight, bias, stride, padding,
                                output_padding, 1, units);
}

Tensor conv2d_weight_bf16_cpu(const Tensor& large, const Tensor& small, std::vector<int64_t> kernel,
                              int64_t stride, int64_t padding, ScalarType dtype, int64_t units) {
  return weight_gradient("conv2d_weight_bf16", large, small, kernel, stride, padding, dtype, 1,
                         units);
}

Tensor conv2d_split_cpu(const Tensor& input, const Tensor& weight, std::optional<Tensor> bias,
                        int64_t stride, int64_t padding, int64_t parts, int64_t units) {
  const char* op = "conv2d_split";
  return convolution(op, input, weight, bias, stride, padding, checked_parts(op, parts), units);
}

Tensor conv_transpose2d_split_cpu(const Tensor& input, const Tensor& weight,
                                  std::optional<Tensor> bias, int64_t stride, int64_t padding,
                                  std::vector<int64_t> output_padding, int64_t parts,
                                  int64_t units) {
  const char* op = "conv_transpose2d_split";
  return transposed_convolution(op, input, weight, bias, stride, padding, output_padding,
                                checked_parts(op, parts), units);
}

Tensor conv2d_weight_split_cpu(const Tensor& large, const Tensor& small,
                               std::vector<int64_t> kernel, int64_t stride, int64_t padding,
                               int64_t parts, int64_t units) {
  const char* op = "conv2d_weight_split";
  return weight_gradient(op, large, small, kernel, stride, padding, ScalarType::Float,
                         checked_parts(op, parts), units);
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
