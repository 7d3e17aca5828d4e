// Random fills on the CPU: Philox over lanes of consecutive blocks, threads over runs of lanes.
#include <algorithm>

#include "../box_muller.h"
#include "../philox.h"
#include "../random_check.h"
#include "vector.h"

namespace pokegan {
namespace {

constexpr int kLanes = 32;
constexpr int64_t kGrain = 512;  // blocks of four words

struct Lanes {
  uint32_t sample[kLanes];
  uint32_t block[kLanes];
  uint32_t word[4][kLanes];
};

POKEGAN_CLONES void draw(const RandomKey& key, Lanes& lanes) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const Words4 words = random_words(key, lanes.sample[lane], lanes.block[lane]);
    lanes.word[0][lane] = words.word[0];
    lanes.word[1][lane] = words.word[1];
    lanes.word[2][lane] = words.word[2];
    lanes.word[3][lane] = words.word[3];
  }
}

// What a fill makes of the words of one lane set: value[i][lane] from word[i][lane].
struct AsWords {
  using Value = int64_t;
  static void convert(const Lanes& lanes, Value (*value)[kLanes]) {
    for (int i = 0; i < 4; ++i) std::copy_n(lanes.word[i], kLanes, value[i]);
  }
};

POKEGAN_CLONES void to_uniform(const uint32_t* word, float* value) {
  for (int i = 0; i < 4 * kLanes; ++i) value[i] = uniform_from(word[i]);
}

POKEGAN_CLONES void to_symmetric(const uint32_t* word, float* value) {
  for (int i = 0; i < 4 * kLanes; ++i) value[i] = symmetric_from(word[i]);
}

POKEGAN_CLONES void to_normal(const uint32_t* radius, const uint32_t* angle, float* first,
                              float* second) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const NormalPair pair = box_muller(radius[lane], angle[lane]);
    first[lane] = pair.first;
    second[lane] = pair.second;
  }
}

struct AsUniform {
  using Value = float;
  static void convert(const Lanes& lanes, Value (*value)[kLanes]) {
    to_uniform(lanes.word[0], value[0]);
  }
};

struct AsSymmetric {
  using Value = float;
  static void convert(const Lanes& lanes, Value (*value)[kLanes]) {
    to_symmetric(lanes.word[0], value[0]);
  }
};

struct AsNormal {
  using Value = float;
  static void convert(const Lanes& lanes, Value (*value)[kLanes]) {
    to_normal(lanes.word[0], lanes.word[1], value[0], value[1]);
    to_normal(lanes.word[2], lanes.word[3], value[2], value[3]);
  }
};

// Block `job` of all: the samples' blocks one after the other.
template <typename As>
void fill_blocks(const RandomKey& key, const int64_t* samples, int64_t count, int64_t begin,
                 int64_t end, typename As::Value* out) {
  const int64_t blocks = (count + 3) / 4;
  Lanes lanes{};
  typename As::Value value[4][kLanes];
  for (int64_t first = begin; first < end; first += kLanes) {
    const int used = static_cast<int>(std::min<int64_t>(kLanes, end - first));
    int64_t row = first / blocks;
    int64_t block = first % blocks;
    const int64_t first_row = row;
    const int64_t first_block = block;
    for (int lane = 0; lane < used; ++lane) {
      lanes.sample[lane] = static_cast<uint32_t>(samples[row]);
      lanes.block[lane] = static_cast<uint32_t>(block);
      if (++block == blocks) {
        block = 0;
        ++row;
      }
    }
    draw(key, lanes);
    As::convert(lanes, value);
    row = first_row;
    block = first_block;
    for (int lane = 0; lane < used; ++lane) {
      typename As::Value* target = out + row * count + 4 * block;
      const int wanted = static_cast<int>(std::min<int64_t>(4, count - 4 * block));
      for (int i = 0; i < wanted; ++i) target[i] = value[i][lane];
      if (++block == blocks) {
        block = 0;
        ++row;
      }
    }
  }
}

template <typename As>
Tensor fill(const char* op, int64_t seed, int64_t stream, const Tensor& step, const Tensor& samples,
            int64_t count, ScalarType dtype) {
  check_fill(op, step, samples, count);
  const Tensor places = dense(samples);
  Tensor out = new_dense<2>(places, {places.size(0), count}, dtype);
  const int64_t jobs = places.size(0) * ((count + 3) / 4);
  if (jobs == 0) return out;
  const RandomKey key = random_key(seed, stream, *step.const_data_ptr<int64_t>());
  const int64_t* rows = places.const_data_ptr<int64_t>();
  auto* values = out.mutable_data_ptr<typename As::Value>();
  torch::stable::parallel_for(0, jobs, kGrain, [&](int64_t begin, int64_t end) {
    fill_blocks<As>(key, rows, count, begin, end, values);
  });
  return out;
}

Tensor random_words_cpu(int64_t seed, int64_t stream, const Tensor& step, const Tensor& samples,
                        int64_t count) {
  return fill<AsWords>("random_words", seed, stream, step, samples, count, ScalarType::Long);
}

Tensor random_uniform_cpu(int64_t seed, int64_t stream, const Tensor& step, const Tensor& samples,
                          int64_t count, bool symmetric) {
  const auto fill_as = symmetric ? &fill<AsSymmetric> : &fill<AsUniform>;
  return fill_as("random_uniform", seed, stream, step, samples, count, ScalarType::Float);
}

Tensor random_normal_cpu(int64_t seed, int64_t stream, const Tensor& step, const Tensor& samples,
                         int64_t count) {
  return fill<AsNormal>("random_normal", seed, stream, step, samples, count, ScalarType::Float);
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CPU, library) {
  library.impl("random_words", TORCH_BOX(&pokegan::random_words_cpu));
  library.impl("random_uniform", TORCH_BOX(&pokegan::random_uniform_cpu));
  library.impl("random_normal", TORCH_BOX(&pokegan::random_normal_cpu));
}
