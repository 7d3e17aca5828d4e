// Chunks are summed in float, and added up in double.
#include "moments.h"
#include "vector.h"

namespace pokegan {
namespace {

POKEGAN_CLONES void add_totals(const ChunkPlanes& chunk, double* totals) {
  const auto count = static_cast<double>(chunk.count);
  for (int64_t c = 0; c < chunk.channels; ++c) {
    totals[c] += ChunkSums{count, chunk.shift[c], chunk.sum[c], 0}.total();
  }
}

POKEGAN_CLONES void add_spreads(const ChunkPlanes& chunk, const double* means, double* spreads) {
  const auto count = static_cast<double>(chunk.count);
  for (int64_t c = 0; c < chunk.channels; ++c) {
    const ChunkSums sums{count, chunk.shift[c], chunk.sum[c], chunk.square[c]};
    spreads[c] += sums.spread(means[c]);
  }
}

}  // namespace

Tensor moments_of(const Tensor& like, int64_t channels, int64_t pixels,
                  const std::vector<ChunkPlanes>& chunks) {
  const auto count = static_cast<double>(pixels);
  std::vector<double> means(static_cast<size_t>(channels), 0.0);
  std::vector<double> spreads(static_cast<size_t>(channels), 0.0);
  for (const ChunkPlanes& chunk : chunks) add_totals(chunk, means.data() + chunk.first);
  for (double& mean : means) mean /= count;
  for (const ChunkPlanes& chunk : chunks) {
    add_spreads(chunk, means.data() + chunk.first, spreads.data() + chunk.first);
  }
  Tensor out = new_dense<2>(like, {2, channels}, ScalarType::Float);
  auto* values = out.mutable_data_ptr<float>();
  for (int64_t c = 0; c < channels; ++c) {
    const double variance = spreads[static_cast<size_t>(c)] / count;
    values[c] = static_cast<float>(means[static_cast<size_t>(c)]);
    values[c + channels] = static_cast<float>(variance < 0 ? 0.0 : variance);  // a NaN stays one
  }
  return out;
}

}  // namespace pokegan
