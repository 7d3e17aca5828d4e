// The gradient by the weight: a job transforms and multiplies, for a row of the nine products, some
// tiles and windows of some parities. What all jobs have summed is transformed at the end.
#include <vector>

#include "conv_winograd_lanes.h"

namespace pokegan {

#ifdef POKEGAN_HAS_CONV
namespace {

constexpr int64_t kSums = 4 * 256;             // of 32 outputs x 32 channels
constexpr int64_t kPackedBytes = 512 << 10;    // of a second-level cache
constexpr int64_t kSegmentBytes = 16 << 20;    // of the sums of all segments
constexpr int64_t kSegments = 4;
constexpr int64_t kLeastGroups = 16;           // of a segment
constexpr int64_t kRow = 3;  // products

// They depend on the shapes alone: the same bits for any count of threads.
struct Plan {
  explicit Plan(const ConvShape& shape)
      : shape(shape),
        tiles{shape.images, ceil_div(shape.out_height, kWinogradTile),
              ceil_div(shape.out_width, kWinogradTile)},
        groups(ceil_div(tiles.count(), kBlockSide)),
        x_blocks(blocks_of(shape.channels)),
        y_blocks(blocks_of(shape.outputs)),
        each(std::max(kLeastGroups, ceil_div(groups, most_segments()))),
        segments(ceil_div(groups, each)),
        windows(segments >= kSegments ? kWinogradParities : std::max<int64_t>(1, segments)) {}

  int64_t most_segments() const {
    return std::clamp<int64_t>(kSegmentBytes / (segment_values() * 4), 1, kSegments);
  }
  int64_t segment_values() const {
    return kWinogradProducts * kWinogradParities * x_blocks * y_blocks * kSums;
  }
  // [product, parity, block of x, block of y]
  int64_t place(int64_t product, int64_t parity, int64_t x_block, int64_t y_block) const {
    return (((product * kWinogradParities + parity) * x_blocks + x_block) * y_blocks + y_block) *
           kSums;
  }
  // Groups of 32 tiles that are packed at a time.
  int64_t held() const {
    const int64_t bytes = kRow * kBlockBytes * (windows * x_blocks + y_blocks);
    return std::clamp<int64_t>(kPackedBytes / bytes, 2, 32);
  }
  int64_t window_jobs() const { return ceil_div(kWinogradParities, windows); }

  const ConvShape& shape;
  const TileGrid tiles;
  const int64_t groups;
  const int64_t x_blocks;
  const int64_t y_blocks;
  const int64_t each;  // groups of a segment
  const int64_t segments;
  const int64_t windows;  // of a job
};

// A row of what the differences of d are: d0 - d1, d1, d1 - d2.
template <int row>
POKEGAN_AVX512_INLINE void row_of_differences(const Lanes (&d)[3][3], Lanes (&made)[3]) {
  Lanes v[3];
#pragma GCC unroll 3
  for (int j = 0; j < 3; ++j) {
    if constexpr (row == 0) v[j] = d[0][j] - d[1][j];
    if constexpr (row == 1) v[j] = d[1][j];
    if constexpr (row == 2) v[j] = d[1][j] - d[2][j];
  }
  made[0] = v[0] - v[1];
  made[1] = v[1];
  made[2] = v[1] - v[2];
}

// A row of what the sums of e are: e0, e0 + e1, e1.
template <int row>
POKEGAN_AVX512_INLINE void row_of_sums(const Lanes (&e)[2][2], Lanes (&made)[3]) {
  Lanes v[2];
#pragma GCC unroll 2
  for (int j = 0; j < 2; ++j) {
    if constexpr (row == 0) v[j] = e[0][j];
    if constexpr (row == 1) v[j] = e[0][j] + e[1][j];
    if constexpr (row == 2) v[j] = e[1][j];
  }
  made[0] = v[0];
  made[1] = v[0] + v[1];
  made[2] = v[1];
}

// Three blocks of 32 tiles x 32 channels, before they are packed.
struct Rounded {
  alignas(64) uint16_t values[kRow][kBlockSide * kBlockSide];

  POKEGAN_AVX512_INLINE void set(int64_t tile, const Lanes (&made)[kRow]) {
#pragma GCC unroll 3
    for (int k = 0; k < kRow; ++k) {
      _mm512_store_si512(values[k] + tile * kBlockSide,
                         (__m512i)_mm512_cvtne2ps_pbh(made[k].high, made[k].low));
    }
  }

  // Tiles that there are not: they are summed over.
  POKEGAN_AVX512_INLINE void clear(int64_t begin) {
    for (; begin < kBlockSide; ++begin) {
      for (auto& block : values) {
        _mm512_store_si512(block + begin * kBlockSide, _mm512_setzero_si512());
      }
    }
  }

  template <Form form>
  POKEGAN_AVX512_INLINE void pack(int64_t apart, char* out) const {
    for (int k = 0; k < kRow; ++k) {
      const BlockSource<uint16_t> source{values[k], kBlockSide, kBlockSide, kBlockSide};
      pack_block<form, 1>(source, out + k * apart);
    }
  }
};

class Job {
 public:
  Job(const WinogradWeightGradient& all, const Plan& plan, int64_t row, int64_t first_window)
      : all_(all), plan_(plan), row_(row), first_window_(first_window) {}

  int64_t y_bytes() const { return kRow * plan_.y_blocks * plan_.held() * kBlockBytes; }
  int64_t bytes() const {
    return y_bytes() + kRow * plan_.windows * plan_.x_blocks * plan_.held() * kBlockBytes;
  }

  // Sums over the groups [begin, end).
  void run(const Kernels& kernels, int64_t begin, int64_t end, char* memory, float* sums) const {
    for (int64_t group = begin; group < end; group += plan_.held()) {
      const int64_t count = std::min(plan_.held(), end - group);
      if (row_ == 0) pack<0>(group, count, memory);
      if (row_ == 1) pack<1>(group, count, memory);
      if (row_ == 2) pack<2>(group, count, memory);
      multiply(kernels, count, memory, group > begin, sums);
    }
  }

 private:
  int64_t windows() const { return std::min(plan_.windows, kWinogradParities - first_window_); }
  // [product, block of y, group], and [product, window, block of x, group]
  int64_t y_place(int64_t k, int64_t block) const {
    return (k * plan_.y_blocks + block) * plan_.held() * kBlockBytes;
  }
  int64_t x_place(int64_t k, int64_t window, int64_t block) const {
    return ((k * plan_.windows + window) * plan_.x_blocks + block) * plan_.held() * kBlockBytes;
  }

  template <int row>
  void pack(int64_t group, int64_t count, char* memory) const {
    for (int64_t i = 0; i < count; ++i, memory += kBlockBytes) {
      pack_y<row>(group + i, memory);
      for (int64_t w = 0; w < windows(); ++w) {
        pack_x<row>(group + i, first_window_ + w, memory + y_bytes() + x_place(0, w, 0));
      }
    }
  }

  template <int row>
  POKEGAN_AVX512 void pack_y(int64_t group, char* out) const {
    const ConvShape& shape = plan_.shape;
    const MapsOf y{all_.y, shape.out_height, shape.out_width, shape.outputs};
    const int64_t count = std::min(kBlockSide, plan_.tiles.count() - group * kBlockSide);
    WindowOf<2> windows[kBlockSide];
    for (int64_t i = 0; i < count; ++i) {
      const Tile tile = plan_.tiles.at(group * kBlockSide + i);
      windows[i].set(y, tile.image, tile.row * kWinogradTile, tile.column * kWinogradTile, 1);
    }
    Rounded rounded;
    for (int64_t block = 0; block < plan_.y_blocks; ++block) {
      for (int64_t i = 0; i < count; ++i) {
        Lanes values[2][2];
        Lanes made[kRow];
        windows[i].load(block * kBlockSide, values);
        row_of_sums<row>(values, made);
        rounded.set(i, made);
      }
      rounded.clear(count);
      rounded.pack<Form::kPairsTransposed>(y_place(1, 0), out + y_place(0, block));
    }
  }

  template <int row>
  POKEGAN_AVX512 void pack_x(int64_t group, int64_t parity, char* out) const {
    const ConvShape& shape = plan_.shape;
    const MapsOf x{all_.x, shape.height, shape.width, shape.channels};
    const int64_t count = std::min(kBlockSide, plan_.tiles.count() - group * kBlockSide);
    WindowOf<3> windows[kBlockSide];
    for (int64_t i = 0; i < count; ++i) {
      const Tile tile = plan_.tiles.at(group * kBlockSide + i);
      windows[i].set(x, tile.image, tile.row * kWinogradTile * 2 + parity / 2 - shape.padding,
                     tile.column * kWinogradTile * 2 + parity % 2 - shape.padding, 2);
    }
    Rounded rounded;
    for (int64_t block = 0; block < plan_.x_blocks; ++block) {
      for (int64_t i = 0; i < count; ++i) {
        Lanes values[3][3];
        Lanes made[kRow];
        windows[i].load(block * kBlockSide, values);
        row_of_differences<row>(values, made);
        rounded.set(i, made);
      }
      rounded.clear(count);
      rounded.pack<Form::kPairs>(x_place(1, 0, 0), out + x_place(0, 0, block));
    }
  }

  void multiply(const Kernels& kernels, int64_t groups, const char* memory, bool add,
                float* sums) const {
    const Step start{0, 0};
    const Run run{&start, 1, groups, kBlockBytes, kBlockBytes};
    for (int64_t k = 0; k < kRow; ++k) {
      for (int64_t w = 0; w < windows(); ++w) {
        for (int64_t x = 0; x < plan_.x_blocks; ++x) {
          const int64_t columns = plan_.shape.channels - x * kBlockSide;
          for (int64_t y = 0; y < plan_.y_blocks; ++y) {
            const int64_t rows = plan_.shape.outputs - y * kBlockSide;
            kernels.product[0][rows > 16 ? 1 : 0][columns > 16 ? 1 : 0](
                run, memory + y_place(k, y), memory + y_bytes() + x_place(k, w, x),
                sums + plan_.place(row_ * kRow + k, first_window_ + w, x, y), add);
          }
        }
      }
    }
  }

  const WinogradWeightGradient& all_;
  const Plan& plan_;
  int64_t row_;
  int64_t first_window_;
};

POKEGAN_AVX512_INLINE void store_lanes(Lanes values, uint32_t mask, float* out) {
  store_values(out, mask, values.low, values.high);
}

POKEGAN_AVX512_INLINE void store_lanes(Lanes values, uint32_t mask, uint16_t* out) {
  _mm512_mask_storeu_epi16(out, mask, (__m512i)_mm512_cvtne2ps_pbh(values.high, values.low));
}

// The four taps of a parity that 32 x 32 outputs and channels have.
template <typename Value>
POKEGAN_AVX512 void finish(const Plan& plan, const float* sums, int64_t parity, int64_t x_block,
                           int64_t y_block, Value* out) {
  const int64_t channels = plan.shape.channels;
  const int64_t rows = std::min(kBlockSide, plan.shape.outputs - y_block * kBlockSide);
  const int64_t columns = std::min(kBlockSide, channels - x_block * kBlockSide);
  const int64_t tiles = columns > 16 ? 2 : 1;
  const int64_t first_tap = parity / 2 * 4 + parity % 2;
  out += y_block * kBlockSide * 16 * channels + first_tap * channels + x_block * kBlockSide;
  for (int64_t r = 0; r < rows; ++r, out += 16 * channels) {
    Lanes products[3][3];
#pragma GCC unroll 9
    for (int64_t k = 0; k < kWinogradProducts; ++k) {
      const float* row = sums + plan.place(k, parity, x_block, y_block) + r / 16 * tiles * 256 +
                         r % 16 * 16;
      Lanes sum{_mm512_setzero_ps(), _mm512_setzero_ps()};
      for (int64_t segment = 0; segment < plan.segments; ++segment, row += plan.segment_values()) {
        sum = sum + Lanes{_mm512_load_ps(row), tiles == 2 ? _mm512_load_ps(row + 256)
                                                          : _mm512_setzero_ps()};
      }
      products[k / 3][k % 3] = sum;
    }
    Lanes taps[2][2];
    pixels_of(products, taps);
    for (int64_t tap = 0; tap < 4; ++tap) {
      store_lanes(taps[tap / 2][tap % 2], mask_of(columns),
                  out + (tap / 2 * 8 + tap % 2 * 2) * channels);
    }
  }
}

}  // namespace

void run_winograd_weight_gradient(const WinogradWeightGradient& gradient, Units units) {
  thread_local Scratch sum_scratch;
  const Kernels& kernels = kernels_of(units);
  const Plan plan(gradient.shape);
  auto* sums = reinterpret_cast<float*>(
      sum_scratch.bytes(plan.segments * plan.segment_values() * 4));
  share_products(kernels, plan.segments * kRow * plan.window_jobs(), [&](int64_t number) {
    thread_local Scratch scratch;
    const int64_t segment = number / (kRow * plan.window_jobs());
    const Job job(gradient, plan, number % kRow, number / kRow % plan.window_jobs() * plan.windows);
    job.run(kernels, segment * plan.each, std::min((segment + 1) * plan.each, plan.groups),
            scratch.bytes(job.bytes()), sums + segment * plan.segment_values());
  });
  share_jobs(
      kWinogradParities * plan.x_blocks * plan.y_blocks, [](const auto& work) { work(); },
      [&](int64_t job) {
        const int64_t parity = job / (plan.x_blocks * plan.y_blocks);
        const int64_t x_block = job / plan.y_blocks % plan.x_blocks;
        const int64_t y_block = job % plan.y_blocks;
        if (gradient.out_float != nullptr) {
          finish(plan, sums, parity, x_block, y_block, gradient.out_float);
        } else {
          finish(plan, sums, parity, x_block, y_block, gradient.out_bfloat);
        }
      });
}

#endif

}  // namespace pokegan
