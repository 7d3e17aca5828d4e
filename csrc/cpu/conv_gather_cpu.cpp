// A job packs the pixels that some rows of 32 images are made of into blocks that stay in the
// second-level cache, and multiplies them with one panel of the weights after the other.
#include "conv_products.h"
#include "conv_scratch.h"

namespace pokegan {

#ifdef POKEGAN_HAS_CONV
namespace {

constexpr int64_t kPackedBytes = 768 << 10;  // of a second-level cache; weights need the rest
constexpr int64_t kRowPixels = 4;            // whose sums are written together
constexpr int64_t kSums = 4 * 256;           // of a pixel: 32 images x 32 channels

struct Span {
  int64_t begin;
  int64_t end;
  int64_t size() const { return end - begin; }
};

// What the elements [begin, end) of an axis are made of.
Span sources_of(const Axis& axis, Span written) {
  Span span{INT64_MAX, 0};
  for (const Axis::Tap* tap = axis.begin(written.begin); tap != axis.begin(written.end); ++tap) {
    span.begin = std::min(span.begin, tap->source);
    span.end = std::max(span.end, tap->source + 1);
  }
  return span.end == 0 ? Span{0, 0} : span;
}

// How many elements of the second axis are read for `size` elements of the first, about.
int64_t most_sources(const Axis& axis, int64_t size) {
  int64_t most = 0;
  for (int64_t begin = 0; begin < axis.size(); begin += size) {
    most = std::max(most, sources_of(axis, {begin, std::min(begin + size, axis.size())}).size());
  }
  return most;
}

// A job writes some rows and columns of 32 images, some of their channels.
struct Plan {
  int64_t rows;
  int64_t columns;
  int64_t panels;
  int64_t row_jobs;
  int64_t column_jobs;
  int64_t panel_jobs;
  int64_t image_jobs;
  int64_t packed_bytes;  // at most
  int64_t jobs() const { return row_jobs * column_jobs * panel_jobs * image_jobs; }
};

Plan plan_of(const Gather& gather) {
  Plan plan{};
  const int64_t pixel = gather.source.pixel_bytes();
  plan.columns = gather.columns.size();
  const int64_t one_row = most_sources(gather.rows, 1) * pixel;
  while (plan.columns > 4 && one_row * most_sources(gather.columns, plan.columns) > kPackedBytes) {
    plan.columns = ceil_div(plan.columns, 2);
  }
  const int64_t columns = most_sources(gather.columns, plan.columns) * pixel;
  plan.image_jobs = ceil_div(gather.source.images, kBlockSide);
  plan.column_jobs = ceil_div(gather.columns.size(), plan.columns);
  // Wanted are few enough rows for the cache, and enough jobs for the threads.
  const int64_t wanted = 2 * static_cast<int64_t>(torch::stable::get_num_threads());
  const int64_t others = plan.image_jobs * plan.column_jobs;
  plan.rows = ceil_div(gather.rows.size(), std::max<int64_t>(1, ceil_div(wanted, others)));
  while (plan.rows > 1 && columns * most_sources(gather.rows, plan.rows) > kPackedBytes) {
    --plan.rows;
  }
  plan.row_jobs = ceil_div(gather.rows.size(), plan.rows);
  const int64_t panels = blocks_of(gather.channels);
  plan.panel_jobs = std::min(panels, ceil_div(wanted, others * plan.row_jobs));
  plan.panels = ceil_div(panels, plan.panel_jobs);
  plan.panel_jobs = ceil_div(panels, plan.panels);
  plan.packed_bytes = columns * most_sources(gather.rows, plan.rows);
  return plan;
}

// Adds the bias and writes the sums of `count` pixels of a row of `images` images.
template <int kColumns>
POKEGAN_AVX512 void write_pixels(const float* sums, int64_t count, const float* bias,
                                 int64_t images, int64_t image_stride, int64_t channels,
                                 int64_t pixel_stride, float* out) {
  const __m512 low_bias = bias != nullptr ? _mm512_loadu_ps(bias) : _mm512_setzero_ps();
  const __m512 high_bias = bias != nullptr ? _mm512_loadu_ps(bias + 16) : _mm512_setzero_ps();
  const uint32_t mask = mask_of(channels);
  for (int64_t image = 0; image < images; ++image) {
    const float* row = sums + image / 16 * kColumns * 256 + image % 16 * 16;
    float* place = out + image * image_stride;
    for (int64_t x = 0; x < count; ++x, row += kSums, place += pixel_stride) {
      const __m512 low = _mm512_add_ps(_mm512_load_ps(row), low_bias);
      __m512 high = high_bias;
      if constexpr (kColumns == 2) high = _mm512_add_ps(_mm512_load_ps(row + 256), high_bias);
      store_values(place, mask, low, high);
    }
  }
}

struct Job {
  const Gather& gather;
  const Kernels& kernels;
  int64_t image;
  int64_t share;  // of what is written, that row 0 belongs to; each row is one
  Span rows;
  Span columns;
  Span panels;
  Span source_rows;
  Span source_columns;
  char* packed;
  float* sums;

  int64_t pixel_bytes() const { return gather.source.pixel_bytes(); }
  int64_t line_bytes() const { return source_columns.size() * pixel_bytes(); }

  void run() const {
    char* out = packed;
    for (int64_t y = source_rows.begin; y < source_rows.end; ++y, out += line_bytes()) {
      pack_pixels<Form::kRows>(gather.source, image, y, source_columns.begin, source_columns.end,
                               out);
    }
    if (gather.source.parts == 1) return multiply_writing();
    for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
      for (int64_t y = rows.begin; y < rows.end; ++y) {
        for (int64_t x = columns.begin; x < columns.end; x += kRowPixels) {
          multiply(panel, y, {x, std::min(x + kRowPixels, columns.end)});
        }
      }
    }
  }

  // Each product of one part is written while the next is made.
  void multiply_writing() const {
    const int64_t count = std::min(kBlockSide, gather.source.images - image);
    const int64_t image_values = gather.rows.size() * gather.columns.size() * gather.channels;
    uint16_t* images[kBlockSide];
    for (int64_t i = 0; i < count; ++i) {
      images[i] = static_cast<uint16_t*>(gather.out) + (image + i) * image_values;
    }
    Unwritten before{};
    int64_t products = 0;
    for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
      const int64_t channels = std::min(kBlockSide, gather.channels - panel * kBlockSide);
      const auto product = kernels.product_writing[count > 16 ? 1 : 0][channels > 16 ? 1 : 0];
      for (int64_t y = rows.begin; y < rows.end; ++y) {
        for (int64_t x = columns.begin; x < columns.end; ++x) {
          Step steps[kMaxKernel * kMaxKernel];
          const Run run{steps, steps_of(y, x, steps), gather.source.blocks(),
                        gather.source.block_bytes(), gather.source.block_bytes()};
          float* made = sums + products++ % 2 * kSums;
          product(run, packed, gather.weights + panel * gather.taps * pixel_bytes(), made, before);
          const int64_t pixel = y * gather.columns.size() + x;
          before = {made,   gather.panel_bias(panel),
                    images, pixel * gather.channels + panel * kBlockSide,
                    count,  channels};
          add_to(gather.written, share + y, panel, mask_of(count), before);
        }
      }
    }
    kernels.write(before);
  }

  // The same of several parts: a panel of the channels of some pixels of row y. They are written
  // together: stores that miss every cache would hold up the products in between.
  void multiply(int64_t panel, int64_t y, Span span) const {
    const int64_t images = std::min(kBlockSide, gather.source.images - image);
    const int64_t channels = std::min(kBlockSide, gather.channels - panel * kBlockSide);
    const int two_rows = images > 16 ? 1 : 0;
    const int two_columns = channels > 16 ? 1 : 0;
    const Product product = kernels.product[gather.source.parts - 1][two_rows][two_columns];
    const char* weights = gather.weights + panel * gather.taps * pixel_bytes();
    for (int64_t x = span.begin; x < span.end; ++x) {
      Step steps[kMaxKernel * kMaxKernel];
      const Run run{steps, steps_of(y, x, steps), gather.source.blocks(),
                    gather.source.block_bytes(), gather.source.block_bytes()};
      product(run, packed, weights, sums + (x - span.begin) * kSums, false);
    }
    const int64_t width = gather.columns.size();
    const int64_t image_stride = gather.rows.size() * width * gather.channels;
    const auto write = channels > 16 ? write_pixels<2> : write_pixels<1>;
    write(sums, span.size(), gather.panel_bias(panel), images, image_stride, channels,
          gather.channels,
          static_cast<float*>(gather.out) + image * image_stride +
              (y * width + span.begin) * gather.channels + panel * kBlockSide);
  }

  int64_t steps_of(int64_t y, int64_t x, Step* steps) const {
    int64_t count = 0;
    for (const Axis::Tap* row = gather.rows.begin(y); row != gather.rows.end(y); ++row) {
      const int64_t line = (row->source - source_rows.begin) * line_bytes();
      for (const Axis::Tap* column = gather.columns.begin(x); column != gather.columns.end(x);
           ++column) {
        steps[count++] = {line + (column->source - source_columns.begin) * pixel_bytes(),
                          (row->tap * gather.kernel_width + column->tap) * pixel_bytes()};
      }
    }
    return count;
  }
};

}  // namespace

void run_gather(const Gather& gather, Units units) {
  if (suits_bands(gather)) return run_bands(gather, units);
  const Kernels& kernels = kernels_of(units);
  const Plan plan = plan_of(gather);
  const int64_t panels = blocks_of(gather.channels);
  if (gather.written != nullptr && gather.source.parts == 1) {
    gather.written->begin(plan.image_jobs * plan.column_jobs * gather.rows.size(), gather.channels,
                          gather.out);
  }
  share_products(kernels, plan.jobs(), [&](int64_t number) {
    thread_local Scratch scratch;
    int64_t rest = number;
    const auto next = [&](int64_t jobs, int64_t step, int64_t size) {
      const int64_t begin = rest % jobs * step;
      rest /= jobs;
      return Span{begin, std::min(begin + step, size)};
    };
    const Span chosen_panels = next(plan.panel_jobs, plan.panels, panels);
    const int64_t column_job = rest % plan.column_jobs;
    const Span columns = next(plan.column_jobs, plan.columns, gather.columns.size());
    const Span rows = next(plan.row_jobs, plan.rows, gather.rows.size());
    char* memory = scratch.bytes(kRowPixels * kSums * 4 + plan.packed_bytes);
    Job{gather,
        kernels,
        rest * kBlockSide,
        (rest * plan.column_jobs + column_job) * gather.rows.size(),
        rows,
        columns,
        chosen_panels,
        sources_of(gather.rows, rows),
        sources_of(gather.columns, columns),
        memory + kRowPixels * kSums * 4,
        reinterpret_cast<float*>(memory)}
        .run();
  });
}

#else

void run_gather(const Gather&, Units) {}

#endif

}  // namespace pokegan
