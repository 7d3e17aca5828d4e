// Finds the units, and multiplies with them.
#include <algorithm>
#include <array>
#include <cstring>

#include "conv_units.h"
#include "conv_writer.h"

#ifdef POKEGAN_HAS_CONV
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace pokegan {

#ifdef POKEGAN_HAS_CONV
namespace {

#define POKEGAN_AMX \
  __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512bf16")))
#define POKEGAN_AMX_INLINE                                                         \
  __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512bf16"), \
                 always_inline)) inline

struct Features {
  uint32_t eax, ebx, ecx, edx;
};

Features features(uint32_t leaf, uint32_t part) {
  Features found{};
  if (__get_cpuid_count(leaf, part, &found.eax, &found.ebx, &found.ecx, &found.edx) == 0) return {};
  return found;
}

// Linux lets a process use the tiles only after it has asked.
bool may_use_tiles() {
#ifdef SYS_arch_prctl
  constexpr long kRequestPermission = 0x1023;
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

Units find_units() {
  // The builtin looks at what the system saves of the registers, too.
  const bool vectors = __builtin_cpu_supports("avx512bw") != 0 &&
                       __builtin_cpu_supports("avx512vl") != 0 &&
                       (features(7, 1).eax >> 5 & 1U) != 0;
  if (!vectors) return Units::kNone;
  const uint32_t extended = features(7, 0).edx;
  const bool tiles = (extended >> 22 & 1U) != 0 && (extended >> 24 & 1U) != 0;
  return tiles && may_use_tiles() ? Units::kAmx : Units::kAvx512;
}

struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

POKEGAN_AMX void begin_amx() {
  static const TileShapes shapes;
  _tile_loadconfig(&shapes);
}

POKEGAN_AMX void end_amx() { _tile_release(); }

// Which parts of a left and a right value are multiplied, in an order in which each differs from
// the one before in one operand alone.
struct PartPair {
  int left;
  int right;
};

template <int kParts>
constexpr std::array<PartPair, kParts*(kParts + 1) / 2> part_pairs() {
  if constexpr (kParts == 1) return {{{0, 0}}};
  if constexpr (kParts == 2) return {{{1, 0}, {0, 0}, {0, 1}}};
  if constexpr (kParts == 3) return {{{2, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 0}, {0, 2}}};
}

constexpr int kTileBytes = 1024;
constexpr int kPartBytes = 2 * kTileBytes;

// Tiles 0 to 3 hold the sums, [rows, columns]; 4 and 5 are left operands, 6 and 7 right ones.
constexpr int kTileValues = 256;

template <int kRows, int kColumns>
POKEGAN_AMX_INLINE void clear_sums() {
  _tile_zero(0);
  if constexpr (kColumns == 2) _tile_zero(1);
  if constexpr (kRows == 2) _tile_zero(2);
  if constexpr (kRows == 2 && kColumns == 2) _tile_zero(3);
}

template <int kRows, int kColumns>
POKEGAN_AMX_INLINE void load_sums(const float* sums) {
  _tile_loadd(0, sums, 64);
  if constexpr (kColumns == 2) _tile_loadd(1, sums + kTileValues, 64);
  if constexpr (kRows == 2) _tile_loadd(2, sums + kColumns * kTileValues, 64);
  if constexpr (kRows == 2 && kColumns == 2) _tile_loadd(3, sums + 3 * kTileValues, 64);
}

template <int kRows, int kColumns>
POKEGAN_AMX_INLINE void store_sums(float* sums) {
  _tile_stored(0, sums, 64);
  if constexpr (kColumns == 2) _tile_stored(1, sums + kTileValues, 64);
  if constexpr (kRows == 2) _tile_stored(2, sums + kColumns * kTileValues, 64);
  if constexpr (kRows == 2 && kColumns == 2) _tile_stored(3, sums + 3 * kTileValues, 64);
}

// Adds the products of one pair of parts, then of those after it.
template <int kParts, int kRows, int kColumns, int kPair = 0>
POKEGAN_AMX_INLINE void add_products(const char* a, int64_t a_tile, const char* b) {
  constexpr auto pairs = part_pairs<kParts>();
  constexpr PartPair pair = pairs[kPair];
  if constexpr (kPair == 0 || pair.left != pairs[kPair > 0 ? kPair - 1 : 0].left) {
    _tile_loadd(4, a + kPartBytes * pair.left, 64);
    if constexpr (kRows == 2) _tile_loadd(5, a + kPartBytes * pair.left + a_tile, 64);
  }
  if constexpr (kPair == 0 || pair.right != pairs[kPair > 0 ? kPair - 1 : 0].right) {
    _tile_loadd(6, b + kPartBytes * pair.right, 64);
    if constexpr (kColumns == 2) _tile_loadd(7, b + kPartBytes * pair.right + kTileBytes, 64);
  }
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (kColumns == 2) _tile_dpbf16ps(1, 4, 7);
  if constexpr (kRows == 2) _tile_dpbf16ps(2, 5, 6);
  if constexpr (kRows == 2 && kColumns == 2) _tile_dpbf16ps(3, 5, 7);
  if constexpr (kPair + 1 < static_cast<int>(pairs.size())) {
    add_products<kParts, kRows, kColumns, kPair + 1>(a, a_tile, b);
  }
}

// A matrix unit is at work for long after each order: the vector units write in between.
template <int kRows, int kColumns, typename Sums>
POKEGAN_AMX void product_writing_of(const Run& run, const char* left, const char* right,
                                    float* sums, const Unwritten& before) {
  asm volatile("" ::: "memory");  // the tile loads do not say what they read
  Writer<Sums> writer(before);
  const int64_t orders = run.step_count * run.count;
  const int64_t each = orders > 0 ? (before.count + orders - 1) / orders : 0;
  int64_t written = 0;
  clear_sums<kRows, kColumns>();
  for (int64_t i = 0; i < run.step_count; ++i) {
    const char* a = left + run.steps[i].left;
    const char* b = right + run.steps[i].right;
    for (int64_t j = 0; j < run.count; ++j, a += run.left_stride, b += run.right_stride) {
      add_products<1, kRows, kColumns>(a, run.left_tile, b);
      const int64_t end = std::min(written + each, before.count);
      writer.write(written, end);
      written = end;
    }
  }
  writer.write(written, before.count);
  writer.keep();
  store_sums<kRows, kColumns>(sums);
  asm volatile("" ::: "memory");
}

template <int kRows, int kColumns>
void product_writing_amx(const Run& run, const char* left, const char* right, float* sums,
                         const Unwritten& before) {
  const auto product = before.summed == nullptr ? product_writing_of<kRows, kColumns, NoSums>
                       : before.norm == nullptr ? product_writing_of<kRows, kColumns, MomentSums>
                                                : product_writing_of<kRows, kColumns, GradientSums>;
  product(run, left, right, sums, before);
}

template <int kParts, int kRows, int kColumns>
POKEGAN_AMX void product_amx(const Run& run, const char* left, const char* right, float* sums,
                             bool add) {
  asm volatile("" ::: "memory");  // the tile loads do not say what they read
  if (add) {
    load_sums<kRows, kColumns>(sums);
  } else {
    clear_sums<kRows, kColumns>();
  }
  for (int64_t i = 0; i < run.step_count; ++i) {
    const char* a = left + run.steps[i].left;
    const char* b = right + run.steps[i].right;
    for (int64_t j = 0; j < run.count; ++j, a += run.left_stride, b += run.right_stride) {
      add_products<kParts, kRows, kColumns>(a, run.left_tile, b);
    }
  }
  store_sums<kRows, kColumns>(sums);
  asm volatile("" ::: "memory");
}

// Eight rows at a time: their sums, and what they are multiplied by, fit into the registers.
template <int kParts, int kRows, int kColumns>
POKEGAN_AVX512 void product_avx512(const Run& run, const char* left, const char* right, float* sums,
                                   bool add) {
  constexpr int kHeld = 8;
  for (int row = 0; row < 16 * kRows; row += kHeld) {
    float* tile = sums + row / 16 * kColumns * 256 + row % 16 * 16;
    __m512 held[kHeld][kColumns];
#pragma GCC unroll 8
    for (int r = 0; r < kHeld; ++r) {
#pragma GCC unroll 2
      for (int c = 0; c < kColumns; ++c) {
        held[r][c] = add ? _mm512_loadu_ps(tile + 256 * c + 16 * r) : _mm512_setzero_ps();
      }
    }
    for (int64_t i = 0; i < run.step_count; ++i) {
      const char* a = left + run.steps[i].left + row / 16 * run.left_tile + 64 * (row % 16);
      const char* b = right + run.steps[i].right;
      for (int64_t j = 0; j < run.count; ++j, a += run.left_stride, b += run.right_stride) {
        for (const PartPair parts : part_pairs<kParts>()) {
          for (int pair = 0; pair < 16; ++pair) {
            __m512bh values[kColumns];
#pragma GCC unroll 2
            for (int c = 0; c < kColumns; ++c) {
              values[c] = (__m512bh)_mm512_load_si512(b + kPartBytes * parts.right +
                                                      kTileBytes * c + 64 * pair);
            }
#pragma GCC unroll 8
            for (int r = 0; r < kHeld; ++r) {
              int32_t word;
              std::memcpy(&word, a + kPartBytes * parts.left + 64 * r + 4 * pair, sizeof(word));
              const auto factor = (__m512bh)_mm512_set1_epi32(word);
#pragma GCC unroll 2
              for (int c = 0; c < kColumns; ++c) {
                held[r][c] = _mm512_dpbf16_ps(held[r][c], factor, values[c]);
              }
            }
          }
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kHeld; ++r) {
#pragma GCC unroll 2
      for (int c = 0; c < kColumns; ++c) _mm512_storeu_ps(tile + 256 * c + 16 * r, held[r][c]);
    }
  }
}

template <int kRows, int kColumns>
void product_writing_avx512(const Run& run, const char* left, const char* right, float* sums,
                            const Unwritten& before) {
  write_all(before);
  product_avx512<1, kRows, kColumns>(run, left, right, sums, false);
}

void nothing() {}

}  // namespace

Units widest_units() {
  static const Units units = find_units();
  return units;
}

const Kernels& kernels_of(Units units) {
  static const Kernels amx = {
      {{{product_amx<1, 1, 1>, product_amx<1, 1, 2>}, {product_amx<1, 2, 1>, product_amx<1, 2, 2>}},
       {{product_amx<2, 1, 1>, product_amx<2, 1, 2>}, {product_amx<2, 2, 1>, product_amx<2, 2, 2>}},
       {{product_amx<3, 1, 1>, product_amx<3, 1, 2>},
        {product_amx<3, 2, 1>, product_amx<3, 2, 2>}}},
      {{product_writing_amx<1, 1>, product_writing_amx<1, 2>},
       {product_writing_amx<2, 1>, product_writing_amx<2, 2>}},
      write_all,
      begin_amx,
      end_amx};
  static const Kernels avx512 = {{{{product_avx512<1, 1, 1>, product_avx512<1, 1, 2>},
                                   {product_avx512<1, 2, 1>, product_avx512<1, 2, 2>}},
                                  {{product_avx512<2, 1, 1>, product_avx512<2, 1, 2>},
                                   {product_avx512<2, 2, 1>, product_avx512<2, 2, 2>}},
                                  {{product_avx512<3, 1, 1>, product_avx512<3, 1, 2>},
                                   {product_avx512<3, 2, 1>, product_avx512<3, 2, 2>}}},
                                 {{product_writing_avx512<1, 1>, product_writing_avx512<1, 2>},
                                  {product_writing_avx512<2, 1>, product_writing_avx512<2, 2>}},
                                 write_all,
                                 nothing,
                                 nothing};
  return units == Units::kAmx ? amx : avx512;
}

#else

Units widest_units() { return Units::kNone; }

#endif

}  // namespace pokegan
