// AMX's tiles as arrays of a thread: a processor without them runs what is written for them.
// `-include` this before conv_units_cpu.cpp. Slow; for tests.
#pragma once

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif

namespace host_amx {

constexpr int kTiles = 8;
constexpr int kRows = 16;
constexpr int kPairs = 16;  // of bfloat16 in a row; or float sums

struct Tile {
  uint32_t words[kRows][kPairs];
};

struct Unit {
  bool configured = false;
  Tile tiles[kTiles];
};

inline thread_local Unit unit;

// What the processor would stop at.
inline Tile& tile(int number) {
  if (!unit.configured || number < 0 || number >= kTiles) {
    std::fprintf(stderr, "tile %d is used outside of begin and end\n", number);
    std::abort();
  }
  return unit.tiles[number];
}

inline void configure(const void* shapes) {
  const auto* bytes = static_cast<const uint8_t*>(shapes);
  bool whole = bytes[0] == 1;
  for (int i = 0; i < kTiles; ++i) {
    uint16_t row_bytes;
    std::memcpy(&row_bytes, bytes + 16 + 2 * i, sizeof(row_bytes));
    whole = whole && row_bytes == 64 && bytes[48 + i] == kRows;
  }
  if (!whole) std::abort();  // no others are used
  unit.configured = true;
  for (Tile& one : unit.tiles) std::memset(&one, 0, sizeof(one));
}

inline void release() { unit.configured = false; }

inline void zero(int number) { std::memset(&tile(number), 0, sizeof(Tile)); }

inline void load(int number, const void* base, int64_t stride) {
  for (int row = 0; row < kRows; ++row) {
    std::memcpy(tile(number).words[row], static_cast<const char*>(base) + row * stride, 64);
  }
}

inline void store(int number, void* base, int64_t stride) {
  for (int row = 0; row < kRows; ++row) {
    std::memcpy(static_cast<char*>(base) + row * stride, tile(number).words[row], 64);
  }
}

// sums += left x right: of each pair of bfloat16 the low product first. Numbers below 2^-126 count
// as zeros.
__attribute__((target("avx512f"))) inline void multiply(int sums, int left, int right) {
  const Tile& factors = tile(left);
  const Tile& by = tile(right);
  const __m512i high_half = _mm512_set1_epi32(static_cast<int>(0xFFFF0000U));
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040U);
  for (int row = 0; row < kRows; ++row) {
    __m512 sum = _mm512_loadu_ps(tile(sums).words[row]);
    for (int pair = 0; pair < kPairs; ++pair) {
      const __m512i two = _mm512_loadu_si512(by.words[pair]);
      const __m512i one = _mm512_set1_epi32(static_cast<int>(factors.words[row][pair]));
      sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(one, 16)),
                            _mm512_castsi512_ps(_mm512_slli_epi32(two, 16)), sum);
      sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(one, high_half)),
                            _mm512_castsi512_ps(_mm512_and_si512(two, high_half)), sum);
    }
    _mm512_storeu_ps(tile(sums).words[row], sum);
  }
  _mm_setcsr(before);
}

// A processor that says it has tiles, for bfloat16.
inline int features(unsigned leaf, unsigned part, unsigned* eax, unsigned* ebx, unsigned* ecx,
                    unsigned* edx) {
  const int there = __get_cpuid_count(leaf, part, eax, ebx, ecx, edx);
  if (leaf == 7 && part == 0) *edx |= 1U << 22 | 1U << 24;
  return there;
}

}  // namespace host_amx

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(shapes) host_amx::configure(shapes)
#define _tile_release() host_amx::release()
#define _tile_zero(number) host_amx::zero(number)
#define _tile_loadd(number, base, stride) host_amx::load(number, base, stride)
#define _tile_stored(number, base, stride) host_amx::store(number, base, stride)
#define _tile_dpbf16ps(sums, left, right) host_amx::multiply(sums, left, right)
#define __get_cpuid_count(leaf, part, eax, ebx, ecx, edx) \
  host_amx::features(leaf, part, eax, ebx, ecx, edx)
#define syscall(number, request, data) (static_cast<void>(request), static_cast<void>(data), 0)
