// Convolutions that sum, while they write, what a batch norm would read their result again for: the
// moments of its input, or the gradients by its weight and bias. Where a kernel cannot, it is read.
#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "batch_norm_coefficients.h"
#include "conv_cpu.h"
#include "moments.h"

namespace pokegan {
namespace {

static_assert(kPaddedChannels % kBlockSide == 0, "panels are whole");

using MapsAndSums = std::tuple<Tensor, Tensor>;

MapsAndSums with_moments(const char* op, const Tensor& maps, const WrittenSums& written) {
  STD_TORCH_CHECK(maps.numel() > 0, op, ": input must not be empty");
  if (written.sums.empty()) return {maps, batch_norm_moments_cpu(maps, 0)};
  const int64_t channels = maps.size(1);
  std::vector<ChunkPlanes<double>> chunks;
  written.for_each([&](const ChannelSums& sums, int64_t first) {
    if (sums.count == 0) return;
    const int64_t count = std::min(kBlockSide, channels - first);
    chunks.push_back({sums.shift, sums.first, sums.second, first, count, sums.count});
  });
  return {maps, moments_of(maps, channels, maps.numel() / channels, chunks)};
}

MapsAndSums conv2d_moments_bf16_cpu(const Tensor& input, const Tensor& weight,
                                    std::optional<Tensor> bias, int64_t stride, int64_t padding,
                                    int64_t units) {
  WrittenSums written;
  const char* op = "conv2d_moments_bf16";
  const Tensor maps =
      convolution(op, input, weight, bias, stride, padding, 1, units, false, &written);
  return with_moments(op, maps, written);
}

MapsAndSums conv_transpose2d_moments_bf16_cpu(const Tensor& input, const Tensor& weight,
                                              std::optional<Tensor> bias, int64_t stride,
                                              int64_t padding, std::vector<int64_t> output_padding,
                                              int64_t units) {
  WrittenSums written;
  const char* op = "conv_transpose2d_moments_bf16";
  const Tensor maps = transposed_convolution(op, input, weight, bias, stride, padding,
                                             output_padding, 1, units, false, &written);
  return with_moments(op, maps, written);
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
    check_maps(op, "maps", maps, 1);
    STD_TORCH_CHECK(maps.numel() > 0, op, ": maps must not be empty");
    check_pairs(op, "moments", moments, maps.size(1));
    check_channels(op, "norm_weight", weight, maps.size(1));
    check_channels(op, "norm_bias", bias, maps.size(1));
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
    written.for_each([&](const ChannelSums& sums, int64_t first) {
      double* place = totals.data() + first;
      for (int64_t c = 0; c < std::min(kBlockSide, channels - first); ++c) {
        place[c] += sums.first[c];
        place[c + channels] += sums.second[c];
      }
    });
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
