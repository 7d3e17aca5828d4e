// Random fills on CUDA: a thread makes one block of four words of one sample.
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>

#include "../box_muller.h"
#include "../philox.h"
#include "../random_check.h"
#include "stream.h"

namespace pokegan {
namespace {

constexpr int kThreads = 128;

struct Place {
  int64_t seed;
  int64_t stream;
  const int64_t* step;
  const int64_t* samples;
};

struct AsWords {
  using Value = int64_t;
  __device__ __forceinline__ void convert(const Words4& words, Value (&value)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) value[i] = words.word[i];
  }
};

struct AsUniform {
  using Value = float;
  __device__ __forceinline__ void convert(const Words4& words, Value (&value)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) value[i] = uniform_from(words.word[i]);
  }
};

struct AsSymmetric {
  using Value = float;
  __device__ __forceinline__ void convert(const Words4& words, Value (&value)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) value[i] = symmetric_from(words.word[i]);
  }
};

__device__ __forceinline__ void store(float* at, float value) { *at = value; }
__device__ __forceinline__ void store(__nv_bfloat16* at, float value) {
  *at = __float2bfloat16_rn(value);
}

template <typename Stored>
struct AsNormal {
  using Value = Stored;
  NormalScale scale;
  __device__ __forceinline__ void convert(const Words4& words, Value (&value)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      const NormalPair pair = box_muller(words.word[i], words.word[i + 1]);
      store(value + i, scale.of(pair.first));
      store(value + i + 1, scale.of(pair.second));
    }
  }
};

template <typename As>
__global__ void fill_kernel(As as, Place place, int64_t rows, int64_t count,
                            typename As::Value* out) {
  const int64_t blocks = (count + 3) / 4;
  const int64_t jobs = rows * blocks;
  const RandomKey key = random_key(place.seed, place.stream, *place.step);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t job = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; job < jobs;
       job += stride) {
    const int64_t row = job / blocks;
    const int64_t first = 4 * (job % blocks);
    const Words4 words = random_words(key, static_cast<uint32_t>(place.samples[row]),
                                      static_cast<uint32_t>(first / 4));
    typename As::Value value[4];
    as.convert(words, value);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (first + i < count) out[row * count + first + i] = value[i];
    }
  }
}

template <typename As>
Tensor fill(const As& as, int64_t seed, int64_t stream, const Tensor& step, const Tensor& samples,
            int64_t count, ScalarType dtype) {
  const torch::stable::accelerator::DeviceGuard guard(samples.get_device_index());
  const Tensor places = dense(samples);
  const int64_t rows = places.size(0);
  Tensor out = new_dense<2>(places, {rows, count}, dtype);
  const int64_t jobs = rows * ((count + 3) / 4);
  if (jobs == 0) return out;
  const int64_t wanted = (jobs + kThreads - 1) / kThreads;
  const auto grid = static_cast<unsigned>(wanted < 65535 ? wanted : 65535);
  const Place place{seed, stream, step.const_data_ptr<int64_t>(), places.const_data_ptr<int64_t>()};
  fill_kernel<As><<<grid, kThreads, 0, current_stream(samples)>>>(
      as, place, rows, count, static_cast<typename As::Value*>(out.mutable_data_ptr()));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

Tensor random_words_cuda(int64_t seed, int64_t stream, const Tensor& step, const Tensor& samples,
                         int64_t count) {
  check_fill("random_words", step, samples, count);
  return fill(AsWords{}, seed, stream, step, samples, count, ScalarType::Long);
}

Tensor random_uniform_cuda(int64_t seed, int64_t stream, const Tensor& step, const Tensor& samples,
                           int64_t count, bool symmetric) {
  check_fill("random_uniform", step, samples, count);
  if (symmetric) {
    return fill(AsSymmetric{}, seed, stream, step, samples, count, ScalarType::Float);
  }
  return fill(AsUniform{}, seed, stream, step, samples, count, ScalarType::Float);
}

Tensor random_normal_cuda(int64_t seed, int64_t stream, const Tensor& step, const Tensor& samples,
                          int64_t count, double mean, double deviation, ScalarType dtype) {
  check_normal(step, samples, count, mean, deviation, dtype);
  const NormalScale scale{static_cast<float>(mean), static_cast<float>(deviation)};
  if (dtype == ScalarType::Float) {
    return fill(AsNormal<float>{scale}, seed, stream, step, samples, count, dtype);
  }
  return fill(AsNormal<__nv_bfloat16>{scale}, seed, stream, step, samples, count, dtype);
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CUDA, library) {
  library.impl("random_words", TORCH_BOX(&pokegan::random_words_cuda));
  library.impl("random_uniform", TORCH_BOX(&pokegan::random_uniform_cuda));
  library.impl("random_normal", TORCH_BOX(&pokegan::random_normal_cuda));
}
