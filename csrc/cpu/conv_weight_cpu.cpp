// The sum over pixels and images is taken in segments, each of some chunks that are packed and then
// multiplied. A thread has a segment to itself, or all of them share one: then a job owns a part of
// the weights, so that no sums are shared. The bits are the same.
#include <vector>

#include "conv_products.h"
#include "conv_scratch.h"

namespace pokegan {

#ifdef POKEGAN_HAS_CONV
namespace {

constexpr int64_t kSums = 4 * 256;              // of 32 x 32
constexpr int64_t kPackedBytes = 3 << 20;       // of a chunk, at most
constexpr int64_t kLeastPackedBytes = 1 << 20;  // smaller ones read rows of x more often
constexpr int64_t kWantedChunks = 3;
constexpr int64_t kSegments = 8;
constexpr int64_t kSegmentBytes = 4 << 20;  // of the sums of all segments

// Some rows of some images. They depend on the shapes alone, as segments do: the same bits for any
// count of threads.
struct Chunks {
  int64_t images;  // a multiple of 32
  int64_t rows;    // of y
};

struct Sizes {
  explicit Sizes(const WeightGradient& gradient)
      : x(gradient.x),
        y(gradient.y),
        stride(gradient.shape.stride),
        padding(gradient.shape.padding),
        kernel_height(gradient.shape.kernel_height),
        kernel_width(gradient.shape.kernel_width),
        x_height(x.height),
        x_width(x.width),
        x_line(x_width * x.pixel_bytes()),
        y_line(y.width * y.pixel_bytes()) {}

  int64_t x_begin(int64_t y_row) const { return std::max<int64_t>(0, y_row * stride - padding); }
  int64_t x_end(int64_t y_row_end) const {
    return std::max<int64_t>(
        0, std::min(x_height, (y_row_end - 1) * stride - padding + kernel_height));
  }
  int64_t x_rows(int64_t y_rows) const {
    return std::min(x_height, (y_rows - 1) * stride + kernel_height);
  }
  int64_t bytes(int64_t y_rows) const { return y_rows * y_line + x_rows(y_rows) * x_line; }

  int64_t sum_bytes() const {
    return kernel_height * kernel_width * x.blocks() * y.blocks() * 2 * kBlockBytes;
  }

  Chunks chunks() const {
    const int64_t whole = bytes(y.height);
    const int64_t units = ceil_div(y.images, kBlockSide);
    const int64_t most =
        sum_bytes() > kSegmentBytes / 2
            ? kPackedBytes
            : std::clamp(units * whole / kWantedChunks, kLeastPackedBytes, kPackedBytes);
    if (whole <= most) return {std::min(units, most / whole) * kBlockSide, y.height};
    int64_t rows = y.height;
    while (rows > 1 && bytes(rows) > most) rows = ceil_div(rows, 2);
    return {kBlockSide, rows};
  }

  const Maps& x;
  const Maps& y;
  int64_t stride;
  int64_t padding;
  int64_t kernel_height;
  int64_t kernel_width;
  int64_t x_height;
  int64_t x_width;
  int64_t x_line;
  int64_t y_line;
};

template <int kColumns>
POKEGAN_AVX512 void write_float(const float* sums, int64_t rows, int64_t columns, int64_t stride,
                                float* out) {
  const uint32_t mask = mask_of(columns);
  const bool whole = kColumns == 2 && columns >= kBlockSide && stride % 16 == 0 &&
                     reinterpret_cast<uintptr_t>(out) % 64 == 0;
  for (int64_t r = 0; r < rows; ++r, out += stride) {
    const float* row = sums + r / 16 * kColumns * 256 + r % 16 * 16;
    if (whole) {  // whole lines, which nobody needs soon
      _mm512_stream_ps(out, _mm512_loadu_ps(row));
      _mm512_stream_ps(out + 16, _mm512_loadu_ps(row + 256));
      continue;
    }
    _mm512_mask_storeu_ps(out, static_cast<__mmask16>(mask), _mm512_loadu_ps(row));
    if constexpr (kColumns == 2) {
      _mm512_mask_storeu_ps(out + 16, static_cast<__mmask16>(mask >> 16),
                            _mm512_loadu_ps(row + 256));
    }
  }
}

template <int kColumns>
POKEGAN_AVX512 void write_bfloat(const float* sums, int64_t rows, int64_t columns, int64_t stride,
                                 uint16_t* out) {
  for (int64_t r = 0; r < rows; ++r, out += stride) {
    const float* row = sums + r / 16 * kColumns * 256 + r % 16 * 16;
    const __m512 high = kColumns == 2 ? _mm512_loadu_ps(row + 256) : _mm512_setzero_ps();
    const auto values = (__m512i)_mm512_cvtne2ps_pbh(high, _mm512_loadu_ps(row));
    _mm512_mask_storeu_epi16(out, mask_of(columns), values);
  }
}

// The images and rows of a chunk, packed: [unit of 32 images, row, column, block].
struct Packed {
  const Sizes& sizes;
  int64_t image;
  int64_t units;
  int64_t y_begin;
  int64_t y_end;
  char* x;
  char* y;

  int64_t x_begin() const { return sizes.x_begin(y_begin); }
  int64_t x_rows() const { return std::max<int64_t>(0, sizes.x_end(y_end) - x_begin()); }
  int64_t y_rows() const { return y_end - y_begin; }
  int64_t jobs() const { return units * (x_rows() + y_rows()); }

  void pack(int64_t job) const {
    const int64_t unit = job / (x_rows() + y_rows());
    const int64_t row = job % (x_rows() + y_rows());
    const int64_t first = image + unit * kBlockSide;
    if (row < x_rows()) {
      pack_pixels<Form::kPairs>(sizes.x, first, x_begin() + row, 0, sizes.x_width,
                                x + (unit * x_rows() + row) * sizes.x_line);
    } else {
      pack_pixels<Form::kPairsTransposed>(sizes.y, first, y_begin + row - x_rows(), 0,
                                          sizes.y.width,
                                          y + (unit * y_rows() + row - x_rows()) * sizes.y_line);
    }
  }
};

// What becomes of the products of a chunk.
struct Totals {
  float* sums;  // [tap, block of x, block of y, 4 tiles], between chunks; or nullptr
  bool first;   // nothing is there to be added to
  bool last;    // they are written
};

struct PartialProducts {
  const WeightGradient& gradient;
  const Sizes& sizes;
  const Kernels& kernels;

  // Rows tap_row of the kernel, block `x_block` of its channels, and blocks of y.
  void run(const Packed& packed, int64_t tap_row, int64_t x_block, int64_t y_block, int64_t y_end,
           const Totals& totals) const {
    std::vector<Step> steps;
    for (; y_block < y_end; ++y_block) {
      for (int64_t tap = 0; tap < sizes.kernel_width; ++tap) {
        multiply(packed, tap_row, tap, x_block, y_block, totals, steps);
      }
    }
  }

  void multiply(const Packed& packed, int64_t tap_row, int64_t tap, int64_t x_block,
                int64_t y_block, const Totals& totals, std::vector<Step>& steps) const {
    // Columns of y for which the tap is inside of x.
    const int64_t shift = tap - sizes.padding;
    const int64_t begin = shift >= 0 ? 0 : ceil_div(-shift, sizes.stride);
    const int64_t room = sizes.x_width - 1 - shift;
    const int64_t end = room < 0 ? 0 : std::min(sizes.y.width, room / sizes.stride + 1);
    steps.clear();
    if (begin < end) {
      for (int64_t unit = 0; unit < packed.units; ++unit) {
        for (int64_t y = packed.y_begin; y < packed.y_end; ++y) {
          const int64_t x = y * sizes.stride - sizes.padding + tap_row;
          if (x < 0 || x >= sizes.x_height) continue;
          steps.push_back({(unit * packed.y_rows() + y - packed.y_begin) * sizes.y_line +
                               begin * sizes.y.pixel_bytes(),
                           (unit * packed.x_rows() + x - packed.x_begin()) * sizes.x_line +
                               (begin * sizes.stride + shift) * sizes.x.pixel_bytes()});
        }
      }
    }
    const Run run{steps.data(), static_cast<int64_t>(steps.size()),
                  std::max<int64_t>(0, end - begin), sizes.y.pixel_bytes(),
                  sizes.stride * sizes.x.pixel_bytes()};
    const int64_t rows = std::min(kBlockSide, sizes.y.channels - y_block * kBlockSide);
    const int64_t columns = std::min(kBlockSide, sizes.x.channels - x_block * kBlockSide);
    const int64_t place = tap_row * sizes.kernel_width + tap;
    alignas(64) float local[kSums];
    float* total = totals.sums == nullptr ? local : totals.sums + place_of(place, x_block, y_block);
    kernels.product[sizes.x.parts - 1][rows > 16 ? 1 : 0][columns > 16 ? 1 : 0](
        run, packed.y + y_block * sizes.y.block_bytes(), packed.x + x_block * sizes.x.block_bytes(),
        total, !totals.first);
    if (totals.last) write(total, rows, columns, place, x_block, y_block);
  }

  int64_t place_of(int64_t place, int64_t x_block, int64_t y_block) const {
    return ((place * sizes.x.blocks() + x_block) * sizes.y.blocks() + y_block) * kSums;
  }

  // Adds up what the segments have of a tap and a block of x, and writes it.
  POKEGAN_AVX512 void finish(int64_t place, int64_t x_block, const float* sums,
                             int64_t segments) const {
    const int64_t segment_sums = sizes.sum_bytes() / 4;
    const int64_t columns = std::min(kBlockSide, sizes.x.channels - x_block * kBlockSide);
    alignas(64) float total[kSums];
    for (int64_t y_block = 0; y_block < sizes.y.blocks(); ++y_block) {
      const int64_t rows = std::min(kBlockSide, sizes.y.channels - y_block * kBlockSide);
      const float* first = sums + place_of(place, x_block, y_block);
      const int64_t used = (rows > 16 ? 2 : 1) * (columns > 16 ? 2 : 1) * kSums / 4;
      for (int64_t i = 0; i < used; i += 16) {
        __m512 sum = _mm512_load_ps(first + i);
        for (int64_t segment = 1; segment < segments; ++segment) {
          sum = _mm512_add_ps(sum, _mm512_load_ps(first + segment * segment_sums + i));
        }
        _mm512_store_ps(total + i, sum);
      }
      write(total, rows, columns, place, x_block, y_block);
    }
  }

  void write(const float* total, int64_t rows, int64_t columns, int64_t place, int64_t x_block,
             int64_t y_block) const {
    const int64_t taps = sizes.kernel_height * sizes.kernel_width;
    const int64_t stride = taps * sizes.x.channels;
    const int64_t offset =
        y_block * kBlockSide * stride + place * sizes.x.channels + x_block * kBlockSide;
    if (gradient.out_float != nullptr) {
      const auto store = columns > 16 ? write_float<2> : write_float<1>;
      store(total, rows, columns, stride, gradient.out_float + offset);
    } else {
      const auto store = columns > 16 ? write_bfloat<2> : write_bfloat<1>;
      store(total, rows, columns, stride, gradient.out_bfloat + offset);
    }
  }
};

}  // namespace

void run_weight_gradient(const WeightGradient& gradient, Units units) {
  thread_local Scratch sum_scratch;
  const Kernels& kernels = kernels_of(units);
  const Sizes sizes(gradient);
  const Chunks chunks = sizes.chunks();
  const int64_t row_chunks = ceil_div(sizes.y.height, chunks.rows);
  const int64_t image_chunks = ceil_div(sizes.y.images, chunks.images);
  const int64_t chunk_units = chunks.images / kBlockSide;
  const PartialProducts product{gradient, sizes, kernels};
  const int64_t most = std::min(kSegments, kSegmentBytes / sizes.sum_bytes());
  const int64_t segment_chunks = ceil_div(row_chunks * image_chunks, std::max<int64_t>(1, most));
  const int64_t segments = ceil_div(row_chunks * image_chunks, segment_chunks);
  float* sums = row_chunks * image_chunks == 1
                    ? nullptr
                    : reinterpret_cast<float*>(sum_scratch.bytes(segments * sizes.sum_bytes()));
  const int64_t threads = torch::stable::get_num_threads();
  const bool apart = segments >= threads;
  const int64_t others = sizes.kernel_height * sizes.x.blocks();
  const int64_t y_jobs = apart ? 1 : std::min(sizes.y.blocks(), ceil_div(4 * threads, others));
  const int64_t y_blocks = ceil_div(sizes.y.blocks(), y_jobs);
  // `share` runs jobs, here or in all threads.
  const auto run_segment = [&](int64_t segment, const auto& share) {
    thread_local Scratch packed_scratch;
    char* y_packed = packed_scratch.bytes(
        chunk_units * (chunks.rows * sizes.y_line + sizes.x_rows(chunks.rows) * sizes.x_line));
    char* x_packed = y_packed + chunk_units * chunks.rows * sizes.y_line;
    const int64_t begin = segment * segment_chunks;
    const int64_t end = std::min(row_chunks * image_chunks, begin + segment_chunks);
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t image = chunk / row_chunks * chunks.images;
      const int64_t row = chunk % row_chunks * chunks.rows;
      const Packed packed{sizes,
                          image,
                          ceil_div(std::min(chunks.images, sizes.y.images - image), kBlockSide),
                          row,
                          std::min(row + chunks.rows, sizes.y.height),
                          x_packed,
                          y_packed};
      const Totals totals{sums == nullptr ? nullptr : sums + segment * sizes.sum_bytes() / 4,
                          chunk == begin, segments == 1 && chunk + 1 == end};
      share(packed.jobs(), [&](int64_t job) { packed.pack(job); });
      share(others * y_jobs, [&](int64_t job) {
        const int64_t y_block = job / others * y_blocks;
        product.run(packed, job % others / sizes.x.blocks(), job % sizes.x.blocks(), y_block,
                    std::min(y_block + y_blocks, sizes.y.blocks()), totals);
      });
    }
  };
  const auto around = [&](const auto& work) {
    kernels.begin();
    work();
    _mm_sfence();  // what was streamed is there for the other threads
    kernels.end();
  };
  if (apart) {
    share_jobs(segments, around, [&](int64_t segment) {
      run_segment(segment, [](int64_t count, const auto& job) {
        for (int64_t i = 0; i < count; ++i) job(i);
      });
    });
  } else {
    for (int64_t segment = 0; segment < segments; ++segment) {
      run_segment(segment, [&](int64_t count, const auto& job) { share_jobs(count, around, job); });
    }
  }
  if (segments == 1) return;
  share_jobs(
      sizes.kernel_height * sizes.kernel_width * sizes.x.blocks(),
      [](const auto& work) {
        work();
        _mm_sfence();  // what was streamed is there for the other threads
      },
      [&](int64_t job) {
        product.finish(job / sizes.x.blocks(), job % sizes.x.blocks(), sums, segments);
      });
}

#else

void run_weight_gradient(const WeightGradient&, Units) {}

#endif

}  // namespace pokegan
