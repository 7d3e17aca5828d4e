// Kernels with the faults that running on a processor is to find.
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace {

constexpr int kThreads = 64;

// Thread 0 may read `shared` before the others have written it.
__global__ void race_kernel(int* out) {
  __shared__ int shared[kThreads];
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  int sum = 0;
  if (threadIdx.x == 0 || threadIdx.x == kThreads - 1) {
    for (int i = 0; i < kThreads; ++i) sum += shared[i];
  }
  __syncthreads();
  if (threadIdx.x == 0) out[0] = sum;
  if (threadIdx.x == kThreads - 1) out[1] = sum;
  shared[threadIdx.x] = 0;
}

__global__ void divergent_kernel(int* out) {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[0] = 1;
}

__global__ void lost_lane_kernel(int* out) {
  if (threadIdx.x == 5) return;
  out[0] = __shfl_xor_sync(0xFFFFFFFFU, 1, 16);
}

__global__ void half_kernel(int* out) {
  if (threadIdx.x < kThreads / 2) __syncthreads();
  __shfl_down_sync(0xFFFFFFFFU, 1, 1);
  if (threadIdx.x >= kThreads / 2) __syncthreads();
  out[0] = 1;
}

__global__ void early_kernel(int* out) {  // no fault: who has ended counts as having arrived
  if (threadIdx.x >= kThreads / 2) return;
  __syncthreads();
  if (threadIdx.x == 0) out[0] = 1;
}

__global__ void beyond_kernel(int* out) { out[blockIdx.x * kThreads + threadIdx.x] = 1; }

void (*const kKernels[])(int*) = {race_kernel, divergent_kernel, lost_lane_kernel,
                                  half_kernel, early_kernel,     beyond_kernel};

}  // namespace

// Runs a kernel by number; returns what went wrong, or nothing.
extern "C" const char* run_fault(int number, int* out, int blocks) {
  static std::string said;
  said.clear();
  try {
    kKernels[number]<<<blocks, kThreads, 0, nullptr>>>(out);
  } catch (const std::runtime_error& error) {
    said = error.what();
  }
  return said.c_str();
}
