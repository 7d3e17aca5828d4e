// The mark of functions that both back ends compile. They must become part of their callers, or a
// loop over them is not vectorised, nor compiled for the instruction set of the clone it is in.
#pragma once

#if defined(__CUDACC__)
#define POKEGAN_HOST_DEVICE __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define POKEGAN_HOST_DEVICE inline __attribute__((always_inline))
#else
#define POKEGAN_HOST_DEVICE inline
#endif
