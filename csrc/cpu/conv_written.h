// Sums over the pixels that a convolution writes, for the batch norm behind or before it.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "conv_blocks.h"

namespace pokegan {

// Sums of what is written, where they are wanted; what a share of the pixels is depends on shapes
// alone.
struct WrittenSums {
  std::optional<NormBefore> norm;   // whose gradient is written; else moments are summed
  std::array<int64_t, 4> sizes{};   // of the norm's maps, and so of what is written
  std::vector<ChannelSums> sums{};  // [share of the pixels, panel]
  int64_t panels = 0;

  void begin(int64_t shares, int64_t channels, const void* out) {
    panels = blocks_of(channels);
    if (norm.has_value()) norm->out = static_cast<const uint16_t*>(out);
    sums.assign(static_cast<size_t>(shares * panels), ChannelSums{});
  }

  // Calls `run` with each share's sums, and the first of their channels.
  template <typename Run>
  void for_each(const Run& run) const {
    for (size_t i = 0; i < sums.size(); ++i) {
      run(sums[i], static_cast<int64_t>(i) % panels * kBlockSide);
    }
  }
};

// Lets `pixels` be added to a share when they are written, and asks for the memory of what they are
// multiplied with.
inline void add_to(WrittenSums* written, int64_t share, int64_t panel, uint32_t counted,
                   Unwritten& pixels) {
  if (written == nullptr) return;
  pixels.summed = written->sums.data() + share * written->panels + panel;
  pixels.counted = counted;
  pixels.norm = written->norm.has_value() ? &*written->norm : nullptr;
  pixels.channel = panel * kBlockSide;
#ifdef POKEGAN_HAS_CONV
  if (pixels.norm == nullptr) return;
  for (int64_t i = 0; i < pixels.count; ++i) {
    if ((counted >> i & 1U) == 0) continue;
    const auto place = pixels.pixels[i] + pixels.offset - pixels.norm->out;
    _mm_prefetch(reinterpret_cast<const char*>(pixels.norm->x + place), _MM_HINT_T0);
  }
#endif
}

}  // namespace pokegan
