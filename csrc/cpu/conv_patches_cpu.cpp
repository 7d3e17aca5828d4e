// Rows of blocks are consecutive pixels here, of one image after the other: what they read and
// write is near.
#include <cstring>
#include <type_traits>

#include "conv_patches.h"
#include "conv_scratch.h"
#include "vector.h"

namespace pokegan {

#ifdef POKEGAN_HAS_CONV
namespace {

constexpr int64_t kTileValues = 256;
constexpr int64_t kSums = 4 * kTileValues;  // of 32 rows and 32 columns
constexpr int64_t kJobBlocks = 8;           // of 32 pixels that a job makes
constexpr int64_t kHeldBlocks = 16;         // of 32 pixels that are packed, then multiplied
constexpr int64_t kSegments = 16;           // that pixels are summed in, one by one
constexpr int64_t kSegmentBytes = 4 << 20;  // of all their sums

// The pixels of the small side, in the order in which they lie in memory.
struct Place {
  int64_t image;
  int64_t row;
  int64_t column;

  Place(const ConvShape& shape, int64_t pixel)
      : image(pixel / (shape.out_height * shape.out_width)),
        row(pixel / shape.out_width % shape.out_height),
        column(pixel % shape.out_width) {}

  void next_row(const ConvShape& shape) {
    column = 0;
    if (++row < shape.out_height) return;
    row = 0;
    ++image;
  }
};

// Copies a row of a patch, 16 or 32 values at a time, zeros where it is outside of the maps.
POKEGAN_AVX512_INLINE void copy_run(const uint16_t* values, uint32_t inside, bool half,
                                    uint16_t* out) {
  if (half) {
    const __m256i run = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(inside), values);
    _mm256_store_si256(reinterpret_cast<__m256i*>(out), run);
  } else {
    _mm512_store_si512(out, _mm512_maskz_loadu_epi16(inside, values));
  }
}

POKEGAN_AVX512_INLINE void copy_run(const float* values, uint32_t inside, bool half, float* out) {
  _mm512_store_ps(out, _mm512_maskz_loadu_ps(static_cast<__mmask16>(inside), values));
  if (half) return;
  const auto rest = static_cast<__mmask16>(inside >> 16);
  _mm512_store_ps(out + 16, _mm512_maskz_loadu_ps(rest, values + 16));
}

// What the patches of a row of pixels have in common: where they begin, and which rows are there.
template <typename Value>
struct PatchRow {
  const Value* first[kMaxKernel];  // of the patch of column 0
  uint32_t there[kMaxKernel];

  POKEGAN_AVX512_INLINE PatchRow(const ConvShape& shape, const Value* maps, const Place& place) {
    const int64_t line = shape.width * shape.channels;
    const int64_t top = place.row * shape.stride - shape.padding;
    for (int64_t tap = 0; tap < shape.kernel_height; ++tap) {
      const int64_t y = top + tap;
      const bool inside = y >= 0 && y < shape.height;
      // Of what is outside nothing is read.
      first[tap] = maps + (place.image * shape.height + (inside ? y : 0)) * line -
                   shape.padding * shape.channels;
      there[tap] = inside ? 0xFFFFFFFFU : 0;
    }
  }
};

// The patches of `count` pixels from `place` on, in blocks of rows of 32 values; of those that 32
// rows lack, zeros.
template <typename Value>
POKEGAN_AVX512_INLINE void gather_patches(const ConvShape& shape, const PatchLayout& layout,
                                          const Value* maps, Place place, int64_t count,
                                          Value* out) {
  constexpr int64_t kBlockValues = kBlockSide * kBlockSide;
  const bool half = layout.padded < kBlockSide;
  if (count < kBlockSide || layout.values() > layout.rows * layout.padded) {
    std::memset(out, 0, static_cast<size_t>(layout.values() * kBlockSide) * sizeof(Value));
  }
  for (int64_t r = 0; r < count;) {
    const PatchRow<Value> line(shape, maps, place);
    const int64_t end_column = std::min(shape.out_width, place.column + count - r);
    for (; place.column < end_column; ++place.column, ++r) {
      const int64_t left = place.column * shape.stride - shape.padding;
      const int64_t begin = std::max<int64_t>(0, -left) * shape.channels;
      const int64_t end =
          std::max<int64_t>(0, std::min(shape.kernel_width, shape.width - left) * shape.channels);
      const int64_t offset = place.column * shape.stride * shape.channels;
      Value* row = out + r * kBlockSide;
      if (half) {
        const uint32_t inside = mask_of(end) & ~mask_of(begin);
        for (int64_t tap = 0; tap < layout.rows; ++tap) {
          copy_run(line.first[tap] + offset, line.there[tap] & inside, true,
                   row + tap / 2 * kBlockValues + tap % 2 * (kBlockSide / 2));
        }
        continue;
      }
      for (int64_t tap = 0; tap < layout.rows; ++tap) {
        for (int64_t first = 0; first < layout.run; first += kBlockSide, row += kBlockValues) {
          const uint32_t inside = mask_of(std::max<int64_t>(0, end - first)) &
                                  ~mask_of(std::max<int64_t>(0, begin - first));
          copy_run(line.first[tap] + offset + first, line.there[tap] & inside, false, row);
        }
      }
    }
    place.next_row(shape);
  }
}

// 32 pixels from `pixel` on, or as many as there are, in the blocks of `form`.
template <Form form, int kParts>
POKEGAN_AVX512 void pack_patches(const ConvShape& shape, const PatchLayout& layout,
                                 const void* maps, int64_t pixel, int64_t count, char* out) {
  using Value = ValueOf<kParts>;
  const auto* values = static_cast<const Value*>(maps);
  if constexpr (form == Form::kRows && kParts == 1) {
    gather_patches(shape, layout, values, Place(shape, pixel), count,
                   reinterpret_cast<uint16_t*>(out));
  } else {
    alignas(64) Value patches[kBlockSide * kPatchValues];
    gather_patches(shape, layout, values, Place(shape, pixel), count, patches);
    for (int64_t block = 0; block < layout.blocks(); ++block, out += kParts * kBlockBytes) {
      const BlockSource<Value> source{patches + block * kBlockSide * kBlockSide, kBlockSide,
                                      kBlockSide, kBlockSide};
      pack_block<form, kParts>(source, out);
    }
  }
}

template <int kParts>
POKEGAN_AVX512 void pack_outputs(const ConvShape& shape, const void* maps, int64_t pixel,
                                 int64_t count, char* out) {
  const auto* values = static_cast<const ValueOf<kParts>*>(maps) + pixel * shape.outputs;
  ask_ahead(values, static_cast<size_t>(count * shape.outputs) * sizeof(*values));
  for (int64_t o = 0; o < shape.outputs; o += kBlockSide, out += kParts * kBlockBytes) {
    const BlockSource<ValueOf<kParts>> source{values + o, shape.outputs, count, shape.outputs - o};
    pack_block<Form::kPairsTransposed, kParts>(source, out);
  }
}

// Adds the bias and writes `rows` rows of up to 32 columns, `stride` values apart.
template <int kColumns>
POKEGAN_AVX512 void write_rows(const float* sums, int64_t rows, const float* bias, int64_t columns,
                               int64_t stride, float* out) {
  const __m512 low_bias = bias != nullptr ? _mm512_loadu_ps(bias) : _mm512_setzero_ps();
  const __m512 high_bias = bias != nullptr ? _mm512_loadu_ps(bias + 16) : _mm512_setzero_ps();
  const uint32_t mask = mask_of(columns);
  for (int64_t r = 0; r < rows; ++r, out += stride) {
    const float* row = sums + r / 16 * kColumns * kTileValues + r % 16 * 16;
    const __m512 low = _mm512_add_ps(_mm512_load_ps(row), low_bias);
    __m512 high = high_bias;
    if constexpr (kColumns == 2) high = _mm512_add_ps(_mm512_load_ps(row + kTileValues), high_bias);
    store_values(out, mask, low, high);
  }
}

// Multiplies the packed patches of the pixels [begin, end), each product written while the next is
// made.
void write_products(const PatchConvolution& convolution, const PatchLayout& layout,
                    const Kernels& kernels, int64_t begin, int64_t end, const char* packed,
                    float* sums) {
  const int64_t outputs = convolution.shape.outputs;
  const int64_t patch_bytes = layout.blocks() * kBlockBytes;
  const Step start{0, 0};
  const Run run{&start, 1, layout.blocks(), kBlockBytes, kBlockBytes};
  uint16_t* tables[2][kBlockSide];
  Unwritten before{};
  int64_t products = 0;
  for (int64_t pixel = begin; pixel < end; pixel += kBlockSide, packed += patch_bytes) {
    uint16_t** table = tables[(pixel - begin) / kBlockSide % 2];
    const int64_t count = std::min(kBlockSide, end - pixel);
    for (int64_t i = 0; i < count; ++i) {
      table[i] = static_cast<uint16_t*>(convolution.out) + (pixel + i) * outputs;
    }
    for (int64_t o = 0; o < outputs; o += kBlockSide) {
      const int64_t channels = std::min(kBlockSide, outputs - o);
      float* made = sums + products++ % 2 * kSums;
      kernels.product_writing[1][channels > 16 ? 1 : 0](
          run, packed, convolution.weights + o / kBlockSide * patch_bytes, made, before);
      before = {made,  convolution.bias != nullptr ? convolution.bias + o : nullptr,
                table, o,
                count, channels};
      add_to(convolution.written, begin / (kJobBlocks * kBlockSide), o / kBlockSide, mask_of(count),
             before);
    }
  }
  kernels.write(before);
}

// The sums over the pixels of a segment, and of all of them.
struct Segments {
  int64_t count;
  int64_t blocks;  // of 32 pixels, of each
};

// By the shapes alone: the same bits for any count of threads.
Segments segments_of(int64_t pixels, int64_t sum_bytes) {
  const int64_t blocks = blocks_of(pixels);
  const int64_t most = std::max<int64_t>(4, std::min(kSegments, kSegmentBytes / sum_bytes));
  const int64_t each = ceil_div(blocks, most);
  return {ceil_div(blocks, each), each};
}

// One row of the gradient: from the tiles of each segment's sums to [KH, KW, C].
template <typename Value>
void write_weight(const PatchLayout& layout, const float* row, Value* out) {
  for (int64_t tap = 0; tap < layout.rows; ++tap) {
    for (int64_t i = 0; i < layout.run; ++i) {
      const float value = row[tap * layout.padded + i];
      if constexpr (std::is_same_v<Value, float>) {
        *out++ = value;
      } else {
        *out++ = to_bfloat16(value).bits;
      }
    }
  }
}

}  // namespace

void run_patch_convolution(const PatchConvolution& convolution, Units units) {
  const ConvShape& shape = convolution.shape;
  const Kernels& kernels = kernels_of(units);
  const PatchLayout layout(shape);
  const int64_t pixels = shape.images * shape.out_height * shape.out_width;
  const int64_t block_bytes = convolution.parts * kBlockBytes;
  const auto pack = convolution.parts == 1   ? pack_patches<Form::kRows, 1>
                    : convolution.parts == 2 ? pack_patches<Form::kRows, 2>
                                             : pack_patches<Form::kRows, 3>;
  const Step start{0, 0};
  const Run run{&start, 1, layout.blocks(), block_bytes, block_bytes};
  const int64_t jobs = ceil_div(pixels, kJobBlocks * kBlockSide);
  if (convolution.written != nullptr && convolution.parts == 1) {
    convolution.written->begin(jobs, shape.outputs, convolution.out);
  }
  share_products(kernels, jobs, [&](int64_t job) {
    thread_local Scratch scratch;
    auto* sums = reinterpret_cast<float*>(
        scratch.bytes(kJobBlocks * (kSums * 4 + layout.blocks() * block_bytes)));
    char* packed = reinterpret_cast<char*>(sums + kJobBlocks * kSums);
    const int64_t begin = job * kJobBlocks * kBlockSide;
    const int64_t end = std::min(pixels, begin + kJobBlocks * kBlockSide);
    for (int64_t pixel = begin; pixel < end; pixel += kBlockSide) {
      pack(shape, layout, convolution.x, pixel, std::min(kBlockSide, end - pixel),
           packed + (pixel - begin) / kBlockSide * layout.blocks() * block_bytes);
    }
    if (convolution.parts == 1) {
      return write_products(convolution, layout, kernels, begin, end, packed, sums);
    }
    const char* weights = convolution.weights;
    for (int64_t o = 0; o < shape.outputs; o += kBlockSide) {
      const int64_t columns = std::min(kBlockSide, shape.outputs - o);
      const Product product = kernels.product[convolution.parts - 1][1][columns > 16 ? 1 : 0];
      for (int64_t i = 0; i < blocks_of(end - begin); ++i) {
        product(run, packed + i * layout.blocks() * block_bytes, weights, sums + i * kSums, false);
      }
      weights += layout.blocks() * block_bytes;
      const float* bias = convolution.bias != nullptr ? convolution.bias + o : nullptr;
      for (int64_t pixel = begin; pixel < end; pixel += kBlockSide) {
        const int64_t count = std::min(kBlockSide, end - pixel);
        const float* made = sums + (pixel - begin) / kBlockSide * kSums;
        const int64_t place = pixel * shape.outputs + o;
        const auto write = columns > 16 ? write_rows<2> : write_rows<1>;
        write(made, count, bias, columns, shape.outputs,
              static_cast<float*>(convolution.out) + place);
      }
    }
  });
}

void run_patch_weight_gradient(const PatchWeightGradient& gradient, Units units) {
  thread_local Scratch sum_scratch;
  const ConvShape& shape = gradient.shape;
  const Kernels& kernels = kernels_of(units);
  const PatchLayout layout(shape);
  const int64_t pixels = shape.images * shape.out_height * shape.out_width;
  const int64_t x_blocks = layout.blocks();
  const int64_t y_blocks = blocks_of(shape.outputs);
  const int64_t block_bytes = gradient.parts * kBlockBytes;
  const int64_t sum_bytes = x_blocks * y_blocks * kSums * 4;
  const Segments segments = segments_of(pixels, sum_bytes);
  const auto pack_x = gradient.parts == 1   ? pack_patches<Form::kPairs, 1>
                      : gradient.parts == 2 ? pack_patches<Form::kPairs, 2>
                                            : pack_patches<Form::kPairs, 3>;
  const auto pack_y = gradient.parts == 1   ? pack_outputs<1>
                      : gradient.parts == 2 ? pack_outputs<2>
                                            : pack_outputs<3>;
  char* all_sums = sum_scratch.bytes(segments.count * sum_bytes);
  share_products(kernels, segments.count, [&](int64_t job) {
    thread_local Scratch scratch;
    char* x = scratch.bytes(kHeldBlocks * (x_blocks + y_blocks) * block_bytes);
    char* y = x + kHeldBlocks * x_blocks * block_bytes;
    auto* sums = reinterpret_cast<float*>(all_sums + job * sum_bytes);
    const int64_t begin = job * segments.blocks * kBlockSide;
    const int64_t end = std::min(pixels, begin + segments.blocks * kBlockSide);
    for (int64_t pixel = begin; pixel < end; pixel += kHeldBlocks * kBlockSide) {
      const int64_t held = std::min(kHeldBlocks, blocks_of(end - pixel));
      for (int64_t i = 0; i < held; ++i) {
        const int64_t first = pixel + i * kBlockSide;
        const int64_t count = std::min(kBlockSide, end - first);
        pack_x(shape, layout, gradient.x, first, count, x + i * x_blocks * block_bytes);
        pack_y(shape, gradient.y, first, count, y + i * y_blocks * block_bytes);
      }
      for (int64_t o = 0; o < y_blocks; ++o) {
        const int rows = shape.outputs - o * kBlockSide > 16 ? 1 : 0;
        for (int64_t block = 0; block < x_blocks; ++block) {
          const Step start{o * block_bytes, block * block_bytes};
          const Run run{&start, 1, held, y_blocks * block_bytes, x_blocks * block_bytes};
          kernels.product[gradient.parts - 1][rows][1](
              run, y, x, sums + (o * x_blocks + block) * kSums, pixel > begin);
        }
      }
    }
  });
  share_jobs(
      y_blocks, [](const auto& work) { work(); },
      [&](int64_t o_block) {
        float row[kPatchValues];
        const int64_t rows = std::min(kBlockSide, shape.outputs - o_block * kBlockSide);
        const int64_t size = shape.taps() * shape.channels;
        for (int64_t r = 0; r < rows; ++r) {
          std::memset(row, 0, sizeof(row));
          for (int64_t segment = 0; segment < segments.count; ++segment) {
            const auto* sums = reinterpret_cast<const float*>(all_sums + segment * sum_bytes) +
                               o_block * x_blocks * kSums + r / 16 * 2 * kTileValues + r % 16 * 16;
            for (int64_t i = 0; i < layout.values(); ++i) {
              row[i] += sums[i / kBlockSide * kSums + i / 16 % 2 * kTileValues + i % 16];
            }
          }
          const int64_t place = (o_block * kBlockSide + r) * size;
          if (gradient.out_float != nullptr) {
            write_weight(layout, row, gradient.out_float + place);
          } else {
            write_weight(layout, row, gradient.out_bfloat + place);
          }
        }
      });
}

#else

void run_patch_convolution(const PatchConvolution&, Units) {}
void run_patch_weight_gradient(const PatchWeightGradient&, Units) {}

#endif

}  // namespace pokegan
