// Dropout on CUDA: a thread takes four values of a sample that lie together in memory. In
// channels_last they share one block of four words; in planes each has a block of its own.
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>

#include <type_traits>

#include "../dropout_check.h"
#include "stream.h"

namespace pokegan {
namespace {

constexpr int kThreads = 256;

template <typename Value>
using Real = std::conditional_t<std::is_same_v<Value, double>, double, float>;

__device__ __forceinline__ float load(float value) { return value; }
__device__ __forceinline__ double load(double value) { return value; }
__device__ __forceinline__ float load(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ __forceinline__ void store(float* at, float value) { *at = value; }
__device__ __forceinline__ void store(double* at, double value) { *at = value; }
__device__ __forceinline__ void store(__nv_bfloat16* at, float value) {
  *at = __float2bfloat16_rn(value);
}

// What one load or store of the widest kind moves; a double needs two.
template <typename Value>
struct alignas(sizeof(Value) < 4 ? 8 : 16) Four {
  Value value[4];
};

template <typename Value>
struct Arguments {
  const Value* in;
  Value* out;
  const int64_t* step;
  const int64_t* samples;
  int64_t seed;
  int64_t stream;
  int64_t rows;
  int64_t share;
  uint32_t count;  // of a row
  uint32_t channels;
  uint32_t pixels;
  uint32_t limit;
  Real<Value> scale;
  bool whole;  // every four are aligned, and none is cut off by the end of a row
};

template <typename Value, DropoutOrder kOrder>
__global__ void __launch_bounds__(kThreads) dropout_kernel(Arguments<Value> args) {
  const int64_t fours = (static_cast<int64_t>(args.count) + 3) / 4;
  const int64_t jobs = args.rows * fours;
  const RandomKey first_key = random_key(args.seed, args.stream, *args.step);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t job = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; job < jobs;
       job += stride) {
    const int64_t row = job / fours;
    const uint32_t first = static_cast<uint32_t>(job - row * fours) * 4;
    const int used = static_cast<int>(args.count - first < 4 ? args.count - first : 4);
    const RandomKey key = dropout_key(first_key, row, args.share);
    const auto sample = static_cast<uint32_t>(__ldg(args.samples + row % args.share));
    const Value* in = args.in + row * args.count + first;
    Value* out = args.out + row * args.count + first;

    Four<Value> four{};
    if (args.whole) {
      four = *reinterpret_cast<const Four<Value>*>(in);
    } else {
      for (int i = 0; i < used; ++i) four.value[i] = in[i];
    }
    Words4 words{};
    uint32_t drawn = 0xFFFFFFFFU;  // no block: a row has less than 2^31 words
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t word = dropout_word<kOrder>(first + i, args.channels, args.pixels);
      if (word / 4 != drawn) {
        drawn = word / 4;
        words = random_words(key, sample, drawn);
      }
      const uint32_t part = word % 4;
      const uint32_t low = part & 1U ? words.word[1] : words.word[0];
      const uint32_t high = part & 1U ? words.word[3] : words.word[2];
      const Real<Value> factor = dropout_factor(part & 2U ? high : low, args.limit, args.scale);
      store(&four.value[i], load(four.value[i]) * factor);
    }
    if (args.whole) {
      *reinterpret_cast<Four<Value>*>(out) = four;
    } else {
      for (int i = 0; i < used; ++i) out[i] = four.value[i];
    }
  }
}

template <typename Value>
void launch(const Arguments<Value>& args, DropoutOrder order, cudaStream_t queue) {
  const int64_t jobs = args.rows * ((static_cast<int64_t>(args.count) + 3) / 4);
  const int64_t wanted = (jobs + kThreads - 1) / kThreads;
  const auto grid = static_cast<unsigned>(wanted < 65535 ? wanted : 65535);
  switch (order) {
    case DropoutOrder::kInOrder:
      dropout_kernel<Value, DropoutOrder::kInOrder><<<grid, kThreads, 0, queue>>>(args);
      break;
    case DropoutOrder::kPlanes:
      dropout_kernel<Value, DropoutOrder::kPlanes><<<grid, kThreads, 0, queue>>>(args);
      break;
    case DropoutOrder::kInterleavedMaps:
      dropout_kernel<Value, DropoutOrder::kInterleavedMaps><<<grid, kThreads, 0, queue>>>(args);
      break;
    case DropoutOrder::kPlanarMaps:
      dropout_kernel<Value, DropoutOrder::kPlanarMaps><<<grid, kThreads, 0, queue>>>(args);
      break;
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename Value>
bool aligned(const void* at) {
  return reinterpret_cast<uintptr_t>(at) % alignof(Four<Value>) == 0;
}

template <typename Value>
void run_all(const DropoutValues& values, Tensor& out, const Tensor& step, const Tensor& samples,
             int64_t seed, int64_t stream, const DropoutRule& rule, cudaStream_t queue) {
  const auto* in = static_cast<const Value*>(values.tensor.const_data_ptr());
  auto* to = static_cast<Value*>(out.mutable_data_ptr());
  Real<Value> scale = rule.scale;
  if constexpr (std::is_same_v<Value, __nv_bfloat16>) {
    scale = __bfloat162float(__float2bfloat16_rn(rule.scale));
  }
  const Arguments<Value> args{in,
                              to,
                              step.const_data_ptr<int64_t>(),
                              samples.const_data_ptr<int64_t>(),
                              seed,
                              stream,
                              values.rows,
                              samples.size(0),
                              static_cast<uint32_t>(values.count),
                              static_cast<uint32_t>(values.channels),
                              static_cast<uint32_t>(values.pixels),
                              rule.limit,
                              scale,
                              values.count % 4 == 0 && aligned<Value>(in) && aligned<Value>(to)};
  launch(args, values.order, queue);
}

Tensor dropout_cuda(const Tensor& values, const Tensor& step, const Tensor& samples, int64_t seed,
                    int64_t stream, double p, bool maps) {
  check_dropout(values, step, samples, stream, p, maps);
  const torch::stable::accelerator::DeviceGuard guard(values.get_device_index());
  const DropoutValues given = to_dropout_values(values, maps);
  STD_TORCH_CHECK(given.count <= INT32_MAX, "dropout: values must be less than 2^31 a sample");
  Tensor out = torch::stable::empty_like(given.tensor);
  if (out.numel() == 0) return out;
  const cudaStream_t queue = current_stream(values);
  const Tensor places = dense(samples);
  const DropoutRule rule = dropout_rule(p);
  if (values.scalar_type() == ScalarType::Float) {
    run_all<float>(given, out, step, places, seed, stream, rule, queue);
  } else if (values.scalar_type() == ScalarType::Double) {
    run_all<double>(given, out, step, places, seed, stream, rule, queue);
  } else {
    run_all<__nv_bfloat16>(given, out, step, places, seed, stream, rule, queue);
  }
  return out;
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CUDA, library) {
  library.impl("dropout", TORCH_BOX(&pokegan::dropout_cuda));
}
