// Pixel shuffle of maps and of values that are the same at every pixel, with a border of zeros: one
// pass over memory in place of a concatenation, a shuffle and a padding. And its gradient.
#include <algorithm>
#include <vector>

#include "../maps_check.h"
#include "vector.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace pokegan {
namespace {

constexpr int64_t kGrain = 1 << 15;  // values, of a thread
constexpr int64_t kMaxBorder = 1 << 20;
constexpr int kPhases = 4;  // of a 2 x 2 block: top left, top right, bottom left, right

template <typename Word>
using Four = std::array<Word*, kPhases>;

// `count` blocks of four words that lie together, to four rows; and back.
template <typename Word>
POKEGAN_INLINE void part_rest(const Word* in, const Four<Word>& out, int64_t begin, int64_t count) {
  for (int64_t i = begin; i < count; ++i) {
    for (size_t phase = 0; phase < kPhases; ++phase) {
      out[phase][i] = in[static_cast<size_t>(i) * kPhases + phase];
    }
  }
}

template <typename Word>
POKEGAN_INLINE void join_rest(const Four<const Word>& in, Word* out, int64_t begin, int64_t count) {
  for (int64_t i = begin; i < count; ++i) {
    for (size_t phase = 0; phase < kPhases; ++phase) {
      out[static_cast<size_t>(i) * kPhases + phase] = in[phase][i];
    }
  }
}

#if defined(__x86_64__) && defined(__GNUC__)
bool has_avx512() {
  static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
  return has;
}

#define POKEGAN_AVX512 __attribute__((target("avx512f,avx512bw")))

// The forms with a mask of ones, because GCC 12 warns of its own header in those without.
// Place phase * (kLanes / 4) + i of the permuted vector has word 4 i + phase, or the other way.
template <typename Word>
struct Places {
  static constexpr int kLanes = 64 / sizeof(Word);
  alignas(64) Word part[kLanes];
  alignas(64) Word join[kLanes];

  Places() {
    for (int phase = 0; phase < kPhases; ++phase) {
      for (int i = 0; i < kLanes / kPhases; ++i) {
        part[phase * (kLanes / kPhases) + i] = static_cast<Word>(kPhases * i + phase);
        join[kPhases * i + phase] = static_cast<Word>(phase * (kLanes / kPhases) + i);
      }
    }
  }
};

template <typename Word>
POKEGAN_AVX512 POKEGAN_INLINE __m512i permuted(__m512i places, __m512i words) {
  if constexpr (sizeof(Word) == 2) {
    return _mm512_maskz_permutexvar_epi16(0xFFFFFFFFU, places, words);
  } else {
    return _mm512_maskz_permutexvar_epi32(0xFFFF, places, words);
  }
}

template <typename Word>
POKEGAN_AVX512 void part_avx512(const Word* in, const Four<Word>& out, int64_t count) {
  static const Places<Word> kPlaces;
  constexpr int64_t kBlocks = Places<Word>::kLanes / kPhases;
  const __m512i places = _mm512_load_si512(kPlaces.part);
  int64_t i = 0;
  for (; i + kBlocks <= count; i += kBlocks) {
    const __m512i words = permuted<Word>(places, _mm512_loadu_si512(in + i * kPhases));
    const auto store = [&](Word* at, __m128i lane) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at), lane);
    };
    store(out[0] + i, _mm512_maskz_extracti32x4_epi32(0xF, words, 0));
    store(out[1] + i, _mm512_maskz_extracti32x4_epi32(0xF, words, 1));
    store(out[2] + i, _mm512_maskz_extracti32x4_epi32(0xF, words, 2));
    store(out[3] + i, _mm512_maskz_extracti32x4_epi32(0xF, words, 3));
  }
  part_rest(in, out, i, count);
}

template <typename Word>
POKEGAN_AVX512 void join_avx512(const Four<const Word>& in, Word* out, int64_t count) {
  static const Places<Word> kPlaces;
  constexpr int64_t kBlocks = Places<Word>::kLanes / kPhases;
  const __m512i places = _mm512_load_si512(kPlaces.join);
  int64_t i = 0;
  for (; i + kBlocks <= count; i += kBlocks) {
    const auto load = [&](size_t phase) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(in[phase] + i));
    };
    __m512i words = _mm512_zextsi128_si512(load(0));
    words = _mm512_maskz_inserti32x4(0xFFFF, words, load(1), 1);
    words = _mm512_maskz_inserti32x4(0xFFFF, words, load(2), 2);
    words = _mm512_maskz_inserti32x4(0xFFFF, words, load(3), 3);
    _mm512_storeu_si512(out + i * kPhases, permuted<Word>(places, words));
  }
  join_rest(in, out, i, count);
}
#else
bool has_avx512() { return false; }
template <typename Word>
void part_avx512(const Word* in, const Four<Word>& out, int64_t count) {
  part_rest(in, out, 0, count);
}
template <typename Word>
void join_avx512(const Four<const Word>& in, Word* out, int64_t count) {
  join_rest(in, out, 0, count);
}
#endif

template <typename Word>
void part(const Word* in, const Four<Word>& out, int64_t count) {
  has_avx512() ? part_avx512(in, out, count) : part_rest(in, out, 0, count);
}

template <typename Word>
void join(const Four<const Word>& in, Word* out, int64_t count) {
  has_avx512() ? join_avx512(in, out, count) : join_rest(in, out, 0, count);
}

struct Shape {
  int64_t batch;
  int64_t channels;    // of the result that come from the maps
  int64_t everywhere;  // and that are the same at every pixel
  int64_t height;      // of the maps
  int64_t width;
  int64_t before;
  int64_t after;

  int64_t pixel() const { return channels + everywhere; }
  int64_t padded_height() const { return 2 * height + before + after; }
  int64_t row() const { return (2 * width + before + after) * pixel(); }
  int64_t picture() const { return padded_height() * row(); }
  int64_t maps_row() const { return width * kPhases * channels; }
  int64_t grain() const { return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, 2 * row())); }
};

// The two rows that a row of the maps becomes, from their first pixel behind the border.
template <typename Word>
std::array<Word*, 2> rows_of(Word* pictures, const Shape& shape, int64_t n, int64_t y) {
  Word* top = pictures + n * shape.picture() + (2 * y + shape.before) * shape.row();
  return {top + shape.before * shape.pixel(), top + shape.row() + shape.before * shape.pixel()};
}

template <typename Word>
Four<Word> phases_of(const std::array<Word*, 2>& rows, int64_t x, int64_t pixel) {
  return {rows[0] + 2 * x * pixel, rows[0] + (2 * x + 1) * pixel, rows[1] + 2 * x * pixel,
          rows[1] + (2 * x + 1) * pixel};
}

// Zeros left and right of two rows, and all of the rows above the first or below the last.
template <typename Word>
void clear_border(Word* pictures, const Shape& shape, int64_t n, int64_t y) {
  Word* picture = pictures + n * shape.picture();
  const int64_t right = shape.before + 2 * shape.width;
  for (int64_t row = 2 * y + shape.before; row < 2 * y + shape.before + 2; ++row) {
    std::fill_n(picture + row * shape.row(), shape.before * shape.pixel(), Word{});
    std::fill_n(picture + row * shape.row() + right * shape.pixel(), shape.after * shape.pixel(),
                Word{});
  }
  if (y == 0) std::fill_n(picture, shape.before * shape.row(), Word{});
  if (y == shape.height - 1) {
    std::fill_n(picture + (shape.before + 2 * shape.height) * shape.row(),
                shape.after * shape.row(), Word{});
  }
}

template <typename Word>
void shuffle_row(const Word* maps, const Four<const Word>& constant, Word* pictures,
                 const Shape& shape, int64_t n, int64_t y) {
  clear_border(pictures, shape, n, y);
  const auto rows = rows_of(pictures, shape, n, y);
  const Word* in = maps + (n * shape.height + y) * shape.maps_row();
  for (int64_t x = 0; x < shape.width; ++x) {
    const Four<Word> out = phases_of(rows, x, shape.pixel());
    part(in + x * kPhases * shape.channels, out, shape.channels);
    for (size_t phase = 0; phase < kPhases; ++phase) {
      std::copy_n(constant[phase], shape.everywhere, out[phase] + shape.channels);
    }
  }
}

template <typename Word>
void shuffle_all(const Tensor& maps, const Tensor& everywhere, Tensor& out, const Shape& shape) {
  const auto* in = static_cast<const Word*>(maps.const_data_ptr());
  const auto* values = static_cast<const Word*>(everywhere.const_data_ptr());
  auto* pictures = static_cast<Word*>(out.mutable_data_ptr());
  if (shape.height == 0) std::fill_n(pictures, shape.batch * shape.picture(), Word{});
  const int64_t jobs = shape.batch * shape.height;
  torch::stable::parallel_for(0, jobs, shape.grain(), [&](int64_t begin, int64_t end) {
    std::vector<Word> parted(static_cast<size_t>(kPhases * shape.everywhere));
    const auto at = [&](int64_t phase) { return parted.data() + phase * shape.everywhere; };
    int64_t of = -1;
    for (int64_t job = begin; job < end; ++job) {
      const int64_t n = job / shape.height;
      if (n != of) {
        part(values + n * kPhases * shape.everywhere, {at(0), at(1), at(2), at(3)},
             shape.everywhere);
        of = n;
      }
      shuffle_row<Word>(in, {at(0), at(1), at(2), at(3)}, pictures, shape, n, job % shape.height);
    }
  });
}

template <typename Value>
POKEGAN_INLINE void add_row_of(const Value* values, int64_t count, float* sums) {
  for (int64_t i = 0; i < count; ++i) sums[i] += read(values[i]);
}
POKEGAN_CLONES void add_values(const float* values, int64_t count, float* sums) {
  add_row_of(values, count, sums);
}
POKEGAN_CLONES void add_values(const Bfloat16* values, int64_t count, float* sums) {
  add_row_of(values, count, sums);
}

// One row of the maps' gradient, and the sums over it by phase.
template <typename Value, typename Word>
void gather_row(const Value* gradient, Word* maps, float* sums, const Shape& shape, int64_t n,
                int64_t y) {
  const auto rows = rows_of(gradient, shape, n, y);
  Word* out = maps + (n * shape.height + y) * shape.maps_row();
  for (int64_t x = 0; x < shape.width; ++x) {
    const Four<const Value> in = phases_of(rows, x, shape.pixel());
    const auto words = [&](size_t phase) { return reinterpret_cast<const Word*>(in[phase]); };
    join<Word>({words(0), words(1), words(2), words(3)}, out + x * kPhases * shape.channels,
               shape.channels);
    for (size_t phase = 0; phase < kPhases; ++phase) {
      add_values(in[phase] + shape.channels, shape.everywhere,
                 sums + static_cast<int64_t>(phase) * shape.everywhere);
    }
  }
}

template <typename Value, typename Word>
void gather_all(const Tensor& gradient, Tensor& maps, Tensor& everywhere, const Shape& shape) {
  const auto* in = static_cast<const Value*>(gradient.const_data_ptr());
  auto* out = static_cast<Word*>(maps.mutable_data_ptr());
  auto* values = static_cast<Value*>(everywhere.mutable_data_ptr());
  const int64_t jobs = shape.batch * shape.height;
  const int64_t width = kPhases * shape.everywhere;
  std::vector<float> sums(static_cast<size_t>(jobs * width), 0.0F);  // of a row, phase by phase
  torch::stable::parallel_for(0, jobs, shape.grain(), [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; ++job) {
      gather_row(in, out, sums.data() + job * width, shape, job / shape.height, job % shape.height);
    }
  });
  for (int64_t n = 0; n < shape.batch; ++n) {
    for (int64_t i = 0; i < width; ++i) {
      double sum = 0;
      for (int64_t y = 0; y < shape.height; ++y) {
        sum += sums[static_cast<size_t>((n * shape.height + y) * width + i)];
      }
      const int64_t phase = i / shape.everywhere;
      write(values + n * width + i % shape.everywhere * kPhases + phase, static_cast<float>(sum));
    }
  }
}

void check_border(const char* op, int64_t before, int64_t after) {
  STD_TORCH_CHECK(before >= 0 && before <= kMaxBorder && after >= 0 && after <= kMaxBorder, op,
                  ": the border must be 0 to ", kMaxBorder, " wide, got ", before, " and ", after);
}

Shape checked_shape(const char* op, const Tensor& like, int64_t channels, int64_t everywhere,
                    int64_t height, int64_t width, int64_t before, int64_t after) {
  STD_TORCH_CHECK(channels % kPhases == 0 && everywhere % kPhases == 0, op,
                  ": channels must be multiples of 4, got ", channels, " and ", everywhere);
  return {like.size(0), channels / kPhases, everywhere / kPhases, height, width, before, after};
}

Tensor shuffle_cat_cpu(const Tensor& maps, const Tensor& everywhere, int64_t before,
                       int64_t after) {
  constexpr const char* kName = "shuffle_cat";
  check_maps(kName, "maps", maps);
  check_border(kName, before, after);
  STD_TORCH_CHECK(everywhere.dim() == 2, kName, ": everywhere must have the shape [N, E]");
  check_shape(kName, "everywhere", everywhere, maps, {maps.size(0), everywhere.size(1)});
  const Shape shape = checked_shape(kName, maps, maps.size(1), everywhere.size(1), maps.size(2),
                                    maps.size(3), before, after);
  Tensor out = new_maps(
      maps, {shape.batch, shape.pixel(), shape.padded_height(), 2 * shape.width + before + after});
  if (out.numel() == 0) return out;
  const Tensor values = dense(everywhere);
  if (maps.scalar_type() == ScalarType::Float) {
    shuffle_all<uint32_t>(maps, values, out, shape);
  } else {
    shuffle_all<uint16_t>(maps, values, out, shape);
  }
  return out;
}

std::tuple<Tensor, Tensor> shuffle_cat_backward_cpu(const Tensor& gradient, int64_t everywhere,
                                                    int64_t before, int64_t after) {
  constexpr const char* kName = "shuffle_cat_backward";
  check_maps(kName, "gradient", gradient);
  check_border(kName, before, after);
  const int64_t height = gradient.size(2) - before - after;
  const int64_t width = gradient.size(3) - before - after;
  STD_TORCH_CHECK(height >= 0 && width >= 0 && height % 2 == 0 && width % 2 == 0 &&
                      everywhere >= 0 && everywhere <= kPhases * gradient.size(1),
                  kName, ": gradient has not the shape of such a result");
  const Shape shape = checked_shape(kName, gradient, kPhases * gradient.size(1) - everywhere,
                                    everywhere, height / 2, width / 2, before, after);
  Tensor maps =
      new_maps(gradient, {shape.batch, kPhases * shape.channels, shape.height, shape.width});
  Tensor values = new_dense<2>(gradient, {shape.batch, everywhere}, gradient.scalar_type());
  if (gradient.scalar_type() == ScalarType::Float) {
    gather_all<float, uint32_t>(gradient, maps, values, shape);
  } else {
    gather_all<Bfloat16, uint16_t>(gradient, maps, values, shape);
  }
  return {maps, values};
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CPU, library) {
  library.impl("shuffle_cat", TORCH_BOX(&pokegan::shuffle_cat_cpu));
  library.impl("shuffle_cat_backward", TORCH_BOX(&pokegan::shuffle_cat_backward_cpu));
}
