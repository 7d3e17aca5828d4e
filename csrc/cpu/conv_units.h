// Matrix products of packed blocks by the processor's bfloat16 units: AMX or AVX512-BF16, chosen at
// run time. Sums are in float32.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) && defined(__linux__) && \
    ((defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11))
#define POKEGAN_HAS_CONV 1
#if !defined(__clang__)
#pragma GCC diagnostic push  // GCC 12 takes its own header's undefined registers for a fault
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#define POKEGAN_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#define POKEGAN_AVX512_INLINE \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"), always_inline)) inline
#endif

namespace pokegan {

#ifdef POKEGAN_HAS_CONV

// Asks for what lies a page behind `bytes` bytes that are about to be read: a processor that sees a
// stream of memory by itself does not follow it into the next page. For what is written, and for
// streams that are read far apart, it did not pay.
inline void ask_ahead(const void* values, size_t bytes) {
  constexpr uintptr_t kAhead = 4096;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(values) + kAhead;
  for (uintptr_t place = begin; place < begin + bytes; place += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(place), _MM_HINT_T1);
  }
}

#endif

// The lowest `count` of 32 bits.
inline uint32_t mask_of(int64_t count) {
  return count >= 32 ? 0xFFFFFFFFU : (uint32_t{1} << count) - 1;
}

enum class Units : int64_t { kNone = 0, kAvx512 = 1, kAmx = 2 };

// The widest units that this processor has and the system lets a process use.
Units widest_units();

// How many bfloat16 values a value is made of: 1, or 2 or 3 whose sum is a float32.
constexpr int kMostParts = 3;

// A left and a right block, by their distance from the operands' beginnings in bytes.
struct Step {
  int64_t left;
  int64_t right;
};

// The products that are summed: at each step `count` blocks, so many bytes apart. The second tile
// of a left block begins `left_tile` bytes behind the first.
struct Run {
  const Step* steps;
  int64_t step_count;
  int64_t count;
  int64_t left_stride;
  int64_t right_stride;
  int64_t left_tile = 1024;
};

// sums [rows, columns, 16, 16] (+)= left [rows tiles of 16] x right [columns tiles of 16]
//
// A value of several parts has as many blocks, one after the other, the largest parts first. Of
// their products those are left out that are smaller than what the last part is rounded by.
using Product = void (*)(const Run& run, const char* left, const char* right, float* sums,
                         bool add);

// Of 32 channels, sums over `count` pixels that were written: of the differences from `shift`, the
// mean of the first of them, and of their squares; or, of the gradient g behind a norm's
// activation, of g (x - mean) and of g.
struct ChannelSums {
  alignas(64) float shift[32];
  alignas(64) double first[32];
  alignas(64) double second[32];
  int64_t count;
};

// Whose gradient is written: act(scale (x - mean) + bias), t or slope t below 0. The channels are
// padded to multiples of 32.
struct NormBefore {
  const uint16_t* x;
  const uint16_t* out;  // where the gradient begins; it lies in memory as x
  const float* mean;
  const float* scale;
  const float* bias;
  float slope;
};

// Sums of up to 32 pixels and 32 channels that are still to be written, as bfloat16.
struct Unwritten {
  const float* sums;
  const float* bias;  // of 32 channels; or nullptr
  uint16_t* const* pixels;
  int64_t offset;     // from there, of the first channel that is written
  int64_t count = 0;  // of pixels
  int64_t channels;
  ChannelSums* summed = nullptr;  // that the pixels are added to; or nullptr
  uint32_t counted = 0;           // which of the pixels are: a bit each
  const NormBefore* norm = nullptr;
  int64_t channel = 0;  // of the norm, that it is
};

// A product of one part, nothing added, while what was multiplied before is written.
using ProductWriting = void (*)(const Run& run, const char* left, const char* right, float* sums,
                                const Unwritten& before);

// What a kind of units does. `begin` and `end` stand around a thread's products.
struct Kernels {
  Product product[kMostParts][2][2];  // by parts, tiles of rows and of columns, all less one
  ProductWriting product_writing[2][2];
  void (*write)(const Unwritten& sums);
  void (*begin)();
  void (*end)();
};

const Kernels& kernels_of(Units units);

}  // namespace pokegan
