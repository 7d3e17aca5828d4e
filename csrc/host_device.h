// The mark of functions that both back ends compile.
#pragma once

#if defined(__CUDACC__)
#define POKEGAN_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define POKEGAN_HOST_DEVICE inline
#endif
