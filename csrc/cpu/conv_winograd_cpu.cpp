// A job transforms what some tiles are made of, and multiplies it with all weights, which were
// transformed before. A row of a block is a tile, wherever that lies.
#include "conv_winograd.h"

#include "conv_winograd_lanes.h"

namespace pokegan {

#ifdef POKEGAN_HAS_CONV
namespace {

constexpr int64_t kSums = 4 * 256;               // of a product: 32 tiles x 32 channels
constexpr int64_t kTransformedBytes = 640 << 10;  // of a second-level cache; weights need the rest

// How tiles lie in the maps: those of a convolution are each made of windows of all parities, those
// of a transposed one are as many for each parity, and each is made of one window.
struct Plan {
  explicit Plan(const WinogradConvolution& all)
      : shape(all.shape),
        transposed(all.transposed),
        sets(transposed ? kWinogradParities : 1),
        windows(kWinogradParities / sets),
        blocks(blocks_of(transposed ? shape.outputs : shape.channels)),
        channels(transposed ? shape.channels : shape.outputs),
        height(transposed ? shape.height : shape.out_height),
        width(transposed ? shape.width : shape.out_width),
        tiles{shape.images, ceil_div(ceil_div(height, pixel_step()), kWinogradTile),
              ceil_div(ceil_div(width, pixel_step()), kWinogradTile)} {}

  int64_t panels() const { return blocks_of(channels); }
  // Blocks that one product of a set is summed over.
  int64_t summed() const { return windows * blocks; }
  int64_t set_bytes() const { return kWinogradProducts * summed() * kBlockBytes; }
  int64_t group_bytes() const { return sets * set_bytes(); }
  // Between the pixels of a set.
  int64_t pixel_step() const { return transposed ? 2 : 1; }
  // Of an axis: the pixel that a parity begins with.
  int64_t first_pixel(int64_t parity) const {
    return transposed ? ((parity - shape.padding) % 2 + 2) % 2 : 0;
  }
  // Where the window of the first tile begins.
  int64_t first_source(int64_t parity) const {
    return transposed ? (first_pixel(parity) + shape.padding - parity) / 2 - 1
                      : parity - shape.padding;
  }
  int64_t tap(int64_t parity, int64_t number) const {
    return transposed ? parity + 2 * (1 - number) : 2 * number + parity;
  }

  const ConvShape& shape;
  const bool transposed;
  const int64_t sets;
  const int64_t windows;
  const int64_t blocks;    // of the source's channels
  const int64_t channels;  // that are written
  const int64_t height;
  const int64_t width;
  const TileGrid tiles;
};

// The sums of taps that each product multiplies, [product, 32 outputs, 32 channels].
template <typename Value>
POKEGAN_AVX512 void transform_weights(const Plan& plan, const Weights& weights, int64_t window,
                                      int64_t o, int64_t c, uint16_t* out) {
  const uint32_t mask = mask_of(weights.channels - c);
  const auto* values = static_cast<const Value*>(weights.values) + o * weights.taps * weights.channels + c;
  const int64_t row = window / 2;
  const int64_t column = window % 2;
  for (int64_t r = 0; r < kBlockSide; ++r, out += kBlockSide) {
    Lanes taps[2][2];
    for (int64_t i = 0; i < 2; ++i) {
      for (int64_t j = 0; j < 2; ++j) {
        const int64_t tap = plan.tap(row, i) * 4 + plan.tap(column, j);
        taps[i][j] = r < weights.outputs - o
                         ? load_lanes(values + tap * weights.channels, mask)
                         : Lanes{_mm512_setzero_ps(), _mm512_setzero_ps()};
      }
    }
    if (r < weights.outputs - o) values += weights.taps * weights.channels;
    Lanes made[3][3];
    sums_of_pairs(taps, made);
    store_rounded(made, kBlockSide * kBlockSide * 2, reinterpret_cast<char*>(out));
  }
}

// [set, panel, product, window, block] blocks.
const char* transformed_weights(const Plan& plan, const Weights& weights) {
  thread_local Scratch scratch;
  char* packed = scratch.bytes(plan.panels() * plan.group_bytes());
  share_jobs(
      plan.sets * plan.panels() * plan.summed(), [](const auto& work) { work(); },
      [&](int64_t job) {
        const int64_t block = job % plan.blocks;
        const int64_t window = job / plan.blocks % plan.windows;
        const int64_t panel = job / plan.summed() % plan.panels();
        const int64_t set = job / plan.summed() / plan.panels();
        const int64_t o = kBlockSide * (plan.transposed ? block : panel);
        const int64_t c = kBlockSide * (plan.transposed ? panel : block);
        alignas(64) uint16_t sums[kWinogradProducts * kBlockSide * kBlockSide];
        const auto transform =
            weights.wide ? transform_weights<float> : transform_weights<uint16_t>;
        transform(plan, weights, set + window, o, c, sums);
        char* out = packed + (set * plan.panels() + panel) * plan.set_bytes() +
                    (window * plan.blocks + block) * kBlockBytes;
        for (int64_t k = 0; k < kWinogradProducts; ++k, out += plan.summed() * kBlockBytes) {
          const BlockSource<uint16_t> source{sums + k * kBlockSide * kBlockSide, kBlockSide,
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

class Job {
 public:
  Job(const WinogradConvolution& all, const Plan& plan, const char* weights)
      : all_(all), plan_(plan), weights_(weights) {}

  // The groups [begin, end) of 32 tiles. `memory` has room for them.
  void run(const Kernels& kernels, int64_t begin, int64_t end, char* memory) const {
    for (int64_t group = begin; group < end; ++group) {
      transform(group, memory + (group - begin) * plan_.group_bytes());
    }
    alignas(64) float sums[kWinogradProducts * kSums];
    const Step start{0, 0};
    const Run run{&start, 1, plan_.summed(), kBlockBytes, kBlockBytes};
    const char* weights = weights_;
    for (int64_t set = 0; set < plan_.sets; ++set) {
      for (int64_t panel = 0; panel < plan_.panels(); ++panel, weights += plan_.set_bytes()) {
        const bool wide = plan_.channels - panel * kBlockSide > 16;
        const Product product = kernels.product[0][1][wide ? 1 : 0];
        for (int64_t group = begin; group < end; ++group) {
          const char* maps =
              memory + (group - begin) * plan_.group_bytes() + set * plan_.set_bytes();
          for (int64_t k = 0; k < kWinogradProducts; ++k) {
            const int64_t place = k * plan_.summed() * kBlockBytes;
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
  // [set, product, window, block] blocks.
  POKEGAN_AVX512 void transform(int64_t group, char* out) const {
    const MapsOf source{all_.source, plan_.transposed ? plan_.shape.out_height : plan_.shape.height,
                        plan_.transposed ? plan_.shape.out_width : plan_.shape.width,
                        plan_.transposed ? plan_.shape.outputs : plan_.shape.channels};
    const int64_t step = plan_.transposed ? 1 : 2;
    const int64_t first = group * kBlockSide;
    const int64_t count = std::min(kBlockSide, plan_.tiles.count() - first);
    WindowOf<3> window;
    for (int64_t i = 0; i < count; ++i) {
      const Tile tile = plan_.tiles.at(first + i);
      for (int64_t part = 0; part < kWinogradParities; ++part) {
        const int64_t row = plan_.first_source(part / 2) + tile.row * kWinogradTile * step;
        const int64_t column = plan_.first_source(part % 2) + tile.column * kWinogradTile * step;
        window.set(source, tile.image, row, column, step);
        const int64_t set = plan_.sets > 1 ? part : 0;
        char* place = out + set * plan_.set_bytes() +
                      (plan_.sets > 1 ? 0 : part) * plan_.blocks * kBlockBytes + 64 * i;
        for (int64_t b = 0; b < plan_.blocks; ++b, place += kBlockBytes) {
          Lanes values[3][3];
          Lanes made[3][3];
          window.load(b * kBlockSide, values);
          differences(values, made);
          store_rounded(made, plan_.summed() * kBlockBytes, place);
        }
      }
    }
  }

  template <int kColumns>
  POKEGAN_AVX512 void write(const float* sums, int64_t group, int64_t set, int64_t panel) const {
    const float* bias = all_.bias != nullptr ? all_.bias + panel * kBlockSide : nullptr;
    const Lanes biases = bias != nullptr ? Lanes{_mm512_loadu_ps(bias), _mm512_loadu_ps(bias + 16)}
                                         : Lanes{_mm512_setzero_ps(), _mm512_setzero_ps()};
    const uint32_t mask = mask_of(plan_.channels - panel * kBlockSide);
    const int64_t first = group * kBlockSide;
    const int64_t count = std::min(kBlockSide, plan_.tiles.count() - first);
    const int64_t step = plan_.pixel_step();
    for (int64_t i = 0; i < count; ++i) {
      const Tile tile = plan_.tiles.at(first + i);
      const float* row = sums + i / 16 * kColumns * 256 + i % 16 * 16;
      Lanes products[3][3];
#pragma GCC unroll 9
      for (int64_t k = 0; k < kWinogradProducts; ++k) {
        products[k / 3][k % 3] = {_mm512_load_ps(row + k * kSums),
                                  kColumns == 2 ? _mm512_load_ps(row + k * kSums + 256)
                                                : _mm512_setzero_ps()};
      }
      Lanes pixels[2][2];
      pixels_of(products, pixels);
      const int64_t y = plan_.first_pixel(set / 2) + tile.row * kWinogradTile * step;
      const int64_t x = plan_.first_pixel(set % 2) + tile.column * kWinogradTile * step;
      uint16_t* out = all_.out +
                      ((tile.image * plan_.height + y) * plan_.width + x) * plan_.channels +
                      panel * kBlockSide;
#pragma GCC unroll 4
      for (int64_t p = 0; p < 4; ++p) {
        const int64_t down = p / 2 * step;
        const int64_t right = p % 2 * step;
        if (y + down >= plan_.height || x + right >= plan_.width) continue;
        const Lanes value = pixels[p / 2][p % 2];
        const auto rounded = (__m512i)_mm512_cvtne2ps_pbh(_mm512_add_ps(value.high, biases.high),
                                                          _mm512_add_ps(value.low, biases.low));
        _mm512_mask_storeu_epi16(out + (down * plan_.width + right) * plan_.channels, mask,
                                 rounded);
      }
    }
  }

  const WinogradConvolution& all_;
  const Plan& plan_;
  const char* weights_;
};

}  // namespace

void run_winograd(const WinogradConvolution& convolution, Units units) {
  const Kernels& kernels = kernels_of(units);
  const Plan plan(convolution);
  const Job job(convolution, plan, transformed_weights(plan, convolution.weights));
  const int64_t groups = ceil_div(plan.tiles.count(), kBlockSide);
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t held = std::max<int64_t>(
      1, std::min(kTransformedBytes / plan.group_bytes(), ceil_div(groups, threads)));
  share_products(kernels, ceil_div(groups, held), [&](int64_t number) {
    thread_local Scratch scratch;
    char* memory = scratch.bytes(held * plan.group_bytes());
    job.run(kernels, number * held, std::min((number + 1) * held, groups), memory);
  });
}

#endif

}  // namespace pokegan
