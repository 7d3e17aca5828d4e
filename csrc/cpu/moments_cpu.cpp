// What chunks have summed is added up in double.
#include "moments.h"
#include "vector.h"

namespace pokegan {
namespace {

template <typename Sum>
POKEGAN_INLINE void add_up(const std::vector<ChunkPlanes<Sum>>& chunks, double pixels,
                           double* means, double* spreads, int64_t channels) {
  for (const ChunkPlanes<Sum>& chunk : chunks) {
    const auto count = static_cast<double>(chunk.count);
    for (int64_t c = 0; c < chunk.channels; ++c) {
      means[chunk.first + c] += ChunkSums{count, chunk.shift[c], chunk.sum[c], 0}.total();
    }
  }
  for (int64_t c = 0; c < channels; ++c) means[c] /= pixels;
  for (const ChunkPlanes<Sum>& chunk : chunks) {
    const auto count = static_cast<double>(chunk.count);
    for (int64_t c = 0; c < chunk.channels; ++c) {
      const ChunkSums sums{count, chunk.shift[c], chunk.sum[c], chunk.square[c]};
      spreads[chunk.first + c] += sums.spread(means[chunk.first + c]);
    }
  }
}

POKEGAN_CLONES void add_up_all(const std::vector<ChunkPlanes<float>>& chunks, double pixels,
                               double* means, double* spreads, int64_t channels) {
  add_up(chunks, pixels, means, spreads, channels);
}

POKEGAN_CLONES void add_up_wide(const std::vector<ChunkPlanes<double>>& chunks, double pixels,
                                double* means, double* spreads, int64_t channels) {
  add_up(chunks, pixels, means, spreads, channels);
}

template <typename Chunks, typename AddUp>
Tensor moments_by(const AddUp& add_up_chunks, const Tensor& like, int64_t channels, int64_t pixels,
                  const Chunks& chunks) {
  const auto count = static_cast<double>(pixels);
  std::vector<double> means(static_cast<size_t>(channels), 0.0);
  std::vector<double> spreads(static_cast<size_t>(channels), 0.0);
  add_up_chunks(chunks, count, means.data(), spreads.data(), channels);
  Tensor out = new_dense<2>(like, {2, channels}, ScalarType::Float);
  auto* values = out.mutable_data_ptr<float>();
  for (int64_t c = 0; c < channels; ++c) {
    const double variance = spreads[static_cast<size_t>(c)] / count;
    values[c] = static_cast<float>(means[static_cast<size_t>(c)]);
    values[c + channels] = static_cast<float>(variance < 0 ? 0.0 : variance);  // a NaN stays one
  }
  return out;
}

}  // namespace

Tensor moments_of(const Tensor& like, int64_t channels, int64_t pixels,
                  const std::vector<ChunkPlanes<float>>& chunks) {
  return moments_by(add_up_all, like, channels, pixels, chunks);
}

Tensor moments_of(const Tensor& like, int64_t channels, int64_t pixels,
                  const std::vector<ChunkPlanes<double>>& chunks) {
  return moments_by(add_up_wide, like, channels, pixels, chunks);
}

}  // namespace pokegan
