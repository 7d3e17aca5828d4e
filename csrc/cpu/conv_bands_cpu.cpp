// A job copies some rows of an image, with zeros around them, so that what consecutive places are
// made of by one tap lies side by side. These are the rows of a block: nothing else is packed.
#include <vector>

#include "conv_products.h"
#include "conv_scratch.h"

namespace pokegan {

#ifdef POKEGAN_HAS_CONV
namespace {

constexpr int64_t kCopiedBytes = 512 << 10;  // of a second-level cache
constexpr int64_t kMostWeights = 5 << 18;    // bytes, which are in that cache, too
constexpr int64_t kPlaceBytes = 2 * kBlockSide;
constexpr int64_t kTilePlaces = 16;
constexpr int64_t kSums = 4 * 256;  // of a product: 32 places x 32 channels
constexpr int64_t kLeastRows = 4;
constexpr int64_t kMostPhases = 4;
constexpr double kLeastUsed = 0.85;

// A tap, and how far from `step` times its number the element looks that has it.
struct Offset {
  int64_t distance;
  int64_t tap;
};

// By phase: the taps that elements have, those in the middle all of them.
class PhaseTaps {
 public:
  PhaseTaps(const Axis& axis, const Phases& phases) : by_phase_(phases.count) {
    for (int64_t element = 0; element < axis.size(); ++element) {
      const int64_t origin = element / phases.count * phases.step;
      for (const Axis::Tap* tap = axis.begin(element); tap != axis.end(element); ++tap) {
        add({tap->source - origin, tap->tap},
            by_phase_[static_cast<size_t>(element % phases.count)]);
      }
    }
  }

  const std::vector<Offset>& of(int64_t phase) const {
    return by_phase_[static_cast<size_t>(phase)];
  }
  bool none() const { return last_ < first_; }
  int64_t first() const { return first_; }
  // How many elements of the source `count` neighbours are made of.
  int64_t span(int64_t count, int64_t step) const {
    return (count - 1) * step + last_ - first_ + 1;
  }

 private:
  void add(Offset offset, std::vector<Offset>& taps) {
    for (const Offset& known : taps) {
      if (known.tap == offset.tap) return;
    }
    taps.push_back(offset);
    first_ = std::min(first_, offset.distance);
    last_ = std::max(last_, offset.distance);
  }

  std::vector<std::vector<Offset>> by_phase_;
  int64_t first_ = INT64_MAX;
  int64_t last_ = INT64_MIN;
};

// How the copy of some rows lies, and how places are cut into tiles. A place is what makes a pixel
// of each phase.
//
// Planes [channels / 32, rows % step, columns % step] of [rows / step, pitch] values of 64 bytes.
// The tiles of a row are its own where that leaves none short, otherwise they run through all
// rows, and through what lies between them.
class Layout {
 public:
  explicit Layout(const Gather& gather)
      : gather(gather),
        rows(gather.rows, gather.phases),
        columns(gather.columns, gather.phases),
        step(gather.phases.step),
        width(ceil_div(gather.columns.size(), gather.phases.count)),
        height(ceil_div(gather.rows.size(), gather.phases.count)),
        pitch(columns.none() ? 0 : ceil_div(columns.span(width, step), step)),
        by_row(width % kTilePlaces == 0) {}

  bool none() const { return rows.none() || columns.none(); }
  int64_t plane_rows(int64_t count) const { return ceil_div(rows.span(count, step), step); }
  int64_t plane_bytes(int64_t count) const { return plane_rows(count) * pitch * kPlaceBytes; }
  int64_t block_bytes(int64_t count) const { return step * step * plane_bytes(count); }
  // The last tile may end behind the last plane.
  int64_t bytes(int64_t count) const {
    return gather.source.blocks() * block_bytes(count) + 2 * kTilePlaces * kPlaceBytes;
  }

  int64_t tiles(int64_t count) const {
    return by_row ? count * (width / kTilePlaces)
                  : ceil_div((count - 1) * pitch + width, kTilePlaces);
  }
  // The place that a tile begins with: [row, column] of `pitch` columns.
  int64_t first_place(int64_t tile) const {
    if (!by_row) return tile * kTilePlaces;
    const int64_t in_row = width / kTilePlaces;
    return tile / in_row * pitch + tile % in_row * kTilePlaces;
  }
  double used(int64_t count) const {
    return static_cast<double>(count * width) / static_cast<double>(tiles(count) * kTilePlaces);
  }

  // As many rows as the cache has room for.
  int64_t most_rows() const {
    int64_t count = height;
    while (count > kLeastRows && bytes(count) > kCopiedBytes) count = ceil_div(count, 2);
    return count;
  }

  // Fewer, where there would be too few jobs. Sums of what is written may not depend on threads.
  int64_t band_rows() const {
    constexpr int64_t kJobs = 64;
    const int64_t wanted = gather.written != nullptr
                               ? kJobs
                               : 4 * static_cast<int64_t>(torch::stable::get_num_threads());
    int64_t count = most_rows();
    while (count > kLeastRows && ceil_div(height, count) * gather.source.images < wanted) {
      count = ceil_div(count, 2);
    }
    return count;
  }

  // What the pixels of a phase are made of, in the copy and in the weights.
  std::vector<Step> steps_of(int64_t row_phase, int64_t column_phase, int64_t count) const {
    std::vector<Step> steps;
    for (const Offset& row : rows.of(row_phase)) {
      for (const Offset& column : columns.of(column_phase)) {
        const int64_t down = row.distance - rows.first();
        const int64_t right = column.distance - columns.first();
        steps.push_back(
            {(down % step * step + right % step) * plane_bytes(count) +
                 (down / step * pitch + right / step) * kPlaceBytes,
             (row.tap * gather.kernel_width + column.tap) * gather.source.pixel_bytes()});
      }
    }
    return steps;
  }

  const Gather& gather;
  const PhaseTaps rows;
  const PhaseTaps columns;
  const int64_t step;
  const int64_t width;  // in places
  const int64_t height;
  const int64_t pitch;
  const bool by_row;
};

// Some rows of places of one image.
class Band {
 public:
  Band(const Layout& layout, int64_t image, int64_t begin, int64_t end, char* planes)
      : all_(layout),
        gather_(layout.gather),
        image_(image),
        begin_(begin),
        count_(end - begin),
        planes_(planes) {}

  POKEGAN_AVX512 void copy() const {
    const Maps& source = gather_.source;
    const int64_t blocks = source.blocks();
    const int64_t block_bytes = all_.block_bytes(count_);
    // Of the channels that the last block has; the others are zeros.
    const __mmask32 last = 0xFFFFFFFFU >> (blocks * kBlockSide - source.channels);
    const auto* maps = static_cast<const uint16_t*>(source.data);
    for (int64_t row = 0; row < all_.plane_rows(count_) * all_.step; ++row) {
      const int64_t y = begin_ * all_.step + all_.rows.first() + row;
      const bool there = y >= 0 && y < source.height;
      for (int64_t part = 0; part < all_.step; ++part) {
        const int64_t plane = row % all_.step * all_.step + part;
        char* line =
            planes_ + plane * all_.plane_bytes(count_) + row / all_.step * all_.pitch * kPlaceBytes;
        for (int64_t i = 0; i < all_.pitch; ++i, line += kPlaceBytes) {
          const int64_t x = all_.columns.first() + part + i * all_.step;
          const bool inside = there && x >= 0 && x < source.width;
          const uint16_t* values =
              maps +
              (inside ? ((image_ * source.height + y) * source.width + x) : 0) * source.channels;
          const __mmask32 whole = inside ? 0xFFFFFFFFU : 0;
          if (inside) ask_ahead(values, static_cast<size_t>(source.channels) * 2);
          for (int64_t b = 0; b < blocks; ++b, values += kBlockSide) {
            const __mmask32 mask = b + 1 < blocks ? whole : whole & last;
            _mm512_store_si512(line + b * block_bytes, _mm512_maskz_loadu_epi16(mask, values));
          }
        }
      }
    }
  }

  // Two tiles at a time, which all weights are multiplied with. What is between rows goes to
  // `waste`, of as many values as a pixel. The band is share `share` of what is written.
  void multiply(const Kernels& kernels, const std::vector<std::vector<Step>>& steps,
                uint16_t* waste, int64_t share) const {
    alignas(64) float sums[2][kSums];
    uint16_t* places[2][2 * kTilePlaces];
    Unwritten before{};
    int64_t products = 0;
    int64_t tables = 0;
    const int64_t tiles = all_.tiles(count_);
    for (int64_t tile = 0; tile < tiles; tile += 2) {
      const int64_t count = std::min<int64_t>(2, tiles - tile);
      const int64_t first = all_.first_place(tile);
      const int64_t apart = all_.first_place(tile + count - 1) - first;
      for (int64_t phase = 0; phase < phases() * phases(); ++phase) {
        uint16_t** table = places[tables++ % 2];
        uint32_t found = 0;
        for (int64_t i = 0; i < count; ++i) {
          found |= find_pixels(first + i * apart, phase, waste, table + i * kTilePlaces)
                   << i * kTilePlaces;
        }
        const std::vector<Step>& of_phase = steps[static_cast<size_t>(phase)];
        const Run run{of_phase.data(),
                      static_cast<int64_t>(of_phase.size()),
                      gather_.source.blocks(),
                      all_.block_bytes(count_),
                      kBlockBytes,
                      apart * kPlaceBytes};
        for (int64_t panel = 0; panel < blocks_of(gather_.channels); ++panel) {
          const int64_t channels = std::min(kBlockSide, gather_.channels - panel * kBlockSide);
          float* made = sums[products++ % 2];
          kernels.product_writing[count - 1][channels > 16 ? 1 : 0](
              run, planes_ + first * kPlaceBytes,
              gather_.weights + panel * gather_.taps * gather_.source.pixel_bytes(), made, before);
          before = {
              made,    gather_.panel_bias(panel), table, panel * kBlockSide, count * kTilePlaces,
              channels};
          add_to(gather_.written, share, panel, found, before);
        }
      }
    }
    kernels.write(before);
  }

 private:
  int64_t phases() const { return gather_.phases.count; }

  // Where the pixels of a phase go that 16 places make; returns which of them there are.
  uint32_t find_pixels(int64_t place, int64_t phase, uint16_t* waste, uint16_t** table) const {
    const int64_t height = gather_.rows.size();
    const int64_t width = gather_.columns.size();
    int64_t row = place / all_.pitch;
    int64_t column = place % all_.pitch;
    uint32_t found = 0;
    for (int64_t i = 0; i < kTilePlaces; ++i) {
      const int64_t y = (begin_ + row) * phases() + phase / phases();
      const int64_t x = column * phases() + phase % phases();
      const bool there = row < count_ && column < all_.width && y < height && x < width;
      table[i] = there ? static_cast<uint16_t*>(gather_.out) +
                             ((image_ * height + y) * width + x) * gather_.channels
                       : waste;
      found |= static_cast<uint32_t>(there) << i;
      if (++column == all_.pitch) {
        column = 0;
        ++row;
      }
    }
    return found;
  }

  const Layout& all_;
  const Gather& gather_;
  int64_t image_;
  int64_t begin_;
  int64_t count_;
  char* planes_;
};

}  // namespace

bool suits_bands(const Gather& gather) {
  const Maps& source = gather.source;
  const int64_t weights = blocks_of(gather.channels) * gather.taps * source.pixel_bytes();
  if (source.parts != 1 || weights > kMostWeights) return false;
  if (gather.phases.count > kMostPhases) return false;
  const Layout layout(gather);
  if (layout.none()) return false;
  const int64_t rows = layout.most_rows();
  return layout.bytes(rows) <= 2 * kCopiedBytes && layout.used(rows) >= kLeastUsed;
}

void run_bands(const Gather& gather, Units units) {
  const Kernels& kernels = kernels_of(units);
  const Layout layout(gather);
  const int64_t rows = layout.band_rows();
  const int64_t bands = ceil_div(layout.height, rows);
  // Of whole bands, and of what the last one has.
  std::vector<std::vector<Step>> steps[2];
  const int64_t last_rows = layout.height - (bands - 1) * rows;
  for (int64_t row = 0; row < gather.phases.count; ++row) {
    for (int64_t column = 0; column < gather.phases.count; ++column) {
      steps[0].push_back(layout.steps_of(row, column, rows));
      steps[1].push_back(layout.steps_of(row, column, last_rows));
    }
  }
  if (gather.written != nullptr) {
    gather.written->begin(gather.source.images * bands, gather.channels, gather.out);
  }
  share_products(kernels, gather.source.images * bands, [&](int64_t job) {
    thread_local Scratch scratch;
    const int64_t begin = job % bands * rows;
    const int64_t end = std::min(begin + rows, layout.height);
    const int64_t waste = ceil_div(2 * blocks_of(gather.channels) * kBlockSide, 64) * 64;
    char* memory = scratch.bytes(waste + layout.bytes(rows));
    const Band band(layout, job / bands, begin, end, memory + waste);
    band.copy();
    band.multiply(kernels, steps[end - begin == rows ? 0 : 1], reinterpret_cast<uint16_t*>(memory),
                  job);
  });
}

#else

bool suits_bands(const Gather&) { return false; }
void run_bands(const Gather&, Units) {}

#endif

}  // namespace pokegan
