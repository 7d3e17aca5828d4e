// Random fills on the CPU: Philox over lanes of consecutive blocks, threads over runs of lanes.
#include <algorithm>
#include <numeric>

#include "../box_muller.h"
#include "../random_check.h"
#include "philox_lanes.h"
#include "vector.h"

namespace pokegan {
namespace {

constexpr int64_t kGrain = 512;  // blocks of four words
constexpr int kValues = 4 * kLanes;

// What a fill makes of the words of a lane set, in their order.
POKEGAN_CLONES void to_integer(const uint32_t* word, int64_t* value) {
  for (int i = 0; i < kValues; ++i) value[i] = word[i];
}

POKEGAN_CLONES void to_uniform(const uint32_t* word, float* value) {
  for (int i = 0; i < kValues; ++i) value[i] = uniform_from(word[i]);
}

POKEGAN_CLONES void to_symmetric(const uint32_t* word, float* value) {
  for (int i = 0; i < kValues; ++i) value[i] = symmetric_from(word[i]);
}

POKEGAN_CLONES void to_normal(const uint32_t* __restrict__ word, float* __restrict__ value) {
  for (int i = 0; i < kValues; i += 2) {
    const NormalPair pair = box_muller(word[i], word[i + 1]);
    value[i] = pair.first;
    value[i + 1] = pair.second;
  }
}

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

// Block `job` of all: the samples' blocks one after the other.
template <typename Value>
void fill_blocks(const RandomKey& key, void (*convert)(const uint32_t*, Value*),
                 const int64_t* samples, int64_t count, int64_t begin, int64_t end, Value* out) {
  const int64_t blocks = (count + 3) / 4;
  Lanes lanes{};
  Value value[kValues];
  for (int64_t first = begin; first < end; first += kLanes) {
    const int64_t used = std::min<int64_t>(kLanes, end - first);
    split_by_row(first, used, blocks, [&](int64_t row, int64_t block, int64_t run, int64_t done) {
      std::fill_n(lanes.sample + done, run, static_cast<uint64_t>(samples[row]));
      std::iota(lanes.block + done, lanes.block + done + run, static_cast<uint64_t>(block));
    });
    draw_lanes(key, lanes);
    convert(lanes.word[0], value);
    split_by_row(first, used, blocks, [&](int64_t row, int64_t block, int64_t run, int64_t done) {
      std::copy_n(value + 4 * done, std::min(4 * run, count - 4 * block),
                  out + row * count + 4 * block);
    });
  }
}

template <typename Value>
Tensor fill(const char* op, void (*convert)(const uint32_t*, Value*), int64_t seed, int64_t stream,
            const Tensor& step, const Tensor& samples, int64_t count, ScalarType dtype) {
  check_fill(op, step, samples, count);
  const Tensor places = dense(samples);
  Tensor out = new_dense<2>(places, {places.size(0), count}, dtype);
  const int64_t jobs = places.size(0) * ((count + 3) / 4);
  if (jobs == 0) return out;
  const RandomKey key = random_key(seed, stream, *step.const_data_ptr<int64_t>());
  const int64_t* rows = places.const_data_ptr<int64_t>();
  auto* values = out.mutable_data_ptr<Value>();
  torch::stable::parallel_for(0, jobs, kGrain, [&](int64_t begin, int64_t end) {
    fill_blocks(key, convert, rows, count, begin, end, values);
  });
  return out;
}

Tensor random_words_cpu(int64_t seed, int64_t stream, const Tensor& step, const Tensor& samples,
                        int64_t count) {
  return fill("random_words", &to_integer, seed, stream, step, samples, count, ScalarType::Long);
}

Tensor random_uniform_cpu(int64_t seed, int64_t stream, const Tensor& step, const Tensor& samples,
                          int64_t count, bool symmetric) {
  return fill("random_uniform", symmetric ? &to_symmetric : &to_uniform, seed, stream, step,
              samples, count, ScalarType::Float);
}

Tensor random_normal_cpu(int64_t seed, int64_t stream, const Tensor& step, const Tensor& samples,
                         int64_t count) {
  return fill("random_normal", &to_normal, seed, stream, step, samples, count, ScalarType::Float);
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CPU, library) {
  library.impl("random_words", TORCH_BOX(&pokegan::random_words_cpu));
  library.impl("random_uniform", TORCH_BOX(&pokegan::random_uniform_cpu));
  library.impl("random_normal", TORCH_BOX(&pokegan::random_normal_cpu));
}
