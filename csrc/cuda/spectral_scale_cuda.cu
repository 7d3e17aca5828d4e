// The weights of all layers divided by their spectral norms on CUDA, and the gradient of that.
#include <cuda_bf16.h>

#include "spectral_table.h"

namespace pokegan {
namespace {

constexpr int kWarps = kThreads / kWarp;

__device__ __forceinline__ void store(float* out, float value) { *out = value; }
__device__ __forceinline__ void store(double* out, double value) { *out = value; }
__device__ __forceinline__ void store(__nv_bfloat16* out, float value) {
  *out = __float2bfloat16_rn(value);
}
__device__ __forceinline__ float load(const float* stored) { return *stored; }
__device__ __forceinline__ double load(const double* stored) { return *stored; }
__device__ __forceinline__ float load(const __nv_bfloat16* stored) {
  return __bfloat162float(*stored);
}

// The range of a layer's memory that this block of an elementwise kernel has.
struct Chunk {
  int begin;
  int end;
};
__device__ __forceinline__ Chunk chunk_of(const Layer& layer, int block) {
  const int begin = (block - layer.first_block) * kChunk;
  return {begin, min(kChunk, layer.rows * layer.columns - begin) + begin};
}

// first = weight / sigma
template <typename T, typename Out>
__global__ void __launch_bounds__(kThreads)
    scale_kernel(const __grid_constant__ Table table, const T* sigma, int first_layer) {
  const int number = layer_of(table, static_cast<int>(blockIdx.x));
  const Layer& layer = table.layers[number];
  const Chunk chunk = chunk_of(layer, static_cast<int>(blockIdx.x));
  const T factor = T(1) / sigma[first_layer + number];
  const T* w = static_cast<const T*>(layer.weight);
  Out* out = static_cast<Out*>(layer.first);
#pragma unroll 4
  for (int i = chunk.begin + static_cast<int>(threadIdx.x); i < chunk.end; i += kThreads) {
    store(out + i, w[i] * factor);
  }
}

// Each block's share of <G, W>. first: G.
template <typename T, typename Gradient>
__global__ void __launch_bounds__(kThreads)
    product_kernel(const __grid_constant__ Table table, double* products) {
  __shared__ double shared[kWarps];
  const Layer& layer = table.layers[layer_of(table, static_cast<int>(blockIdx.x))];
  const Chunk chunk = chunk_of(layer, static_cast<int>(blockIdx.x));
  const T* w = static_cast<const T*>(layer.weight);
  const Gradient* g = static_cast<const Gradient*>(layer.first);
  T sum = 0;
#pragma unroll 4
  for (int i = chunk.begin + static_cast<int>(threadIdx.x); i < chunk.end; i += kThreads) {
    sum += load(g + i) * w[i];
  }
  const double total = block_sum(static_cast<double>(sum), shared);
  if (threadIdx.x == 0) products[blockIdx.x] = total;
}

// second = (G - <G, W> / sigma u vt) / sigma. first: G.
template <typename T, typename Gradient>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const __grid_constant__ Table table, const double* products, const T* sigma,
                    const T* u, const T* v, int first_layer) {
  __shared__ double shared[kWarps];
  const int number = layer_of(table, static_cast<int>(blockIdx.x));
  const Layer& layer = table.layers[number];
  const Chunk chunk = chunk_of(layer, static_cast<int>(blockIdx.x));
  const int blocks = (layer.rows * layer.columns - 1) / kChunk + 1;
  double product = 0;
  for (int i = static_cast<int>(threadIdx.x); i < blocks; i += kThreads) {
    product += products[layer.first_block + i];
  }
  product = block_sum(product, shared);
  const double factor = 1.0 / static_cast<double>(sigma[first_layer + number]);
  const T common = static_cast<T>(product * factor * factor);
  const T scale = static_cast<T>(factor);
  const Gradient* g = static_cast<const Gradient*>(layer.first);
  T* out = static_cast<T*>(layer.second);
#pragma unroll 2
  for (int i = chunk.begin + static_cast<int>(threadIdx.x); i < chunk.end; i += kThreads) {
    const int segment = i / layer.inner;
    const int outer = segment / layer.rows;
    const int row = segment - outer * layer.rows;
    const int column = logical_column(layer, outer * layer.inner + i - segment * layer.inner);
    const T rank_one = u[layer.u_offset + row] * v[layer.v_offset + column];
    out[i] = load(g + i) * scale - common * rank_one;
  }
}

template <typename T, typename Out>
void scale(const Plan& plan, const Tensor& sigma) {
  const cudaStream_t stream = current_stream(sigma);
  int first_layer = 0;
  for (const Table& table : plan.tables) {
    if (table.blocks > 0) {
      scale_kernel<T, Out><<<table.blocks, kThreads, 0, stream>>>(
          table, sigma.template const_data_ptr<T>(), first_layer);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    }
    first_layer += table.count;
  }
}

Tensors spectral_scale_cuda(Tensors weights, Tensor sigma, Tensor u, Tensor v,
                            std::vector<int64_t> dims, ScalarType dtype) {
  const char* name = "spectral_scale";
  const std::vector<Matrix> matrices = check_weights(name, weights, dims);
  check_factors(name, weights, sigma, u, v, matrices);
  check_scale_dtype(dtype, weights);
  const torch::stable::accelerator::DeviceGuard guard(weights[0].get_device_index());
  const Tensors out = empty_like_all(weights, dtype);
  const Plan plan = make_plan(name, weights, matrices, out, {}, 0);
  if (dtype == ScalarType::Double) {
    scale<double, double>(plan, sigma);
  } else if (dtype == ScalarType::Float) {
    scale<float, float>(plan, sigma);
  } else {
    scale<float, __nv_bfloat16>(plan, sigma);
  }
  return out;
}

template <typename T, typename Gradient>
void backward(const Plan& plan, const Tensor& sigma, const Tensor& u, const Tensor& v) {
  const cudaStream_t stream = current_stream(sigma);
  const Tensor products = torch::stable::new_empty(sigma, {plan.most_blocks}, ScalarType::Double);
  double* values = products.template mutable_data_ptr<double>();
  int first_layer = 0;
  for (const Table& table : plan.tables) {
    if (table.blocks > 0) {
      product_kernel<T, Gradient><<<table.blocks, kThreads, 0, stream>>>(table, values);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
      backward_kernel<T, Gradient><<<table.blocks, kThreads, 0, stream>>>(
          table, values, sigma.template const_data_ptr<T>(), u.template const_data_ptr<T>(),
          v.template const_data_ptr<T>(), first_layer);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    }
    first_layer += table.count;
  }
}

Tensors spectral_scale_backward_cuda(Tensors gradients, Tensors weights, Tensor sigma, Tensor u,
                                     Tensor v, std::vector<int64_t> dims) {
  const char* name = "spectral_scale_backward";
  const std::vector<Matrix> matrices = check_weights(name, weights, dims);
  check_factors(name, weights, sigma, u, v, matrices);
  const torch::stable::accelerator::DeviceGuard guard(weights[0].get_device_index());
  const Tensors ordered = check_gradients(gradients, weights);
  const Tensors out = empty_like_all(weights, weights[0].scalar_type());
  const Plan plan = make_plan(name, weights, matrices, ordered, out, 0);
  if (weights[0].scalar_type() == ScalarType::Double) {
    backward<double, double>(plan, sigma, u, v);
  } else if (ordered[0].scalar_type() == ScalarType::Float) {
    backward<float, float>(plan, sigma, u, v);
  } else {
    backward<float, __nv_bfloat16>(plan, sigma, u, v);
  }
  return out;
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CUDA, library) {
  library.impl("spectral_scale", TORCH_BOX(&pokegan::spectral_scale_cuda));
  library.impl("spectral_scale_backward", TORCH_BOX(&pokegan::spectral_scale_backward_cuda));
}
