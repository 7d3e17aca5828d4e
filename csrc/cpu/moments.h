// Batch norm's sums over pixels: of maps in memory, and of parts of their pixels.
#pragma once

#include <vector>

#include "../batch_norm_act_check.h"

namespace pokegan {

// Of `channels` channels from `first` on, in `count` pixels: see ChunkSums.
template <typename Sum>
struct ChunkPlanes {
  const float* shift;
  const Sum* sum;
  const Sum* square;
  int64_t first;
  int64_t channels;
  int64_t count;
};

// [2, channels] float32: means and variances of the `pixels` pixels of all chunks, which are added
// in their order. Chunks of other channels may lie between those of the same.
Tensor moments_of(const Tensor& like, int64_t channels, int64_t pixels,
                  const std::vector<ChunkPlanes<float>>& chunks);
Tensor moments_of(const Tensor& like, int64_t channels, int64_t pixels,
                  const std::vector<ChunkPlanes<double>>& chunks);

// The operators, of maps in memory; `units`: 0 the widest that the processor has, 1 those of any.
Tensor batch_norm_moments_cpu(const Tensor& input, int64_t units);
Tensor batch_norm_act_sums_cpu(const Tensor& gradient, const Tensor& input, const Tensor& moments,
                               std::optional<Tensor> weight, std::optional<Tensor> bias, double eps,
                               double slope, int64_t units);

}  // namespace pokegan
