// The power iteration of all layers of a network on CUDA.
#include "spectral_table.h"

namespace pokegan {
namespace {

constexpr int kWarps = kThreads / kWarp;
constexpr int kFinishThreads = 1024;

__device__ __forceinline__ int offset_of(const Layer& layer, int row, int column) {
  if (layer.columns == layer.inner) return row * layer.inner + column;
  if (layer.inner == 1) return column * layer.rows + row;
  const int outer = column / layer.inner;
  return (outer * layer.rows + row) * layer.inner + column % layer.inner;
}

// The part of a matrix that a block reads.
struct Part {
  int row;
  int rows;
  int column;
  int columns;
};

// Blocks of `size` rows lie next to each other, then come those of the next columns.
__device__ __forceinline__ Part part_of(const Layer& layer, int block, int size) {
  const int index = block - layer.first_block;
  const int row_blocks = blocks_of(layer.rows, size);
  const int row = index % row_blocks * size;
  const int column = index / row_blocks * kColumns;
  return {row, min(size, layer.rows - row), column, min(kColumns, layer.columns - column)};
}

// Whether neighbours in memory are rows rather than columns.
__device__ __forceinline__ bool by_lane(const Layer& layer) {
  return layer.inner < kWarp && layer.inner < layer.columns;
}

// t = W v over the part's columns, a warp for every kWarps-th row; `tile` has v.
template <typename T>
__device__ __forceinline__ void rows_by_warp(const Layer& layer, const Part& part, const T* w,
                                             const T* tile, T* out) {
  constexpr int kOwn = kRows / kWarps;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  T sums[kOwn] = {};
#pragma unroll 2
  for (int j = lane; j < part.columns; j += kWarp) {
#pragma unroll
    for (int own = 0; own < kOwn; ++own) {
      const int row = warp + own * kWarps;
      if (row < part.rows) {
        sums[own] += w[offset_of(layer, part.row + row, part.column + j)] * tile[j];
      }
    }
  }
#pragma unroll
  for (int own = 0; own < kOwn; ++own) {
    const int row = warp + own * kWarps;
    const T sum = warp_sum(sums[own]);
    if (lane == 0 && row < part.rows) out[row] = sum;
  }
}

// The same with kRows threads side by side for each column.
template <typename T>
__device__ __forceinline__ void rows_by_lane(const Layer& layer, const Part& part, const T* w,
                                             const T* tile, T* sums, T* out) {
  constexpr int kSide = kThreads / kRows;
  const int row = static_cast<int>(threadIdx.x) % kRows;
  const int first = static_cast<int>(threadIdx.x) / kRows;
  T sum = 0;
  if (row < part.rows) {
#pragma unroll 4
    for (int j = first; j < part.columns; j += kSide) {
      sum += w[offset_of(layer, part.row + row, part.column + j)] * tile[j];
    }
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (first == 0 && row < part.rows) {
    for (int other = 1; other < kSide; ++other) sum += sums[other * kRows + row];
    out[row] = sum;
  }
}

// t = W v, a sum for each row and block of columns. second: v.
template <typename T>
__global__ void __launch_bounds__(kThreads) rows_kernel(const __grid_constant__ Table table, T* t) {
  __shared__ T tile[kColumns];
  __shared__ T sums[kThreads];
  const int block = static_cast<int>(blockIdx.x);
  const Layer& layer = table.layers[layer_of(table, block)];
  const Part part = part_of(layer, block, kRows);
  const T* w = static_cast<const T*>(layer.weight);
  const T* v = static_cast<const T*>(layer.second);
  for (int j = static_cast<int>(threadIdx.x); j < part.columns; j += kThreads) {
    tile[j] = v[logical_column(layer, part.column + j)];
  }
  __syncthreads();
  T* out = t + layer.t_offset + part.column / kColumns * layer.rows + part.row;
  if (by_lane(layer)) {
    rows_by_lane(layer, part, w, tile, sums, out);
  } else {
    rows_by_warp(layer, part, w, tile, out);
  }
}

// A row's t: what its blocks of columns have given, in order.
template <typename T>
__device__ __forceinline__ T whole_t(const Layer& layer, const T* t, int row) {
  T sum = 0;
  for (int block = 0; block < blocks_of(layer.columns, kColumns); ++block) {
    sum += t[layer.t_offset + block * layer.rows + row];
  }
  return sum;
}

// s = Wt t, a sum for each column and block of rows.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    columns_kernel(const __grid_constant__ Table table, const T* t, T* s) {
  __shared__ T t_shared[kSumRows];
  const int block = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const Layer& layer = table.layers[layer_of(table, block)];
  const Part part = part_of(layer, block, kSumRows);
  const T* w = static_cast<const T*>(layer.weight);
  if (thread < part.rows) t_shared[thread] = whole_t(layer, t, part.row + thread);
  __syncthreads();
  T* out = s + layer.s_offset + part.row / kSumRows * layer.columns + part.column;
  if (by_lane(layer)) {  // a warp for each column
    const int row = thread % kWarp;
#pragma unroll 4
    for (int j = thread / kWarp; j < part.columns; j += kWarps) {
      const bool inside = row < part.rows;
      const T value =
          inside ? t_shared[row] * w[offset_of(layer, part.row + row, part.column + j)] : T(0);
      const T sum = warp_sum(value);
      if (row == 0) out[j] = sum;
    }
  } else {
    for (int j = thread; j < part.columns; j += kThreads) {
      T sum = 0;
#pragma unroll 8
      for (int row = 0; row < part.rows; ++row) {
        sum += t_shared[row] * w[offset_of(layer, part.row + row, part.column + j)];
      }
      out[j] = sum;
    }
  }
}

// Where the copies of u and v, and sigma, go.
template <typename T>
struct FactorPointers {
  T* sigma;
  T* u;
  T* v;
};

// How many threads add up a column of s: few columns leave threads for it. A power of two.
__device__ __forceinline__ int threads_a_column(int columns) {
  int threads = 1;
  while (threads < kWarp && columns * threads <= kFinishThreads / 2) threads *= 2;
  return threads;
}

// Adds the blocks of s up into the first of them; returns this thread's share of their squares.
template <typename T>
__device__ __forceinline__ double add_up(const Layer& layer, T* s) {
  const int blocks = blocks_of(layer.rows, kSumRows);
  const int threads = threads_a_column(layer.columns);
  const int first = static_cast<int>(threadIdx.x) % threads;
  const int side = kFinishThreads / threads;
  double squares = 0;
  for (int start = 0; start < layer.columns; start += side) {  // the same for all lanes
    const int j = start + static_cast<int>(threadIdx.x) / threads;
    T sum = 0;
    if (j < layer.columns) {
#pragma unroll 8
      for (int block = first; block < blocks; block += threads) {
        sum += s[block * layer.columns + j];
      }
    }
    for (int distance = threads / 2; distance > 0; distance /= 2) {
      sum += __shfl_xor_sync(kAllLanes, sum, distance);
    }
    if (first == 0 && j < layer.columns) {
      if (blocks > 0) s[j] = sum;
      squares += static_cast<double>(sum) * sum;
    }
  }
  return squares;
}

// A block for each layer: adds up t and s, divides by lengths. first: u, second: v, both
// overwritten.
template <typename T>
__global__ void __launch_bounds__(kFinishThreads)
    finish_kernel(const __grid_constant__ Table table, const T* t, T* all_s, double eps,
                  FactorPointers<T> out, int first_layer) {
  __shared__ double shared[kFinishThreads / kWarp];
  const Layer& layer = table.layers[blockIdx.x];
  T* s = all_s + layer.s_offset;
  const double s_length = sqrt(block_sum(add_up(layer, s), shared));
  double squares = 0;
  for (int r = static_cast<int>(threadIdx.x); r < layer.rows; r += kFinishThreads) {
    const double value = whole_t(layer, t, r);
    squares += value * value;
  }
  const double t_length = sqrt(block_sum(squares, shared));
  const Normalisation scales = normalisation(t_length, s_length, eps);
  for (int r = static_cast<int>(threadIdx.x); r < layer.rows; r += kFinishThreads) {
    const T value = static_cast<T>(whole_t(layer, t, r) * scales.u_scale);
    static_cast<T*>(layer.first)[r] = value;
    out.u[layer.u_offset + r] = value;
  }
  for (int j = static_cast<int>(threadIdx.x); j < layer.columns; j += kFinishThreads) {
    const T value = layer.rows > 0 ? static_cast<T>(s[j] * scales.v_scale) : T(0);
    const int column = logical_column(layer, j);
    static_cast<T*>(layer.second)[column] = value;
    out.v[layer.v_offset + column] = value;
  }
  if (threadIdx.x == 0) out.sigma[first_layer + blockIdx.x] = static_cast<T>(scales.sigma);
}

// A block for each layer: sigma = ut t, and copies of u (first) and v (second).
template <typename T>
__global__ void __launch_bounds__(kFinishThreads)
    sigma_kernel(const __grid_constant__ Table table, const T* t, FactorPointers<T> out,
                 int first_layer) {
  __shared__ double shared[kFinishThreads / kWarp];
  const Layer& layer = table.layers[blockIdx.x];
  double sum = 0;
  for (int r = static_cast<int>(threadIdx.x); r < layer.rows; r += kFinishThreads) {
    const T value = static_cast<const T*>(layer.first)[r];
    out.u[layer.u_offset + r] = value;
    sum += static_cast<double>(value) * whole_t(layer, t, r);
  }
  for (int j = static_cast<int>(threadIdx.x); j < layer.columns; j += kFinishThreads) {
    out.v[layer.v_offset + j] = static_cast<const T*>(layer.second)[j];
  }
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) out.sigma[first_layer + blockIdx.x] = static_cast<T>(sum);
}

template <typename T>
FactorPointers<T> pointers(const Factors& factors) {
  return {std::get<0>(factors).template mutable_data_ptr<T>(),
          std::get<1>(factors).template mutable_data_ptr<T>(),
          std::get<2>(factors).template mutable_data_ptr<T>()};
}

template <typename T>
void launch_rows(const Table& table, T* t, cudaStream_t stream) {
  if (table.blocks == 0) return;
  rows_kernel<T><<<table.blocks, kThreads, 0, stream>>>(table, t);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

// Both plans are of the same layers, `of_rows` in the blocks of t and `of_columns` in those of s.
template <typename T>
void iterate(const Plan& of_rows, const Plan& of_columns, const Tensor& weight, int64_t iterations,
             double eps, const Factors& factors) {
  const cudaStream_t stream = current_stream(weight);
  const Tensor t = torch::stable::new_empty(weight, {of_rows.t});
  const Tensor s = torch::stable::new_empty(weight, {of_rows.s});
  T* t_values = t.template mutable_data_ptr<T>();
  T* s_values = s.template mutable_data_ptr<T>();
  for (int64_t iteration = 0; iteration < iterations; ++iteration) {
    int first_layer = 0;
    for (size_t i = 0; i < of_rows.tables.size(); ++i) {
      const Table& table = of_columns.tables[i];
      launch_rows<T>(of_rows.tables[i], t_values, stream);
      if (table.blocks > 0) {
        columns_kernel<T><<<table.blocks, kThreads, 0, stream>>>(table, t_values, s_values);
        STD_CUDA_KERNEL_LAUNCH_CHECK();
      }
      finish_kernel<T><<<table.count, kFinishThreads, 0, stream>>>(
          table, t_values, s_values, eps, pointers<T>(factors), first_layer);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
      first_layer += table.count;
    }
  }
}

Factors spectral_iterate_cuda(Tensors weights, Tensors u, Tensors v, std::vector<int64_t> dims,
                              int64_t iterations, double eps) {
  const char* name = "spectral_iterate";
  const std::vector<Matrix> matrices = check_weights(name, weights, dims);
  check_vectors(name, weights, u, v, matrices);
  check_iterate(iterations, eps);
  const torch::stable::accelerator::DeviceGuard guard(weights[0].get_device_index());
  const Factors factors = empty_factors(weights, matrices);
  const Plan of_rows = make_plan(name, weights, matrices, u, v, kRows);
  const Plan of_columns = make_plan(name, weights, matrices, u, v, kSumRows);
  if (weights[0].scalar_type() == ScalarType::Float) {
    iterate<float>(of_rows, of_columns, weights[0], iterations, eps, factors);
  } else {
    iterate<double>(of_rows, of_columns, weights[0], iterations, eps, factors);
  }
  return factors;
}

template <typename T>
void measure(const Plan& plan, const Tensor& weight, const Factors& factors) {
  const cudaStream_t stream = current_stream(weight);
  const Tensor t = torch::stable::new_empty(weight, {plan.t});
  T* t_values = t.template mutable_data_ptr<T>();
  int first_layer = 0;
  for (const Table& table : plan.tables) {
    launch_rows<T>(table, t_values, stream);
    sigma_kernel<T><<<table.count, kFinishThreads, 0, stream>>>(table, t_values,
                                                                pointers<T>(factors), first_layer);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    first_layer += table.count;
  }
}

Factors spectral_sigma_cuda(Tensors weights, Tensors u, Tensors v, std::vector<int64_t> dims) {
  const char* name = "spectral_sigma";
  const std::vector<Matrix> matrices = check_weights(name, weights, dims);
  check_vectors(name, weights, u, v, matrices);
  const torch::stable::accelerator::DeviceGuard guard(weights[0].get_device_index());
  const Factors factors = empty_factors(weights, matrices);
  const Plan plan = make_plan(name, weights, matrices, u, v, kRows);
  if (weights[0].scalar_type() == ScalarType::Float) {
    measure<float>(plan, weights[0], factors);
  } else {
    measure<double>(plan, weights[0], factors);
  }
  return factors;
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CUDA, library) {
  library.impl("spectral_iterate", TORCH_BOX(&pokegan::spectral_iterate_cuda));
  library.impl("spectral_sigma", TORCH_BOX(&pokegan::spectral_sigma_cuda));
}
