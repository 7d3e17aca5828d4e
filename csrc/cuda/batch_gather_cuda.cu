// batch_gather on CUDA: a thread writes one aligned vector of consecutive output values.
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>

#include <limits>

#include "../batch_gather_check.h"
#include "stream.h"

namespace pokegan {
namespace {

constexpr int kThreads = 256;

struct Arguments {
  const uint8_t* images;
  const int64_t* indices;
  const bool* flip;      // or nullptr
  const int64_t* shift;  // or nullptr
  int64_t count;
  int64_t height;
  int64_t width;
  Background background;
};

template <typename Value>
__device__ __forceinline__ Value convert(float value);
template <>
__device__ __forceinline__ float convert<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ __nv_bfloat16 convert<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

template <typename Value, int kVector>
struct alignas(sizeof(Value) * kVector) Pack {
  Value value[kVector];
};

__device__ __forceinline__ float value_at(const Arguments& args, const Placement& place,
                                          uint32_t offset) {
  const int channel = static_cast<int>(offset % 3);
  const uint32_t pixel = offset / 3;  // 64-bit divisions would take longer than the memory
  const uint32_t width = static_cast<uint32_t>(args.width);
  const int64_t row = source_row(place, pixel / width, args.height);
  const int64_t column = source_column(place, pixel % width, args.width);
  if (row < 0 || column < 0) return normalise(args.background.at(channel));
  const int64_t source = ((place.picture * args.height + row) * args.width + column) * 3;
  return normalise(args.images[source + channel]);
}

// grid.y walks the samples, grid.x the vectors of one sample; kVector divides 3 * H * W.
template <typename Value, int kVector>
__global__ void batch_gather_kernel(Arguments args, Value* out, int64_t batch) {
  const int64_t sample_values = 3 * args.height * args.width;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kVector;
  if (first >= sample_values) return;
  for (int64_t sample = blockIdx.y; sample < batch; sample += gridDim.y) {
    const Placement place{args.indices[sample], args.shift != nullptr ? args.shift[2 * sample] : 0,
                          args.shift != nullptr ? args.shift[2 * sample + 1] : 0,
                          args.flip != nullptr && args.flip[sample]};
    // The index lives on the device: a wrong one stops the kernel, it never reads elsewhere.
    if (place.picture < 0 || place.picture >= args.count) __trap();
    Pack<Value, kVector> pack;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      pack.value[i] = convert<Value>(value_at(args, place, static_cast<uint32_t>(first + i)));
    }
    *reinterpret_cast<Pack<Value, kVector>*>(out + sample * sample_values + first) = pack;
  }
}

template <typename Value, int kVector>
void launch(const Arguments& args, Value* out, int64_t batch, cudaStream_t stream) {
  const int64_t vectors = 3 * args.height * args.width / kVector;
  const dim3 grid(static_cast<unsigned>((vectors + kThreads - 1) / kThreads),
                  static_cast<unsigned>(batch < 65535 ? batch : 65535));
  batch_gather_kernel<Value, kVector><<<grid, kThreads, 0, stream>>>(args, out, batch);
}

template <typename Value, int kVector>
void launch_widest(const Arguments& args, void* out, int64_t batch, cudaStream_t stream) {
  Value* values = static_cast<Value*>(out);
  if (3 * args.height * args.width % kVector == 0) {
    launch<Value, kVector>(args, values, batch, stream);
  } else {
    launch<Value, 1>(args, values, batch, stream);
  }
}

Tensor batch_gather_cuda(const Tensor& images, const Tensor& indices, std::optional<Tensor> flip,
                         std::optional<Tensor> shift, std::vector<int64_t> background,
                         ScalarType dtype) {
  check_batch_gather(images, indices, flip, shift, background, dtype);
  const torch::stable::accelerator::DeviceGuard guard(images.get_device_index());
  const Tensor dense_indices = torch::stable::contiguous(indices);
  if (flip.has_value()) flip = torch::stable::contiguous(*flip);
  if (shift.has_value()) shift = torch::stable::contiguous(*shift);
  const int64_t batch = indices.size(0);
  const Arguments args{images.const_data_ptr<uint8_t>(),
                       dense_indices.const_data_ptr<int64_t>(),
                       flip.has_value() ? flip->const_data_ptr<bool>() : nullptr,
                       shift.has_value() ? shift->const_data_ptr<int64_t>() : nullptr,
                       images.size(0),
                       images.size(1),
                       images.size(2),
                       to_background(background)};
  Tensor out = torch::stable::new_empty(images, {batch, args.height, args.width, 3}, dtype);
  if (batch == 0 || args.height * args.width == 0) return out;
  STD_TORCH_CHECK(args.height * args.width <= std::numeric_limits<int32_t>::max() / 3,
                  "batch_gather: on CUDA a picture must have fewer than 2^31 values");
  const cudaStream_t stream = current_stream(images);
  if (dtype == ScalarType::Float) {
    launch_widest<float, 4>(args, out.mutable_data_ptr(), batch, stream);
  } else {
    launch_widest<__nv_bfloat16, 8>(args, out.mutable_data_ptr(), batch, stream);
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CUDA, library) {
  library.impl("batch_gather", TORCH_BOX(&pokegan::batch_gather_cuda));
}
