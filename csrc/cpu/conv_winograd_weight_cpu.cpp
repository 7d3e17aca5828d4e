// The gradient by the weight: a job transforms and multiplies, for a row of the products, some
// tiles and windows of some parts. What all jobs have summed is transformed at the end.
#include "conv_winograd_lanes.h"

namespace pokegan {

#ifdef POKEGAN_HAS_CONV
namespace {

constexpr int64_t kSums = 4 * 256;           // of 32 outputs x 32 channels
constexpr int64_t kPackedBytes = 512 << 10;  // of a second-level cache
constexpr int64_t kSegmentBytes = 16 << 20;  // of the sums of all segments
constexpr int64_t kSegments = 4;
constexpr int64_t kLeastGroups = 16;  // of a segment
constexpr int64_t kMostHeld = 32;

// How the sum over all tiles is cut. That depends on the shapes alone: the same bits for any count
// of threads.
template <int N>
struct Plan {
  explicit Plan(const ConvShape& shape)
      : shape(shape),
        kernel(shape),
        parts(kernel.count()),
        tiles{shape.images, ceil_div(shape.out_height, kWinogradTile),
              ceil_div(shape.out_width, kWinogradTile)},
        x_blocks(blocks_of(shape.channels)),
        y_blocks(blocks_of(shape.outputs)),
        each(std::max(kLeastGroups, ceil_div(tiles.groups(), most_segments()))),
        segments(ceil_div(tiles.groups(), each)),
        windows(std::min(parts, segments)) {}

  int64_t segment_values() const { return N * N * parts * x_blocks * y_blocks * kSums; }
  int64_t most_segments() const {
    return std::clamp<int64_t>(kSegmentBytes / (segment_values() * 4), 1, kSegments);
  }
  // [product, part, block of x, block of y]
  int64_t place(int64_t product, int64_t part, int64_t x_block, int64_t y_block) const {
    return (((product * parts + part) * x_blocks + x_block) * y_blocks + y_block) * kSums;
  }
  // Groups of 32 tiles that are packed at a time.
  int64_t held() const {
    const int64_t bytes = N * kBlockBytes * (windows * x_blocks + y_blocks);
    return std::clamp<int64_t>(kPackedBytes / bytes, 2, kMostHeld);
  }
  int64_t window_jobs() const { return ceil_div(parts, windows); }

  const ConvShape& shape;
  const KernelParts<N> kernel;
  const int64_t parts;
  const TileGrid tiles;
  const int64_t x_blocks;
  const int64_t y_blocks;
  const int64_t each;  // groups of a segment
  const int64_t segments;
  const int64_t windows;  // of a job: fewer jobs repeat what they do with y
};

// N blocks of 32 tiles x 32 channels, before they are packed.
template <int N>
struct Rounded {
  alignas(64) uint16_t values[N][kBlockSide * kBlockSide];

  POKEGAN_AVX512_INLINE void set(int64_t tile, const Floats (&made)[N]) {
#pragma GCC unroll 4
    for (int k = 0; k < N; ++k) {
      _mm512_store_si512(values[k] + tile * kBlockSide, rounded(made[k]));
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
    for (int k = 0; k < N; ++k) {
      const BlockSource<uint16_t> source{values[k], kBlockSide, kBlockSide, kBlockSide};
      pack_block<form, 1>(source, out + k * apart);
    }
  }
};

// Row kRow of the products, and the parts from `first` on.
template <int N, int kRow>
class Job {
 public:
  Job(const WinogradWeightGradient& all, const Plan<N>& plan, int64_t first)
      : all_(all), plan_(plan), first_(first) {}

  int64_t bytes() const { return y_bytes() + x_place(N, 0, 0); }

  // Sums over the groups [begin, end).
  void run(const Kernels& kernels, int64_t begin, int64_t end, char* memory, float* sums) const {
    for (int64_t group = begin; group < end; group += plan_.held()) {
      const int64_t count = std::min(plan_.held(), end - group);
      for (int64_t i = 0; i < count; ++i) {
        pack_y(group + i, memory + i * kBlockBytes);
        for (int64_t w = 0; w < windows(); ++w) {
          pack_x(group + i, w, memory + y_bytes() + i * kBlockBytes);
        }
      }
      multiply(kernels, count, memory, group > begin, sums);
    }
  }

 private:
  int64_t windows() const { return std::min(plan_.windows, plan_.parts - first_); }
  // [product, block of y, group], and [product, window, block of x, group]
  int64_t y_place(int64_t k, int64_t block) const {
    return (k * plan_.y_blocks + block) * plan_.held() * kBlockBytes;
  }
  int64_t x_place(int64_t k, int64_t window, int64_t block) const {
    return ((k * plan_.windows + window) * plan_.x_blocks + block) * plan_.held() * kBlockBytes;
  }
  int64_t y_bytes() const { return y_place(N, 0); }

  POKEGAN_AVX512 void pack_y(int64_t group, char* out) const {
    const ConvShape& shape = plan_.shape;
    const MapsOf y{all_.y, shape.out_height, shape.out_width, shape.outputs};
    const Windows<kWinogradTile> windows(y, plan_.tiles, group, {0, 0, 1});
    Rounded<N> blocks;
    for (int64_t b = 0; b < plan_.y_blocks; ++b) {
      for (int64_t tile = 0; tile < windows.count(); ++tile) {
        Floats across[2];
        Floats made[N];
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j) {
          Floats values[2];
          windows.load(tile, j, b * kBlockSide, values);
          across[j] = of_pixels<N, kRow>(values);
        }
        all_of_pixels<N>(across, made);
        blocks.set(tile, made);
      }
      blocks.clear(windows.count());
      blocks.template pack<Form::kPairsTransposed>(y_place(1, 0), out + y_place(0, b));
    }
  }

  POKEGAN_AVX512 void pack_x(int64_t group, int64_t window, char* out) const {
    const ConvShape& shape = plan_.shape;
    const MapsOf x{all_.x, shape.height, shape.width, shape.channels};
    const int64_t part = first_ + window;
    const KernelParts<N>& kernel = plan_.kernel;
    const Places places{kernel.first_tap(kernel.row(part)) - shape.padding,
                        kernel.first_tap(kernel.column(part)) - shape.padding, shape.stride};
    const Windows<N> windows(x, plan_.tiles, group, places);
    Rounded<N> blocks;
    for (int64_t b = 0; b < plan_.x_blocks; ++b) {
      Floats across[N];
      for (int64_t tile = 0; tile < windows.count(); ++tile) {
        if (windows.follows(tile)) {
#pragma GCC unroll 2
          for (int j = 0; j < N - kWinogradTile; ++j) across[j] = across[j + kWinogradTile];
        } else {
#pragma GCC unroll 2
          for (int j = 0; j < N - kWinogradTile; ++j) across[j] = neighbours(windows, tile, b, j);
        }
#pragma GCC unroll 2
        for (int j = N - kWinogradTile; j < N; ++j) across[j] = neighbours(windows, tile, b, j);
        Floats made[N];
        all_of_neighbours<N>(across, made);
        blocks.set(tile, made);
      }
      blocks.clear(windows.count());
      blocks.template pack<Form::kPairs>(x_place(1, 0, 0), out + x_place(0, window, b));
    }
  }

  POKEGAN_AVX512_INLINE static Floats neighbours(const Windows<N>& windows, int64_t tile,
                                                 int64_t block, int j) {
    Floats values[N];
    windows.load(tile, j, block * kBlockSide, values);
    return of_neighbours<N, kRow>(values);
  }

  void multiply(const Kernels& kernels, int64_t groups, const char* memory, bool add,
                float* sums) const {
    const Step start{0, 0};
    const Run run{&start, 1, groups, kBlockBytes, kBlockBytes};
    for (int64_t k = 0; k < N; ++k) {
      for (int64_t w = 0; w < windows(); ++w) {
        for (int64_t x = 0; x < plan_.x_blocks; ++x) {
          const int64_t columns = plan_.shape.channels - x * kBlockSide;
          for (int64_t y = 0; y < plan_.y_blocks; ++y) {
            const int64_t rows = plan_.shape.outputs - y * kBlockSide;
            kernels.product[0][rows > 16 ? 1 : 0][columns > 16 ? 1 : 0](
                run, memory + y_place(k, y), memory + y_bytes() + x_place(k, w, x),
                sums + plan_.place(kRow * N + k, first_ + w, x, y), add);
          }
        }
      }
    }
  }

  const WinogradWeightGradient& all_;
  const Plan<N>& plan_;
  int64_t first_;
};

POKEGAN_AVX512_INLINE void store_lanes(Floats values, uint32_t mask, float* out) {
  store_values(out, mask, values.low, values.high);
}

POKEGAN_AVX512_INLINE void store_lanes(Floats values, uint32_t mask, uint16_t* out) {
  _mm512_mask_storeu_epi16(out, mask, rounded(values));
}

// The taps of a part that 32 x 32 outputs and channels have.
template <int N, typename Value>
POKEGAN_AVX512 void finish(const Plan<N>& plan, const float* sums, int64_t part, int64_t x_block,
                           int64_t y_block, Value* out) {
  const int64_t channels = plan.shape.channels;
  const int64_t stride = plan.shape.stride;
  const int64_t width = plan.shape.kernel_width;
  const int64_t rows = std::min(kBlockSide, plan.shape.outputs - y_block * kBlockSide);
  const int64_t columns = std::min(kBlockSide, channels - x_block * kBlockSide);
  const int64_t tiles = columns > 16 ? 2 : 1;
  const int64_t row_values = plan.shape.taps() * channels;
  out += y_block * kBlockSide * row_values + x_block * kBlockSide +
         (plan.kernel.first_tap(plan.kernel.row(part)) * width +
          plan.kernel.first_tap(plan.kernel.column(part))) *
             channels;
  for (int64_t r = 0; r < rows; ++r, out += row_values) {
    const int64_t place = r / 16 * tiles * 256 + r % 16 * 16;
    Floats across[N][N - 1];
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) {
      Floats products[N];
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) {
        const float* sum = sums + plan.place(i * N + j, part, x_block, y_block) + place;
        products[i] = zeros();
        for (int64_t segment = 0; segment < plan.segments; ++segment) {
          products[i] =
              products[i] + Floats{_mm512_load_ps(sum),
                                   tiles == 2 ? _mm512_load_ps(sum + 256) : _mm512_setzero_ps()};
          sum += plan.segment_values();
        }
      }
      taps_of<N>(products, across[j]);
    }
#pragma GCC unroll 3
    for (int i = 0; i < N - 1; ++i) {
      Floats line[N];
      Floats taps[N - 1];
#pragma GCC unroll 4
      for (int j = 0; j < N; ++j) line[j] = across[j][i];
      taps_of<N>(line, taps);
#pragma GCC unroll 3
      for (int j = 0; j < N - 1; ++j) {
        store_lanes(taps[j], mask_of(columns), out + (i * width + j) * stride * channels);
      }
    }
  }
}

template <int N, int kRow>
void run_row(const WinogradWeightGradient& gradient, const Plan<N>& plan, const Kernels& kernels,
             int64_t segment, int64_t windows, float* sums) {
  thread_local Scratch scratch;
  const Job<N, kRow> job(gradient, plan, windows * plan.windows);
  job.run(kernels, segment * plan.each, std::min((segment + 1) * plan.each, plan.tiles.groups()),
          scratch.bytes(job.bytes()), sums + segment * plan.segment_values());
}

template <int N>
void run_with(const WinogradWeightGradient& gradient, Units units) {
  thread_local Scratch sum_scratch;
  const Kernels& kernels = kernels_of(units);
  const Plan<N> plan(gradient.shape);
  auto* sums =
      reinterpret_cast<float*>(sum_scratch.bytes(plan.segments * plan.segment_values() * 4));
  share_products(kernels, plan.segments * N * plan.window_jobs(), [&](int64_t job) {
    const int64_t windows = job / N % plan.window_jobs();
    const int64_t segment = job / N / plan.window_jobs();
    switch (job % N) {
      case 0:
        return run_row<N, 0>(gradient, plan, kernels, segment, windows, sums);
      case 1:
        return run_row<N, 1>(gradient, plan, kernels, segment, windows, sums);
      case 2:
        return run_row<N, 2>(gradient, plan, kernels, segment, windows, sums);
      default:
        if constexpr (N == 4) run_row<N, 3>(gradient, plan, kernels, segment, windows, sums);
    }
  });
  share_jobs(
      plan.parts * plan.x_blocks * plan.y_blocks, [](const auto& work) { work(); },
      [&](int64_t job) {
        const int64_t part = job / (plan.x_blocks * plan.y_blocks);
        const int64_t x_block = job / plan.y_blocks % plan.x_blocks;
        const int64_t y_block = job % plan.y_blocks;
        if (gradient.out_float != nullptr) {
          finish(plan, sums, part, x_block, y_block, gradient.out_float);
        } else {
          finish(plan, sums, part, x_block, y_block, gradient.out_bfloat);
        }
      });
}

}  // namespace

void run_winograd_weight_gradient(const WinogradWeightGradient& gradient, Units units) {
  if (gradient.shape.kernel_height == 4) {
    run_with<3>(gradient, units);
  } else {
    run_with<4>(gradient, units);
  }
}

#endif

}  // namespace pokegan
