// Convolutions that sum, while they write, what a batch norm would read their result again for: the
// moments of its input, or the gradients by its weight and bias. Where a kernel cannot, it is read.
#include <tuple>

#include "batch_norm_coefficients.h"
#include "conv_cpu.h"
#include "moments.h"

namespace pokegan {
namespace {

using MapsAndSums = std::tuple<Tensor, Tensor>;

MapsAndSums with_moments(const Tensor& maps, const WrittenSums& written) {
  if (written.sums.empty()) return {maps, batch_norm_moments_cpu(maps, 0)};
  const int64_t channels = maps.size(1);
  std::vector<ChunkPlanes> chunks;
  int64_t first = 0;
  for (const ChannelSums& sums : written.sums) {
    const int64_t count = std::min<int64_t>(kBlockSide, channels - first);
    if (sums.count > 0) {
      chunks.push_back({sums.shift, sums.first, sums.second, first, count, sums.count});
    }
    first = first + kBlockSide < channels ? first + kBlockSide : 0;
  }
  return {maps, moments_of(maps, channels, maps.numel() / channels, chunks)};
}

MapsAndSums conv2d_moments_bf16_cpu(const Tensor& input, const Tensor& weight,
                                    std::optional<Tensor> bias, int64_t stride, int64_t padding,
                                    int64_t units) {
  WrittenSums written;
  const Tensor maps = convolution("conv2d_moments_bf16", input, weight, bias, stride, padding, 1,
                                  units, false, &written);
  return with_moments(maps, written);
}

MapsAndSums conv_transpose2d_moments_bf16_cpu(const Tensor& input, const Tensor& weight,
                                              std::optional<Tensor> bias, int64_t stride,
                                              int64_t padding, std::vector<int64_t> output_padding,
                                              int64_t units) {
  WrittenSums written;
  const Tensor maps =
      transposed_convolution("conv_transpose2d_moments_bf16", input, weight, bias, stride, padding,
                             output_padding, 1, units, false, &written);
  return with_moments(maps, written);
}

// A batch norm and the activation behind it, whose gradient a convolution makes.
struct Norm {
  const char* op;
  const Tensor& maps;
  const Tensor& moments;
  const std::optional<Tensor>& weight;
  const std::optional<Tensor>& bias;
  double eps;
  double slope;

  // Calls `convolve` with what is to be summed, and returns the sums, too.
  template <typename Convolve>
  MapsAndSums sums_of(const Convolve& convolve) const {
    check_norm(op, maps, moments, weight, bias);
    check_maps(op, "maps", maps, 1);
    const Coefficients coefficients(moments, weight, bias, eps, slope);
    const Channels by = coefficients.channels();
    WrittenSums written;
    written.norm = NormBefore{static_cast<const uint16_t*>(maps.const_data_ptr()),
                              nullptr,
                              by.mean,
                              by.scale,
                              by.bias,
                              by.slope};
    for (int64_t axis = 0; axis < 4; ++axis) {
      written.sizes[static_cast<size_t>(axis)] = maps.size(axis);
    }
    const Tensor gradient = convolve(&written);
    if (written.sums.empty()) {
      return {gradient,
              batch_norm_act_sums_cpu(gradient, maps, moments, weight, bias, eps, slope, 0)};
    }
    const int64_t channels = maps.size(1);
    std::vector<double> totals(static_cast<size_t>(2 * channels), 0.0);
    int64_t first = 0;
    for (const ChannelSums& sums : written.sums) {
      double* place = totals.data() + first;
      for (int64_t c = 0; c < std::min<int64_t>(kBlockSide, channels - first); ++c) {
        place[c] += sums.first[c];
        place[c + channels] += sums.second[c];
      }
      first = first + kBlockSide < channels ? first + kBlockSide : 0;
    }
    return {gradient, coefficients.sums_of(maps, totals)};
  }
};

MapsAndSums conv2d_norm_sums_bf16_cpu(const Tensor& input, const Tensor& weight, int64_t stride,
                                      int64_t padding, const Tensor& maps, const Tensor& moments,
                                      std::optional<Tensor> norm_weight,
                                      std::optional<Tensor> norm_bias, double eps, double slope,
                                      int64_t units) {
  const Norm norm{"conv2d_norm_sums_bf16", maps, moments, norm_weight, norm_bias, eps, slope};
  return norm.sums_of([&](WrittenSums* written) {
    return convolution(norm.op, input, weight, std::nullopt, stride, padding, 1, units, false,
                       written);
  });
}

MapsAndSums conv_transpose2d_norm_sums_bf16_cpu(const Tensor& input, const Tensor& weight,
                                                int64_t stride, int64_t padding,
                                                std::vector<int64_t> output_padding,
                                                const Tensor& maps, const Tensor& moments,
                                                std::optional<Tensor> norm_weight,
                                                std::optional<Tensor> norm_bias, double eps,
                                                double slope, int64_t units) {
  const Norm norm{
      "conv_transpose2d_norm_sums_bf16", maps, moments, norm_weight, norm_bias, eps, slope};
  return norm.sums_of([&](WrittenSums* written) {
    return transposed_convolution(norm.op, input, weight, std::nullopt, stride, padding,
                                  output_padding, 1, units, false, written);
  });
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CPU, library) {
  library.impl("conv2d_moments_bf16", TORCH_BOX(&pokegan::conv2d_moments_bf16_cpu));
  library.impl("conv_transpose2d_moments_bf16",
               TORCH_BOX(&pokegan::conv_transpose2d_moments_bf16_cpu));
  library.impl("conv2d_norm_sums_bf16", TORCH_BOX(&pokegan::conv2d_norm_sums_bf16_cpu));
  library.impl("conv_transpose2d_norm_sums_bf16",
               TORCH_BOX(&pokegan::conv_transpose2d_norm_sums_bf16_cpu));
}
