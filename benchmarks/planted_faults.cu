// Two faults that compute-sanitizer has to find, in the namespace of our kernels: what finds them
// has looked at kernels that are chosen by that name. Built and called by gpu_checks.sh.
#include <cuda_runtime.h>

namespace pokegan {

constexpr int kThreads = 64;           // two warps
constexpr int kValues = kThreads + 1;  // the next allocation does not begin right behind them

__global__ void planted_write(int* values) { values[kValues] = 1; }

__global__ void planted_race(int* values) {
  __shared__ int shared[kThreads];
  shared[threadIdx.x] = values[threadIdx.x];
  values[threadIdx.x] = shared[kThreads - 1 - threadIdx.x];  // of the other warp, with no barrier
}

}  // namespace pokegan

// Runs the race, or the write.
extern "C" int plant(int race) {
  int* values = nullptr;
  cudaError_t error = cudaMalloc(&values, pokegan::kValues * sizeof(int));
  if (error == cudaSuccess) error = cudaMemset(values, 0, pokegan::kValues * sizeof(int));
  if (error != cudaSuccess) return error;
  if (race != 0) {
    pokegan::planted_race<<<1, pokegan::kThreads>>>(values);
  } else {
    pokegan::planted_write<<<1, 1>>>(values);
  }
  return cudaDeviceSynchronize();
}
