// What the CPU kernels share to be vectorised: clones for each instruction set, and bfloat16.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
// One binary for every x86-64: the loader picks the widest variant that the processor has. A
// level, because the name of a processor would leave out those that came after it.
#if __GNUC__ >= 12
#define POKEGAN_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define POKEGAN_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#else
#define POKEGAN_CLONES
#endif

// For the templates that a clone calls: they must become part of it to be compiled as it is.
#if defined(__GNUC__)
#define POKEGAN_INLINE inline __attribute__((always_inline))
#else
#define POKEGAN_INLINE inline
#endif

namespace pokegan {

// A bfloat16 in memory; arithmetic is in float.
struct Bfloat16 {
  uint16_t bits;
};

POKEGAN_INLINE float to_float(Bfloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

// Round to nearest even, as torch does.
POKEGAN_INLINE Bfloat16 to_bfloat16_finite(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return {static_cast<uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16)};
}

// The same; and a NaN stays one.
POKEGAN_INLINE Bfloat16 to_bfloat16(float value) {
  return value != value ? Bfloat16{0x7FC0U} : to_bfloat16_finite(value);
}

// Values of any of the dtypes, for arithmetic in float.
POKEGAN_INLINE float read(float value) { return value; }
POKEGAN_INLINE float read(Bfloat16 value) { return to_float(value); }
POKEGAN_INLINE void write(float* at, float value) { *at = value; }
POKEGAN_INLINE void write(Bfloat16* at, float value) { *at = to_bfloat16(value); }

}  // namespace pokegan
