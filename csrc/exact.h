// Arithmetic that rounds after every operation, so that the CPU, CUDA and PyTorch agree bit for
// bit: no product and sum below this include are fused. No torch types here.
#pragma once

#include <cmath>

#include "host_device.h"

#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__) && !defined(__CUDACC__)
#pragma GCC optimize("fp-contract=off")
#endif

namespace pokegan {

POKEGAN_HOST_DEVICE float multiply_add(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(__fmul_rn(a, b), c);
#else
  return a * b + c;
#endif
}

POKEGAN_HOST_DEVICE float square_root(float x) {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(x);
#else
  return std::sqrt(x);
#endif
}

}  // namespace pokegan
