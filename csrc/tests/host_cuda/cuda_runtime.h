// What the kernels use of CUDA, on a processor: they are compiled by a C++ compiler and run here, a
// fiber for each thread of a block, one block after the other. It checks what a kernel computes and
// touches, and that its threads meet where they must; not what it takes on a GPU.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static  // blocks run one at a time
#define __syncthreads() ::host_cuda::sync_block(__FILE__, __LINE__)
#define __trap() ::host_cuda::fail("a kernel stopped at __trap()")
#define __shfl_xor_sync(mask, value, distance) \
  ::host_cuda::shuffle(mask, value, ::host_cuda::lane() ^ (distance), __FILE__, __LINE__)
#define __shfl_down_sync(mask, value, distance) \
  ::host_cuda::shuffle(mask, value, ::host_cuda::below(distance), __FILE__, __LINE__)

struct dim3 {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;
  dim3() = default;
  dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

using cudaStream_t = void*;

namespace host_cuda {

constexpr int kWarp = 32;

struct Index {
  dim3 thread{0, 0, 0};
  dim3 block{0, 0, 0};
  dim3 block_size;
  dim3 grid_size;
};
extern Index now;  // of the fiber that runs

[[noreturn]] void fail(const char* reason);
void sync_block(const char* file, int line);
void sync_warp(unsigned mask, const char* file, int line);
void* slot(int lane, int turn);  // 16 bytes that the lanes of a warp see of each other
int next_turn();
int lane();
int below(unsigned distance);

// Runs `body` in every thread of every block. Throws std::runtime_error where threads of a block or
// warp wait in different places, or a kernel stops.
void run(dim3 grid, dim3 block, const std::function<void()>& body);

template <typename Value>
Value shuffle(unsigned mask, Value value, int from, const char* file, int line) {
  static_assert(sizeof(Value) <= 16, "a slot has 16 bytes");
  const int turn = next_turn();
  std::memcpy(slot(lane(), turn), &value, sizeof(Value));
  sync_warp(mask, file, line);
  std::memcpy(&value, slot(from, turn), sizeof(Value));
  return value;
}

template <typename... Parameters, typename... Arguments>
void launch(dim3 grid, dim3 block, void (*kernel)(Parameters...), Arguments&&... arguments) {
  const std::tuple<Parameters...> given(std::forward<Arguments>(arguments)...);
  run(grid, block, [&] { std::apply(kernel, given); });
}

}  // namespace host_cuda

#define threadIdx (::host_cuda::now.thread)
#define blockIdx (::host_cuda::now.block)
#define blockDim (::host_cuda::now.block_size)
#define gridDim (::host_cuda::now.grid_size)

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

template <typename Value>
Value __ldg(const Value* at) {
  return *at;
}
