// Soft-label losses on CUDA: one block walks the batch, so a loss with its slopes is one launch and
// its sums have one order.
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>

#include <tuple>
#include <type_traits>
#include <vector>

#include "../soft_labels_check.h"
#include "stream.h"

namespace pokegan {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

struct Labels {
  LabelRule rule;
  int64_t seed;
  int64_t stream;
  const int64_t* step;
  const int64_t* samples;
};

template <typename Scalar>
struct Logits {
  const Scalar* real;
  const Scalar* fake;
  int64_t count;
};

template <typename Scalar>
struct Arithmetic {
  using Value = float;
};
template <>
struct Arithmetic<double> {
  using Value = double;
};

__device__ __forceinline__ float load(float value) { return value; }
__device__ __forceinline__ double load(double value) { return value; }
__device__ __forceinline__ float load(__nv_bfloat16 value) { return __bfloat162float(value); }

// The sum over the block, in every thread; the same order every time.
__device__ __forceinline__ double block_sum(double value) {
  __shared__ double sums[kWarps];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFU, value, offset);
  }
  __syncthreads();  // the sums of an earlier call have been read
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  double total = 0;
  for (int warp = 0; warp < kWarps; ++warp) total += sums[warp];
  return total;
}

// The means of the logits, for the form that needs them.
template <LossForm kForm, typename Value, typename Scalar>
__device__ __forceinline__ Means<Value> logit_means(const Logits<Scalar>& logits) {
  if constexpr (kForm != LossForm::kRagan) {
    return {Value(0), Value(0)};
  } else {
    double real = 0;
    double fake = 0;
    for (int64_t i = threadIdx.x; i < logits.count; i += kThreads) {
      real += load(logits.real[i]);
      fake += load(logits.fake[i]);
    }
    const double count = static_cast<double>(logits.count);
    const double real_sum = block_sum(real);
    return {static_cast<Value>(real_sum / count), static_cast<Value>(block_sum(fake) / count)};
  }
}

template <LossForm kForm, typename Scalar, typename Value = typename Arithmetic<Scalar>::Value>
__global__ void __launch_bounds__(kThreads)
    loss_kernel(Logits<Scalar> logits, Labels labels, Value* loss, Value* real_slopes,
                Value* fake_slopes) {
  const RandomKey key = random_key(labels.seed, labels.stream, *labels.step);
  const Means<Value> means = logit_means<kForm, Value>(logits);
  const double count = static_cast<double>(logits.count);
  const Value scale = Value(1) / static_cast<Value>(logits.count);
  double sum = 0;
  double real_sum = 0;
  double fake_sum = 0;
  for (int64_t i = threadIdx.x; i < logits.count; i += kThreads) {
    const Targets targets =
        soft_targets(random_words(key, static_cast<uint32_t>(labels.samples[i]), 0), labels.rule);
    const Cost<Value> cost = pair_cost<kForm, Value>(load(logits.real[i]), load(logits.fake[i]),
                                                     targets.real, targets.fake, means);
    sum += cost.loss;
    real_slopes[i] = cost.real_slope * scale;
    fake_slopes[i] = cost.fake_slope * scale;
    if constexpr (kForm == LossForm::kRagan) {
      real_sum += cost.real_slope;
      fake_sum += cost.fake_slope;
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) *loss = static_cast<Value>(sum / count);
  if constexpr (kForm == LossForm::kRagan) {
    // The slopes' means flow back through the means of the other side's logits.
    const Value real = static_cast<Value>(block_sum(real_sum) / (count * count));
    const Value fake = static_cast<Value>(block_sum(fake_sum) / (count * count));
    for (int64_t i = threadIdx.x; i < logits.count; i += kThreads) {
      real_slopes[i] -= fake;
      fake_slopes[i] -= real;
    }
  }
}

__global__ void targets_kernel(Labels labels, int64_t count, float* out) {
  const RandomKey key = random_key(labels.seed, labels.stream, *labels.step);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += stride) {
    const Targets targets =
        soft_targets(random_words(key, static_cast<uint32_t>(labels.samples[i]), 0), labels.rule);
    out[i] = targets.real;
    out[count + i] = targets.fake;
  }
}

unsigned blocks_of(int64_t count) {
  const int64_t blocks = (count + kThreads - 1) / kThreads;
  return static_cast<unsigned>(blocks < 4096 ? blocks : 4096);
}

// Calls `run` with a null pointer of the logits' type.
template <typename Call>
void with_type(ScalarType dtype, const Call& call) {
  if (dtype == ScalarType::Double) {
    call(static_cast<double*>(nullptr));
  } else if (dtype == ScalarType::Float) {
    call(static_cast<float*>(nullptr));
  } else {
    call(static_cast<__nv_bfloat16*>(nullptr));
  }
}

template <typename Scalar>
Logits<Scalar> logits_of(const Tensor& real, const Tensor& fake) {
  return {static_cast<const Scalar*>(real.const_data_ptr()),
          static_cast<const Scalar*>(fake.const_data_ptr()), real.size(0)};
}

std::tuple<Tensor, Tensor, Tensor> soft_labels_cuda(const Tensor& real, const Tensor& fake,
                                                    const Tensor& samples, const Tensor& step,
                                                    int64_t seed, int64_t stream, int64_t form,
                                                    const std::vector<double>& rule) {
  check_soft_labels(real, fake, samples, step, form);
  const LabelRule label_rule = check_labels("soft_labels", rule);
  const torch::stable::accelerator::DeviceGuard guard(real.get_device_index());
  const Tensor x = dense(real);
  const Tensor y = dense(fake);
  const Tensor places = dense(samples);
  const Labels labels{label_rule, seed, stream, step.const_data_ptr<int64_t>(),
                      places.const_data_ptr<int64_t>()};
  const ScalarType dtype =
      real.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  Tensor loss = new_dense<0>(x, {}, dtype);
  Tensor real_slopes = new_dense<1>(x, {x.size(0)}, dtype);
  Tensor fake_slopes = new_dense<1>(x, {x.size(0)}, dtype);
  with_type(real.scalar_type(), [&](auto* scalar) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    using Value = typename Arithmetic<Scalar>::Value;
    with_form(form, [&](auto constant) {
      loss_kernel<decltype(constant)::value, Scalar><<<1, kThreads, 0, current_stream(x)>>>(
          logits_of<Scalar>(x, y), labels, loss.mutable_data_ptr<Value>(),
          real_slopes.mutable_data_ptr<Value>(), fake_slopes.mutable_data_ptr<Value>());
    });
  });
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {loss, real_slopes, fake_slopes};
}

Tensor label_targets_cuda(const Tensor& samples, const Tensor& step, int64_t seed, int64_t stream,
                          const std::vector<double>& rule) {
  check_place("label_targets", step, samples);
  const LabelRule label_rule = check_labels("label_targets", rule);
  const torch::stable::accelerator::DeviceGuard guard(samples.get_device_index());
  const Tensor places = dense(samples);
  const int64_t count = places.size(0);
  Tensor out = new_dense<2>(places, {2, count}, ScalarType::Float);
  if (count == 0) return out;
  const Labels labels{label_rule, seed, stream, step.const_data_ptr<int64_t>(),
                      places.const_data_ptr<int64_t>()};
  targets_kernel<<<blocks_of(count), kThreads, 0, current_stream(places)>>>(
      labels, count, out.mutable_data_ptr<float>());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CUDA, library) {
  library.impl("soft_labels", TORCH_BOX(&pokegan::soft_labels_cuda));
  library.impl("label_targets", TORCH_BOX(&pokegan::label_targets_cuda));
}
