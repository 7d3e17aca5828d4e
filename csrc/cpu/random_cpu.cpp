// Random fills on the CPU: Philox over rows of blocks of one sample, or lanes of blocks of several
// where a sample has fewer; threads over runs of blocks.
#include <algorithm>
#include <numeric>

#include "../box_muller.h"
#include "../random_check.h"
#include "philox_lanes.h"
#include "philox_rows.h"
#include "vector.h"

namespace pokegan {
namespace {

constexpr int64_t kGrain = 512;  // blocks of four words
constexpr int kValues = 4 * kLanes;
static_assert(kValues == kRowWords);

// What a fill makes of the words of a row or of a lane set, in their order.
POKEGAN_CLONES void to_integer(const uint32_t* word, int64_t* value) {
  for (int i = 0; i < kValues; ++i) value[i] = word[i];
}

POKEGAN_CLONES void to_uniform(const uint32_t* word, float* value) {
  for (int i = 0; i < kValues; ++i) value[i] = uniform_from(word[i]);
}

POKEGAN_CLONES void to_symmetric(const uint32_t* word, float* value) {
  for (int i = 0; i < kValues; ++i) value[i] = symmetric_from(word[i]);
}

POKEGAN_INLINE void make_normals(const uint32_t* __restrict word, float* __restrict value,
                                 NormalScale scale) {
  for (int i = 0; i < kValues; i += 2) {
    const NormalPair pair = box_muller(word[i], word[i + 1]);
    value[i] = scale.of(pair.first);
    value[i + 1] = scale.of(pair.second);
  }
}

// In two loops, because one over pairs of halves is not vectorised. None is a NaN.
POKEGAN_INLINE void make_normals(const uint32_t* __restrict word, Bfloat16* __restrict value,
                                 NormalScale scale) {
  float wide[kValues];
  make_normals(word, wide, scale);
  for (int i = 0; i < kValues; ++i) value[i] = to_bfloat16_finite(wide[i]);
}

// Clones cannot be templates, and work in vectors of 8, which takes half as long again.
#if defined(__x86_64__) && defined(__GNUC__)
#define POKEGAN_TO_NORMAL(Value)                                                         \
  POKEGAN_CLONES void to_normal(const uint32_t* word, Value* value, NormalScale scale) { \
    make_normals(word, value, scale);                                                    \
  }                                                                                      \
  __attribute__((target("avx512f,avx512bw"))) void to_normal_avx512(                     \
      const uint32_t* word, Value* value, NormalScale scale) {                           \
    make_normals(word, value, scale);                                                    \
  }                                                                                      \
  void to_normal_widest(const uint32_t* word, Value* value, NormalScale scale) {         \
    has_avx512() ? to_normal_avx512(word, value, scale) : to_normal(word, value, scale); \
  }

bool has_avx512() {
  static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
  return has;
}
#else
#define POKEGAN_TO_NORMAL(Value)                                                 \
  void to_normal_widest(const uint32_t* word, Value* value, NormalScale scale) { \
    make_normals(word, value, scale);                                            \
  }
#endif
POKEGAN_TO_NORMAL(float)
POKEGAN_TO_NORMAL(Bfloat16)
#undef POKEGAN_TO_NORMAL

// Calls `take` with each run of blocks of one row: (row, its first block, count, how many came
// before). `blocks` is what a row has.
template <typename Take>
POKEGAN_INLINE void split_by_row(int64_t first, int64_t used, int64_t blocks, const Take& take) {
  int64_t row = first / blocks;
  int64_t block = first % blocks;
  for (int64_t done = 0; done < used; ++row, block = 0) {
    const int64_t run = std::min(used - done, blocks - block);
    take(row, block, run, done);
    done += run;
  }
}

// `convert` makes values of the words of a row or a lane set.
template <typename Value, typename Convert>
struct Fill {
  RandomKey key;
  Convert convert;
  const int64_t* samples;
  int64_t count;
  Value* out;

  int64_t blocks() const { return (count + 3) / 4; }
};

// At most a lane set of blocks from `first` on, of any rows.
template <typename Value, typename Convert>
void fill_lanes(const Fill<Value, Convert>& fill, int64_t first, int64_t used) {
  Lanes lanes{};
  Value value[kValues];
  const int64_t blocks = fill.blocks();
  split_by_row(first, used, blocks, [&](int64_t row, int64_t block, int64_t run, int64_t done) {
    std::fill_n(lanes.sample + done, run, static_cast<uint64_t>(fill.samples[row]));
    std::iota(lanes.block + done, lanes.block + done + run, static_cast<uint64_t>(block));
  });
  draw_lanes(fill.key, lanes);
  fill.convert(lanes.word[0], value);
  split_by_row(first, used, blocks, [&](int64_t row, int64_t block, int64_t run, int64_t done) {
    std::copy_n(value + 4 * done, std::min(4 * run, fill.count - 4 * block),
                fill.out + row * fill.count + 4 * block);
  });
}

// Block `job` of all: the samples' blocks one after the other.
template <typename Value, typename Convert>
void fill_blocks(const Fill<Value, Convert>& fill, int64_t begin, int64_t end) {
  const int64_t blocks = fill.blocks();
  for (int64_t first = begin; first < end;) {
    const int64_t row = first / blocks;
    const int64_t value = 4 * (first % blocks);
    const int64_t used = std::min<int64_t>(kLanes, end - first);
    if (used == kRowBlocks && fill.count - value >= kRowWords) {
      uint32_t word[kRowWords];
      draw_row(fill.key, static_cast<uint32_t>(fill.samples[row]), static_cast<uint32_t>(value / 4),
               word);
      fill.convert(word, fill.out + row * fill.count + value);
    } else {
      fill_lanes(fill, first, used);
    }
    first += used;
  }
}

template <typename Value, typename Convert>
Tensor fill(const Convert& convert, int64_t seed, int64_t stream, const Tensor& step,
            const Tensor& samples, int64_t count, ScalarType dtype) {
  const Tensor places = dense(samples);
  Tensor out = new_dense<2>(places, {places.size(0), count}, dtype);
  const int64_t jobs = places.size(0) * ((count + 3) / 4);
  if (jobs == 0) return out;
  const Fill<Value, Convert> all{random_key(seed, stream, *step.const_data_ptr<int64_t>()), convert,
                                 places.const_data_ptr<int64_t>(), count,
                                 static_cast<Value*>(out.mutable_data_ptr())};
  torch::stable::parallel_for(0, jobs, kGrain,
                              [&](int64_t begin, int64_t end) { fill_blocks(all, begin, end); });
  return out;
}

Tensor random_words_cpu(int64_t seed, int64_t stream, const Tensor& step, const Tensor& samples,
                        int64_t count) {
  check_fill("random_words", step, samples, count);
  return fill<int64_t>(&to_integer, seed, stream, step, samples, count, ScalarType::Long);
}

Tensor random_uniform_cpu(int64_t seed, int64_t stream, const Tensor& step, const Tensor& samples,
                          int64_t count, bool symmetric) {
  check_fill("random_uniform", step, samples, count);
  return fill<float>(symmetric ? &to_symmetric : &to_uniform, seed, stream, step, samples, count,
                     ScalarType::Float);
}

Tensor random_normal_cpu(int64_t seed, int64_t stream, const Tensor& step, const Tensor& samples,
                         int64_t count, double mean, double deviation, ScalarType dtype) {
  check_normal(step, samples, count, mean, deviation, dtype);
  const NormalScale scale{static_cast<float>(mean), static_cast<float>(deviation)};
  const auto convert = [scale](const uint32_t* word, auto* value) {
    to_normal_widest(word, value, scale);
  };
  const auto fill_as = dtype == ScalarType::Float ? &fill<float, decltype(convert)>
                                                  : &fill<Bfloat16, decltype(convert)>;
  return fill_as(convert, seed, stream, step, samples, count, dtype);
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CPU, library) {
  library.impl("random_words", TORCH_BOX(&pokegan::random_words_cpu));
  library.impl("random_uniform", TORCH_BOX(&pokegan::random_uniform_cpu));
  library.impl("random_normal", TORCH_BOX(&pokegan::random_normal_cpu));
}
