// Finds the units, and multiplies with them.
#include <algorithm>
#include <array>
#include <cstring>

#include "conv_units.h"

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

POKEGAN_AVX512_INLINE __m512 bias_of(const Unwritten& sums, int64_t first) {
  return sums.bias != nullptr ? _mm512_loadu_ps(sums.bias + first) : _mm512_setzero_ps();
}

// The 32 channels of pixel i of what is unwritten.
POKEGAN_AVX512_INLINE __m512i written_pixel(const Unwritten& sums, int64_t i, __m512 low_bias,
                                            __m512 high_bias) {
  const int64_t columns = sums.channels > 16 ? 2 : 1;
  const float* row = sums.sums + i / 16 * columns * 256 + i % 16 * 16;
  const __m512 low = _mm512_add_ps(_mm512_load_ps(row), low_bias);
  const __m512 high = _mm512_add_ps(_mm512_load_ps(row + 256 * (columns - 1)), high_bias);
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

POKEGAN_AVX512_INLINE __m512 wide_half(__m512i pixel, bool high) {
  const __m256i half = high ? _mm512_extracti64x4_epi64(pixel, 1) : _mm512_castsi512_si256(pixel);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// Writes pixels; and, where that is wanted, sums them in registers until `keep`.
template <bool kSummed>
class Writer {
 public:
  POKEGAN_AVX512_INLINE explicit Writer(const Unwritten& sums)
      : sums_(sums),
        mask_(sums.channels >= 32 ? 0xFFFFFFFFU : (uint32_t{1} << sums.channels) - 1),
        bias_{bias_of(sums, 0), bias_of(sums, 16)} {
    if constexpr (!kSummed) return;
    if (sums.written->count == 0) begin_sums();
    for (int half = 0; half < 2; ++half) {
      shift_[half] = _mm512_load_ps(sums.written->shift + 16 * half);
      sum_[half] = _mm512_setzero_ps();
      square_[half] = _mm512_setzero_ps();
    }
  }

  // The pixels [begin, end).
  POKEGAN_AVX512_INLINE void write(int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const __m512i pixel = written_pixel(sums_, i, bias_[0], bias_[1]);
      _mm512_mask_storeu_epi16(sums_.pixels[i] + sums_.channel, mask_, pixel);
      if constexpr (kSummed) {
        if ((sums_.counted >> i & 1U) == 0) continue;
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
          const __m512 away = _mm512_sub_ps(wide_half(pixel, half == 1), shift_[half]);
          sum_[half] = _mm512_add_ps(sum_[half], away);
          square_[half] = _mm512_fmadd_ps(away, away, square_[half]);
        }
      }
    }
  }

  // Behind the last pixel.
  POKEGAN_AVX512_INLINE void keep() const {
    if constexpr (!kSummed) return;
    ChannelSums& written = *sums_.written;
    for (int half = 0; half < 2; ++half) {
      float* sum = written.sum + 16 * half;
      float* square = written.square + 16 * half;
      _mm512_store_ps(sum, _mm512_add_ps(_mm512_load_ps(sum), sum_[half]));
      _mm512_store_ps(square, _mm512_add_ps(_mm512_load_ps(square), square_[half]));
    }
    written.count += __builtin_popcount(sums_.counted);
  }

 private:
  POKEGAN_AVX512_INLINE void begin_sums() const {
    constexpr int kFirst = 8;
    __m512 means[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    int found = 0;
    for (int64_t i = 0; i < sums_.count && found < kFirst; ++i) {
      if ((sums_.counted >> i & 1U) == 0) continue;
      const __m512i pixel = written_pixel(sums_, i, bias_[0], bias_[1]);
      for (int half = 0; half < 2; ++half) {
        means[half] = _mm512_add_ps(means[half], wide_half(pixel, half == 1));
      }
      ++found;
    }
    const __m512 share = _mm512_set1_ps(1.0F / static_cast<float>(std::max(found, 1)));
    for (int half = 0; half < 2; ++half) {
      _mm512_store_ps(sums_.written->shift + 16 * half, _mm512_mul_ps(means[half], share));
      _mm512_store_ps(sums_.written->sum + 16 * half, _mm512_setzero_ps());
      _mm512_store_ps(sums_.written->square + 16 * half, _mm512_setzero_ps());
    }
  }

  const Unwritten& sums_;
  const uint32_t mask_;
  const __m512 bias_[2];
  __m512 shift_[2];
  __m512 sum_[2];
  __m512 square_[2];
};

template <bool kSummed>
POKEGAN_AVX512 void write_all_of(const Unwritten& sums) {
  Writer<kSummed> writer(sums);
  writer.write(0, sums.count);
  writer.keep();
}

void write_all(const Unwritten& sums) {
  sums.written != nullptr ? write_all_of<true>(sums) : write_all_of<false>(sums);
}

// A matrix unit is at work for long after each order: the vector units write in between.
template <int kRows, int kColumns, bool kSummed>
POKEGAN_AMX void product_writing_of(const Run& run, const char* left, const char* right,
                                    float* sums, const Unwritten& before) {
  asm volatile("" ::: "memory");  // the tile loads do not say what they read
  Writer<kSummed> writer(before);
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
  const auto product = before.written != nullptr ? product_writing_of<kRows, kColumns, true>
                                                 : product_writing_of<kRows, kColumns, false>;
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
