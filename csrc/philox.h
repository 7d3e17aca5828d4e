// Counted randomness: Philox4x32-10 (Salmon et al., SC 2011) and what is made from its words.
// No torch types here. pokegan/ops/random.py is the same in plain PyTorch.
//
// Word i of a sample comes from the counter (i / 4, sample, step, stream) under the key
// (low, high half of the seed); uniforms use the top 24 bits of a word.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"

namespace pokegan {

struct Words4 {
  uint32_t word[4];
};

constexpr int kPhiloxRounds = 10;
constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53U;
constexpr uint32_t kPhiloxMultiplier1 = 0xCD9E8D57U;
constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9U;
constexpr uint32_t kPhiloxWeyl1 = 0xBB67AE85U;

POKEGAN_HOST_DEVICE Words4 philox4x32(Words4 counter, uint32_t key0, uint32_t key1) {
#if defined(__CUDA_ARCH__)
#pragma unroll
#endif
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t product0 = static_cast<uint64_t>(kPhiloxMultiplier0) * counter.word[0];
    const uint64_t product1 = static_cast<uint64_t>(kPhiloxMultiplier1) * counter.word[2];
    counter = {{static_cast<uint32_t>(product1 >> 32) ^ counter.word[1] ^ key0,
                static_cast<uint32_t>(product1),
                static_cast<uint32_t>(product0 >> 32) ^ counter.word[3] ^ key1,
                static_cast<uint32_t>(product0)}};
    key0 += kPhiloxWeyl0;
    key1 += kPhiloxWeyl1;
  }
  return counter;
}

// Where a run's numbers come from: everything of the counter but the sample and the block.
struct RandomKey {
  uint64_t seed;
  uint32_t stream;
  uint32_t step;
};

// Words 4 * block to 4 * block + 3 of a sample.
POKEGAN_HOST_DEVICE Words4 random_words(const RandomKey& key, uint32_t sample, uint32_t block) {
  return philox4x32({{block, sample, key.step, key.stream}}, static_cast<uint32_t>(key.seed),
                    static_cast<uint32_t>(key.seed >> 32));
}

// The seed's bits are taken as they are; stream and step modulo 2^32.
POKEGAN_HOST_DEVICE RandomKey random_key(int64_t seed, int64_t stream, int64_t step) {
  return {static_cast<uint64_t>(seed), static_cast<uint32_t>(stream), static_cast<uint32_t>(step)};
}

// [0, 1), exact: 24 bits fit a float.
POKEGAN_HOST_DEVICE float uniform_from(uint32_t word) {
  return static_cast<float>(static_cast<int32_t>(word >> 8)) * (1.0F / 16777216.0F);
}

// [-1, 1), exact: 2 u - 1 of the uniform u.
POKEGAN_HOST_DEVICE float symmetric_from(uint32_t word) {
  return static_cast<float>(static_cast<int32_t>(word >> 8) - 8388608) * (1.0F / 8388608.0F);
}

}  // namespace pokegan
