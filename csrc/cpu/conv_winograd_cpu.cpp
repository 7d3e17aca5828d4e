// A job transforms what some tiles are made of, and multiplies it with all weights, which were
// transformed before. A row of a block is a tile, wherever that lies.
#include "conv_winograd.h"
#include "conv_winograd_lanes.h"

namespace pokegan {

#ifdef POKEGAN_HAS_CONV
namespace {

constexpr int64_t kSums = 4 * 256;                // of a product: 32 tiles x 32 channels
constexpr int64_t kTransformedBytes = 640 << 10;  // of a second-level cache; weights need the rest

// How tiles lie in the maps: a tile is made of a window for each part of the kernel. Those of a
// transposed convolution of stride 2 are sets by parity, and each is made of one window.
template <int N>
struct Plan {
  explicit Plan(const WinogradConvolution& all)
      : shape(all.shape),
        transposed(all.transposed),
        parts(shape),
        sets(transposed ? shape.stride * shape.stride : 1),
        windows(parts.count() / sets),
        source{all.source, transposed ? shape.out_height : shape.height,
               transposed ? shape.out_width : shape.width,
               transposed ? shape.outputs : shape.channels},
        blocks(blocks_of(source.channels)),
        height(transposed ? shape.height : shape.out_height),
        width(transposed ? shape.width : shape.out_width),
        channels(transposed ? shape.channels : shape.outputs),
        tiles{shape.images, ceil_div(ceil_div(height, pixel_step()), kWinogradTile),
              ceil_div(ceil_div(width, pixel_step()), kWinogradTile)} {}

  int64_t panels() const { return blocks_of(channels); }
  // Bytes that one product of a set is summed over, for 32 tiles or channels.
  int64_t product_bytes() const { return windows * blocks * kBlockBytes; }
  int64_t set_bytes() const { return N * N * product_bytes(); }
  int64_t group_bytes() const { return sets * set_bytes(); }
  // Between the pixels of a set.
  int64_t pixel_step() const { return transposed ? shape.stride : 1; }
  // Of an axis: the pixel that a set begins with.
  int64_t first_pixel(int64_t set) const {
    if (!transposed) return 0;
    return ((set - shape.padding) % shape.stride + shape.stride) % shape.stride;
  }
  // Where a part's window of the first tile begins.
  int64_t first_source(int64_t part) const {
    const int64_t tap = parts.first_tap(part);
    if (!transposed) return tap - shape.padding;
    const int64_t set = shape.stride == 1 ? 0 : part;
    return (first_pixel(set) + shape.padding - tap) / shape.stride - (N - 2);
  }
  int64_t tap(int64_t part, int64_t number) const {
    return parts.first_tap(part) + shape.stride * (transposed ? N - 2 - number : number);
  }
  Places places(int64_t part) const {
    return {first_source(parts.row(part)), first_source(parts.column(part)),
            transposed ? 1 : shape.stride};
  }

  const ConvShape& shape;
  const bool transposed;
  const KernelParts<N> parts;
  const int64_t sets;
  const int64_t windows;
  const MapsOf source;
  const int64_t blocks;  // of the source's channels
  const int64_t height;  // that is written
  const int64_t width;
  const int64_t channels;
  const TileGrid tiles;
};

// What the taps of a part are multiplied as: N x N blocks [32 outputs, 32 channels].
template <int N, typename Value>
POKEGAN_AVX512 void transform_weights(const Plan<N>& plan, const Weights& weights, int64_t part,
                                      int64_t o, int64_t c, uint16_t* out) {
  const uint32_t mask = mask_of(weights.channels - c);
  const int64_t outputs = std::min(kBlockSide, weights.outputs - o);
  const int64_t row_values = weights.taps * weights.channels;
  const auto* values = static_cast<const Value*>(weights.values) + o * row_values + c;
  const int64_t part_row = plan.parts.row(part);
  const int64_t part_column = plan.parts.column(part);
  for (int64_t r = 0; r < kBlockSide; ++r, out += kBlockSide) {
    const uint32_t used = r < outputs ? mask : 0;
    const Value* row = r < outputs ? values + r * row_values : values;
    Floats columns[N - 1][N];
#pragma GCC unroll 3
    for (int j = 0; j < N - 1; ++j) {
      Floats taps[N - 1];
#pragma GCC unroll 3
      for (int i = 0; i < N - 1; ++i) {
        const int64_t tap =
            plan.tap(part_row, i) * plan.shape.kernel_width + plan.tap(part_column, j);
        taps[i] = load_lanes(row + tap * weights.channels, used);
      }
      all_of_taps<N>(taps, columns[j]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      Floats across[N - 1];
      Floats made[N];
#pragma GCC unroll 3
      for (int j = 0; j < N - 1; ++j) across[j] = columns[j][i];
      all_of_taps<N>(across, made);
#pragma GCC unroll 4
      for (int j = 0; j < N; ++j) {
        _mm512_store_si512(out + (i * N + j) * kBlockSide * kBlockSide, rounded(made[j]));
      }
    }
  }
}

// [set, panel, product, window, block] blocks.
template <int N>
const char* transformed_weights(const Plan<N>& plan, const Weights& weights) {
  thread_local Scratch scratch;
  char* packed = scratch.bytes(plan.panels() * plan.group_bytes());
  const int64_t summed = plan.windows * plan.blocks;
  share_jobs(
      plan.sets * plan.panels() * summed, [](const auto& work) { work(); },
      [&](int64_t job) {
        const int64_t block = job % plan.blocks;
        const int64_t panel = job / summed % plan.panels();
        const int64_t set = job / summed / plan.panels();
        const int64_t o = kBlockSide * (plan.transposed ? block : panel);
        const int64_t c = kBlockSide * (plan.transposed ? panel : block);
        alignas(64) uint16_t values[N * N * kBlockSide * kBlockSide];
        const auto transform =
            weights.wide ? transform_weights<N, float> : transform_weights<N, uint16_t>;
        transform(plan, weights, set + job / plan.blocks % plan.windows, o, c, values);
        char* out = packed + (job / summed) * plan.set_bytes() + job % summed * kBlockBytes;
        for (int64_t k = 0; k < N * N; ++k, out += plan.product_bytes()) {
          const BlockSource<uint16_t> source{values + k * kBlockSide * kBlockSide, kBlockSide,
                                             kBlockSide, kBlockSide};
          if (plan.transposed) {
            pack_block<Form::kPairs, 1>(source, out);
          } else {
            pack_block<Form::kTransposed, 1>(source, out);
          }
        }
      });
  return packed;
}

template <int N>
class Job {
 public:
  Job(const WinogradConvolution& all, const Plan<N>& plan, const char* weights)
      : all_(all), plan_(plan), weights_(weights) {}

  // The groups [begin, end) of 32 tiles. `memory` has room for them.
  void run(const Kernels& kernels, int64_t begin, int64_t end, char* memory) const {
    for (int64_t group = begin; group < end; ++group) {
      char* out = memory + (group - begin) * plan_.group_bytes();
      for (int64_t set = 0; set < plan_.sets; ++set) {
        for (int64_t window = 0; window < plan_.windows; ++window) {
          transform(group, set + window,
                    out + set * plan_.set_bytes() + window * plan_.blocks * kBlockBytes);
        }
      }
    }
    alignas(64) float sums[N * N * kSums];
    const Step start{0, 0};
    const Run run{&start, 1, plan_.windows * plan_.blocks, kBlockBytes, kBlockBytes};
    const char* weights = weights_;
    for (int64_t set = 0; set < plan_.sets; ++set) {
      for (int64_t panel = 0; panel < plan_.panels(); ++panel, weights += plan_.set_bytes()) {
        const bool wide = plan_.channels - panel * kBlockSide > 16;
        const Product product = kernels.product[0][1][wide ? 1 : 0];
        for (int64_t group = begin; group < end; ++group) {
          const char* maps =
              memory + (group - begin) * plan_.group_bytes() + set * plan_.set_bytes();
          for (int64_t k = 0; k < N * N; ++k) {
            const int64_t place = k * plan_.product_bytes();
            product(run, maps + place, weights + place, sums + k * kSums, false);
          }
          if (wide) {
            write<2>(sums, group, set, panel);
          } else {
            write<1>(sums, group, set, panel);
          }
        }
      }
    }
  }

 private:
  // What the windows of a part are multiplied as: [product, ..., block] blocks.
  POKEGAN_AVX512 void transform(int64_t group, int64_t part, char* out) const {
    const Windows<N> windows(plan_.source, plan_.tiles, group, plan_.places(part));
    for (int64_t b = 0; b < plan_.blocks; ++b, out += kBlockBytes) {
      Floats columns[N][N];
      for (int64_t tile = 0; tile < windows.count(); ++tile) {
        if (windows.follows(tile)) {
#pragma GCC unroll 2
          for (int j = 0; j < N - kWinogradTile; ++j) {
#pragma GCC unroll 4
            for (int i = 0; i < N; ++i) columns[j][i] = columns[j + kWinogradTile][i];
          }
        } else {
#pragma GCC unroll 2
          for (int j = 0; j < N - kWinogradTile; ++j) make_column(windows, tile, b, j, columns[j]);
        }
#pragma GCC unroll 2
        for (int j = N - kWinogradTile; j < N; ++j) make_column(windows, tile, b, j, columns[j]);
#pragma GCC unroll 4
        for (int i = 0; i < N; ++i) {
          Floats across[N];
          Floats made[N];
#pragma GCC unroll 4
          for (int j = 0; j < N; ++j) across[j] = columns[j][i];
          all_of_neighbours<N>(across, made);
#pragma GCC unroll 4
          for (int j = 0; j < N; ++j) {
            _mm512_store_si512(out + (i * N + j) * plan_.product_bytes() + 64 * tile,
                               rounded(made[j]));
          }
        }
      }
    }
  }

  POKEGAN_AVX512_INLINE static void make_column(const Windows<N>& windows, int64_t tile,
                                                int64_t block, int j, Floats (&made)[N]) {
    Floats values[N];
    windows.load(tile, j, block * kBlockSide, values);
    all_of_neighbours<N>(values, made);
  }

  template <int kColumns>
  POKEGAN_AVX512 void write(const float* sums, int64_t group, int64_t set, int64_t panel) const {
    const float* bias = all_.bias != nullptr ? all_.bias + panel * kBlockSide : nullptr;
    const Floats biases = bias != nullptr ? load_lanes(bias, 0xFFFFFFFFU) : zeros();
    const uint32_t mask = mask_of(plan_.channels - panel * kBlockSide);
    const int64_t step = plan_.pixel_step();
    const int64_t stride = plan_.shape.stride;
    for (int64_t n = 0; n < plan_.tiles.in_group(group); ++n) {
      const Tile tile = plan_.tiles.at(group * kBlockSide + n);
      const float* row = sums + n / 16 * kColumns * 256 + n % 16 * 16;
      Floats columns[N][2];
#pragma GCC unroll 4
      for (int j = 0; j < N; ++j) {
        Floats products[N];
#pragma GCC unroll 4
        for (int i = 0; i < N; ++i) {
          const float* place = row + (i * N + j) * kSums;
          products[i] = {_mm512_load_ps(place),
                         kColumns == 2 ? _mm512_load_ps(place + 256) : _mm512_setzero_ps()};
        }
        pixels_of<N>(products, columns[j]);
      }
      const int64_t y = plan_.first_pixel(set / stride) + tile.row * kWinogradTile * step;
      const int64_t x = plan_.first_pixel(set % stride) + tile.column * kWinogradTile * step;
      uint16_t* out = all_.out +
                      ((tile.image * plan_.height + y) * plan_.width + x) * plan_.channels +
                      panel * kBlockSide;
#pragma GCC unroll 2
      for (int i = 0; i < kWinogradTile; ++i) {
        Floats across[N];
        Floats pixels[2];
#pragma GCC unroll 4
        for (int j = 0; j < N; ++j) across[j] = columns[j][i];
        pixels_of<N>(across, pixels);
        if (y + i * step >= plan_.height) break;
        uint16_t* line = out + i * step * plan_.width * plan_.channels;
        _mm512_mask_storeu_epi16(line, x < plan_.width ? mask : 0, rounded(pixels[0] + biases));
        if (x + step < plan_.width) {
          _mm512_mask_storeu_epi16(line + step * plan_.channels, mask, rounded(pixels[1] + biases));
        }
      }
    }
  }

  const WinogradConvolution& all_;
  const Plan<N>& plan_;
  const char* weights_;
};

template <int N>
void run_with(const WinogradConvolution& convolution, Units units) {
  const Kernels& kernels = kernels_of(units);
  const Plan<N> plan(convolution);
  const Job<N> job(convolution, plan, transformed_weights(plan, convolution.weights));
  const int64_t groups = plan.tiles.groups();
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t held = std::max<int64_t>(
      1, std::min(kTransformedBytes / plan.group_bytes(), ceil_div(groups, threads)));
  share_products(kernels, ceil_div(groups, held), [&](int64_t number) {
    thread_local Scratch scratch;
    char* memory = scratch.bytes(held * plan.group_bytes());
    job.run(kernels, number * held, std::min((number + 1) * held, groups), memory);
  });
}

}  // namespace

void run_winograd(const WinogradConvolution& convolution, Units units) {
  if (convolution.shape.kernel_height == 4) {
    run_with<3>(convolution, units);
  } else {
    run_with<4>(convolution, units);
  }
}

#endif

}  // namespace pokegan
