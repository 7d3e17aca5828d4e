// All layers of a network as a table in the parameters of the spectral norm's CUDA kernels.
//
// Each kernel is launched once for all layers, and nothing is copied to the device, so a CUDA graph
// can capture the calls. Blocks of work follow from the shapes alone and sums are taken in a fixed
// order, without atomics: the same bits at every run.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>

#include <limits>
#include <vector>

#include "../spectral_norm_check.h"
#include "stream.h"

namespace pokegan {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int kColumns = 1024;   // columns of W that one block reads, of
constexpr int kRows = 16;        // so many rows for t,
constexpr int kSumRows = kWarp;  // and of so many for s: fewer sums to add up
constexpr int kChunk = 4096;     // values that one block of an elementwise kernel writes
constexpr int kMaxLayers = 56;   // 3.6 KB of the 4 KB that parameters may have everywhere
constexpr unsigned kAllLanes = 0xFFFFFFFFU;

// One layer: its matrix and its share of the buffers that all layers have together.
struct Layer {
  const void* weight;
  void* first;  // what these are, each kernel says
  void* second;
  int rows;
  int inner;
  int columns;
  int channels;
  int first_block;
  int u_offset;
  int v_offset;
  int t_offset;  // of [column blocks, rows]
  int s_offset;  // of [row blocks, columns]
};

struct Table {
  Layer layers[kMaxLayers];
  int count;
  int blocks;
};
static_assert(sizeof(Table) <= 3600, "the other parameters need room in the 4 KB");

// The layer that a block belongs to. A layer without blocks is passed over.
__device__ __forceinline__ int layer_of(const Table& table, int block) {
  int layer = 0;
  while (layer + 1 < table.count && table.layers[layer + 1].first_block <= block) ++layer;
  return layer;
}

__device__ __forceinline__ int logical_column(const Layer& layer, int column) {
  if (layer.channels == 0) return column;
  return column % layer.channels * (layer.columns / layer.channels) + column / layer.channels;
}

template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

// The sum over the block, in every thread. `shared` holds one value a warp.
__device__ __forceinline__ double block_sum(double value, double* shared) {
  value = warp_sum(value);
  __syncthreads();  // whoever read `shared` before is done
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
  __syncthreads();
  double sum = 0;
  for (unsigned warp = 0; warp < blockDim.x / kWarp; ++warp) sum += shared[warp];
  return sum;
}

// The number of blocks that `values` take, `size` each.
constexpr POKEGAN_HOST_DEVICE int blocks_of(int values, int size) {
  return (values + size - 1) / size;
}

// All layers in tables of kMaxLayers, with offsets into what all of them share.
struct Plan {
  std::vector<Table> tables;
  int64_t u = 0;  // lengths of what all layers share
  int64_t v = 0;
  int64_t t = 0;
  int64_t s = 0;
  int64_t most_blocks = 0;  // of one table
};

inline int checked(const char* name, int64_t value) {
  STD_TORCH_CHECK(value <= std::numeric_limits<int>::max(), name,
                  ": weights must have fewer than 2^31 elements together");
  return static_cast<int>(value);
}

// `first` and `second` may be empty. Blocks are of `rows` rows of kColumns columns, or, if that is
// 0, of kChunk values.
inline Plan make_plan(const char* name, const Tensors& weights, const std::vector<Matrix>& matrices,
                      const Tensors& first, const Tensors& second, int rows) {
  Plan plan;
  int64_t values = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (i % kMaxLayers == 0) plan.tables.push_back(Table{});
    Table& table = plan.tables.back();
    const Matrix& m = matrices[i];
    values += m.numel() + m.rows + m.columns();
    checked(name, values);
    const int m_rows = static_cast<int>(m.rows);
    const int m_columns = static_cast<int>(m.columns());
    const int column_blocks = blocks_of(m_columns, kColumns);
    const int blocks = rows > 0 ? blocks_of(m_rows, rows) * column_blocks
                                : blocks_of(static_cast<int>(m.numel()), kChunk);
    table.layers[table.count++] = {weights[i].const_data_ptr(),
                                   first.empty() ? nullptr : first[i].data_ptr(),
                                   second.empty() ? nullptr : second[i].data_ptr(),
                                   m_rows,
                                   static_cast<int>(m.inner),
                                   m_columns,
                                   static_cast<int>(m.channels),
                                   table.blocks,
                                   static_cast<int>(plan.u),
                                   static_cast<int>(plan.v),
                                   checked(name, plan.t),
                                   checked(name, plan.s)};
    table.blocks += blocks;
    plan.most_blocks = table.blocks > plan.most_blocks ? table.blocks : plan.most_blocks;
    plan.u += m.rows;
    plan.v += m.columns();
    plan.t += column_blocks * m.rows;
    plan.s += blocks_of(m_rows, kSumRows) * m.columns();
  }
  checked(name, plan.t);
  checked(name, plan.s);
  return plan;
}

}  // namespace pokegan
