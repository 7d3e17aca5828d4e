// How the CPU cuts the spectral norm's work on all layers into blocks, one thread each.
//
// Their size depends on the shapes alone, and what the blocks give is added up in their order: the
// same bits for any count of threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "../spectral_norm.h"

namespace pokegan {

constexpr int64_t kBlock = 65536;  // values of W a block: 256 KB, inside of a second-level cache
constexpr int kLanes = 16;         // partial sums of a dot product, in a fixed order

// Columns from PyTorch's order to memory order.
template <typename T>
void to_memory_order(const Matrix& m, const T* logical, T* memory) {
  const int64_t channels = m.channels == 0 ? 1 : m.channels;
  const int64_t places = m.columns() / std::max<int64_t>(channels, 1);
  for (int64_t place = 0; place < places; ++place) {
    for (int64_t c = 0; c < channels; ++c)
      memory[place * channels + c] = logical[c * places + place];
  }
}

// Run jobs 0, ..., count - 1 on whichever thread is free. A job's result may not depend on that.
template <typename Job>
void run_jobs(int64_t count, bool parallel, const Job& job) {
  const int64_t threads = parallel ? std::min<int64_t>(torch::stable::get_num_threads(), count) : 1;
  if (threads <= 1) {
    for (int64_t i = 0; i < count; ++i) job(i);
    return;
  }
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < count; i = next++) job(i);
  });
}

// Consecutive blocks of all layers; a job is a range of one layer's items.
struct Blocks {
  struct Block {
    size_t layer;
    int64_t begin;
    int64_t end;
  };
  std::vector<Block> blocks;
  std::vector<int64_t> first;  // by layer, and one more
  int64_t values = 0;

  // `items` of `size` values each, in blocks of about kBlock values and a multiple of `multiple`.
  void add_layer(int64_t items, int64_t size, int64_t multiple) {
    if (first.empty()) first.push_back(0);
    const int64_t wanted = kBlock / std::max<int64_t>(size, 1) / multiple * multiple;
    const int64_t step = std::max(multiple, wanted);
    const size_t layer = first.size() - 1;
    for (int64_t begin = 0; begin < items; begin += step) {
      blocks.push_back({layer, begin, std::min(begin + step, items)});
    }
    first.push_back(static_cast<int64_t>(blocks.size()));
    values += items * size;
  }
  int64_t count() const { return static_cast<int64_t>(blocks.size()); }
  bool parallel() const { return values >= kBlock; }
};

template <typename T>
std::unique_ptr<T[]> scratch(int64_t count) {
  return std::unique_ptr<T[]>(new T[static_cast<size_t>(std::max<int64_t>(count, 1))]);
}

// Where the vectors of every layer begin in u and v of all layers; one more is the end.
struct Offsets {
  std::vector<int64_t> u;
  std::vector<int64_t> v;
};

inline Offsets offsets_of(const std::vector<Matrix>& matrices) {
  Offsets offsets{{0}, {0}};
  for (const Matrix& matrix : matrices) {
    offsets.u.push_back(offsets.u.back() + matrix.rows);
    offsets.v.push_back(offsets.v.back() + matrix.columns());
  }
  return offsets;
}

}  // namespace pokegan
