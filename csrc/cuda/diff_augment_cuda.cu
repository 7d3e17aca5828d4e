// diff_augment on CUDA. A picture that one block can take is one launch: the block sums it, then
// reads it again from the cache. Larger ones are two: partial sums, then the map.
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>

#include <optional>
#include <type_traits>

#include "../diff_augment_check.h"
#include "stream.h"

namespace pokegan {
namespace {

constexpr int kWarp = 32;
constexpr int kThreads = 256;           // of a block that shares a picture with others
constexpr int kAloneThreads = 1024;     // at most, of a block that has a picture to itself
constexpr int64_t kBlockPixels = 4096;  // what one block takes

template <typename Value>
using Real = std::conditional_t<std::is_same_v<Value, double>, double, float>;

__device__ __forceinline__ float load(const float* at) { return __ldg(at); }
__device__ __forceinline__ double load(const double* at) { return __ldg(at); }
__device__ __forceinline__ float load(const __nv_bfloat16* at) { return __bfloat162float(*at); }
__device__ __forceinline__ void store(float* at, float value) { *at = value; }
__device__ __forceinline__ void store(double* at, double value) { *at = value; }
__device__ __forceinline__ void store(__nv_bfloat16* at, float value) {
  *at = __float2bfloat16_rn(value);
}

template <typename Value>
struct Arguments {
  const Value* in;
  Value* out;
  Real<Value>* partial;  // [batch, blocks of a picture], or nullptr
  const int64_t* step;
  const int64_t* samples;
  RandomKey key;  // its step is filled in on the device
  Policy policy;
  int64_t batch;
  int height;
  int width;
  Real<Value> fill;
  bool adjoint;
  bool linear;

  __device__ __forceinline__ int pixels() const { return height * width; }
  __device__ __forceinline__ int64_t picture(int64_t sample) const { return sample * 3 * pixels(); }
};

// How far apart the pixels and the channels of a picture lie.
template <bool kInterleaved>
struct Strides {
  int pixel;
  int channel;
  __device__ __forceinline__ explicit Strides(int pixels)
      : pixel(kInterleaved ? 3 : 1), channel(kInterleaved ? 1 : pixels) {}
};

// The same sum in every thread and in every run: a fixed tree over the block.
template <typename Sum>
__device__ __forceinline__ Sum block_sum(Sum value) {
  __shared__ Sum of_warp[kWarp];
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value += __shfl_down_sync(0xFFFFFFFFU, value, offset);
  }
  __syncthreads();  // the last use of of_warp is over
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = value;
  __syncthreads();
  Sum sum = 0;
  for (int warp = 0; warp < static_cast<int>(blockDim.x) / kWarp; ++warp) sum += of_warp[warp];
  return sum;
}

// The sum over this block's share [begin, end) of a picture; in the adjoint, of what was kept.
template <typename Value, bool kInterleaved>
__device__ __forceinline__ Real<Value> sum_pixels(const Arguments<Value>& args, const Value* in,
                                                  const Augmentation& augmentation, int begin,
                                                  int end) {
  const Strides<kInterleaved> strides(args.pixels());
  Real<Value> sum = 0;
  for (int pixel = begin + threadIdx.x; pixel < end; pixel += blockDim.x) {
    const int y = pixel / args.width;
    if (args.adjoint && !augmentation.keeps(y, pixel - y * args.width)) continue;
    const Value* at = in + pixel * strides.pixel;
    sum += load(at) + load(at + strides.channel) + load(at + 2 * strides.channel);
  }
  return block_sum(sum);
}

template <typename Value, bool kInterleaved>
__device__ __forceinline__ void map_pixels(const Arguments<Value>& args, const Value* in,
                                           Value* out, const Augmentation& augmentation,
                                           Real<Value> sum, int begin, int end) {
  const Strides<kInterleaved> strides(args.pixels());
  const ColourMap<Real<Value>> map =
      colour_map(augmentation, sum / static_cast<Real<Value>>(3 * args.pixels()), args.linear);
  const int down = static_cast<int>(augmentation.down);
  const int right = static_cast<int>(augmentation.right);
  for (int pixel = begin + threadIdx.x; pixel < end; pixel += blockDim.x) {
    const int y = pixel / args.width;
    const int x = pixel - y * args.width;
    // Forward, (y, x) is of the output and its source lies up and left; backward, the reverse.
    const int other_y = args.adjoint ? y + down : y - down;
    const int other_x = args.adjoint ? x + right : x - right;
    const bool kept =
        args.adjoint ? augmentation.keeps(other_y, other_x) : augmentation.keeps(y, x);
    Real<Value> red = 0, green = 0, blue = 0;
    if (kept) {
      const Value* at = in + (other_y * args.width + other_x) * strides.pixel;
      red = load(at);
      green = load(at + strides.channel);
      blue = load(at + 2 * strides.channel);
    }
    if (args.policy.colour && (kept || args.adjoint)) {
      const Real<Value> part = map.pixel_part(red, green, blue);
      red = map(red, part);
      green = map(green, part);
      blue = map(blue, part);
    } else if (!kept && !args.adjoint && !augmentation.hole.has(y, x)) {
      red = green = blue = args.fill;
    }
    Value* to = out + pixel * strides.pixel;
    store(to, red);
    store(to + strides.channel, green);
    store(to + 2 * strides.channel, blue);
  }
}

template <typename Value>
__device__ __forceinline__ Augmentation augmentation_at(const Arguments<Value>& args,
                                                        int64_t sample) {
  RandomKey key = args.key;
  key.step = static_cast<uint32_t>(__ldg(args.step));
  return augmentation_of(key, static_cast<uint32_t>(__ldg(args.samples + sample)), args.policy,
                         args.height, args.width);
}

// One thread works out the parameters, the block shares them.
template <typename Value>
__device__ __forceinline__ Augmentation shared_augmentation(const Arguments<Value>& args,
                                                            int64_t sample) {
  __shared__ Augmentation shared;
  __syncthreads();  // the last use of `shared` is over
  if (threadIdx.x == 0) shared = augmentation_at(args, sample);
  __syncthreads();
  return shared;
}

// grid.y walks the samples, one block a picture.
template <typename Value, bool kInterleaved>
__global__ void __launch_bounds__(kAloneThreads) augment_alone_kernel(Arguments<Value> args) {
  for (int64_t sample = blockIdx.y; sample < args.batch; sample += gridDim.y) {
    const Augmentation augmentation = shared_augmentation(args, sample);
    const Value* in = args.in + args.picture(sample);
    Real<Value> sum = 0;
    if (args.policy.colour) {
      sum = sum_pixels<Value, kInterleaved>(args, in, augmentation, 0, args.pixels());
    }
    map_pixels<Value, kInterleaved>(args, in, args.out + args.picture(sample), augmentation, sum, 0,
                                    args.pixels());
  }
}

// grid.x walks the shares of a picture.
template <typename Value, bool kInterleaved>
__global__ void __launch_bounds__(kThreads) partial_sums_kernel(Arguments<Value> args) {
  const int begin = static_cast<int>(blockIdx.x * kBlockPixels);
  const int end = static_cast<int>(smaller(begin + kBlockPixels, args.pixels()));
  for (int64_t sample = blockIdx.y; sample < args.batch; sample += gridDim.y) {
    const Augmentation augmentation = shared_augmentation(args, sample);
    const Real<Value> sum = sum_pixels<Value, kInterleaved>(args, args.in + args.picture(sample),
                                                            augmentation, begin, end);
    if (threadIdx.x == 0) args.partial[sample * gridDim.x + blockIdx.x] = sum;
  }
}

template <typename Value, bool kInterleaved>
__global__ void __launch_bounds__(kThreads) augment_share_kernel(Arguments<Value> args) {
  const int begin = static_cast<int>(blockIdx.x * kBlockPixels);
  const int end = static_cast<int>(smaller(begin + kBlockPixels, args.pixels()));
  for (int64_t sample = blockIdx.y; sample < args.batch; sample += gridDim.y) {
    const Augmentation augmentation = shared_augmentation(args, sample);
    Real<Value> sum = 0;
    if (args.policy.colour) {
      for (int share = threadIdx.x; share < static_cast<int>(gridDim.x); share += blockDim.x) {
        sum += args.partial[sample * gridDim.x + share];
      }
      sum = block_sum(sum);
    }
    map_pixels<Value, kInterleaved>(args, args.in + args.picture(sample),
                                    args.out + args.picture(sample), augmentation, sum, begin, end);
  }
}

template <typename Value, bool kInterleaved>
void launch(const Arguments<Value>& args, unsigned shares, cudaStream_t stream) {
  const unsigned rows = static_cast<unsigned>(args.batch < 65535 ? args.batch : 65535);
  const dim3 grid(shares, rows);
  if (shares == 1) {
    const int warps = (args.height * args.width + kWarp - 1) / kWarp;
    const int threads = warps * kWarp < kAloneThreads ? warps * kWarp : kAloneThreads;
    augment_alone_kernel<Value, kInterleaved><<<grid, threads, 0, stream>>>(args);
    return;
  }
  if (args.policy.colour) {
    partial_sums_kernel<Value, kInterleaved><<<grid, kThreads, 0, stream>>>(args);
  }
  augment_share_kernel<Value, kInterleaved><<<grid, kThreads, 0, stream>>>(args);
}

struct Mode {
  bool adjoint;
  bool linear;
  double fill;
};

template <typename Value>
void run_all(const DenseImages& images, Tensor& out, const AugmentChoice& choice, const Mode& mode,
             cudaStream_t stream) {
  const int64_t pixels = out.size(2) * out.size(3);
  const int64_t shares = (pixels + kBlockPixels - 1) / kBlockPixels;
  const ScalarType sums = std::is_same_v<Value, double> ? ScalarType::Double : ScalarType::Float;
  const bool shared = choice.policy.colour && shares > 1;
  std::optional<Tensor> partial;
  if (shared) partial = torch::stable::new_empty(images.tensor, {out.size(0) * shares}, sums);
  const Tensor samples = torch::stable::contiguous(choice.samples);
  const Arguments<Value> args{
      static_cast<const Value*>(images.tensor.const_data_ptr()),
      static_cast<Value*>(out.mutable_data_ptr()),
      shared ? static_cast<Real<Value>*>(partial->mutable_data_ptr()) : nullptr,
      choice.step.const_data_ptr<int64_t>(),
      samples.const_data_ptr<int64_t>(),
      to_key(choice, 0),
      choice.policy,
      out.size(0),
      static_cast<int>(out.size(2)),
      static_cast<int>(out.size(3)),
      static_cast<Real<Value>>(mode.linear ? 0.0 : mode.fill),
      mode.adjoint,
      mode.linear};
  if (images.interleaved) {
    launch<Value, true>(args, static_cast<unsigned>(shares), stream);
  } else {
    launch<Value, false>(args, static_cast<unsigned>(shares), stream);
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

Tensor run_any(const Tensor& images, const AugmentChoice& choice, const Mode& mode) {
  const char* name = mode.adjoint ? "gradient" : "images";
  check_diff_augment(images, choice, name, mode.fill);
  STD_TORCH_CHECK(3 * images.size(2) * images.size(3) <= INT32_MAX, "diff_augment: ", name,
                  " must have less than 2^31 values a picture");
  const torch::stable::accelerator::DeviceGuard guard(images.get_device_index());
  const DenseImages dense = to_dense(images);
  Tensor out = torch::stable::empty_like(dense.tensor);
  if (out.numel() == 0) return out;
  const cudaStream_t queue = current_stream(images);
  if (images.scalar_type() == ScalarType::Float) {
    run_all<float>(dense, out, choice, mode, queue);
  } else if (images.scalar_type() == ScalarType::Double) {
    run_all<double>(dense, out, choice, mode, queue);
  } else {
    run_all<__nv_bfloat16>(dense, out, choice, mode, queue);
  }
  return out;
}

Tensor diff_augment_cuda(const Tensor& images, const Tensor& step, const Tensor& samples,
                         int64_t seed, int64_t stream, bool colour, bool translation, bool cutout,
                         double fill, bool linear) {
  return run_any(images, {step, samples, seed, stream, {colour, translation, cutout}},
                 {false, linear, fill});
}

Tensor diff_augment_adjoint_cuda(const Tensor& gradient, const Tensor& step, const Tensor& samples,
                                 int64_t seed, int64_t stream, bool colour, bool translation,
                                 bool cutout) {
  return run_any(gradient, {step, samples, seed, stream, {colour, translation, cutout}},
                 {true, true, 0.0});
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CUDA, library) {
  library.impl("diff_augment", TORCH_BOX(&pokegan::diff_augment_cuda));
  library.impl("diff_augment_adjoint", TORCH_BOX(&pokegan::diff_augment_adjoint_cuda));
}
