// Values times what their words, or the bits of a mask, say. It is a product, and not a choice:
// what is not finite and the sign of zero are those of the product.
#include <cstring>

#include "dropout_rows.h"

namespace pokegan {
namespace {

template <typename Value>
POKEGAN_INLINE void scale_by_words(const uint32_t* __restrict word, const Value* __restrict in,
                                   Value* __restrict out, int64_t count, Rule<Value> rule) {
  for (int64_t i = 0; i < count; ++i) {
    store(out + i, load(in[i]) * dropout_factor(word[i], rule.limit, rule.scale));
  }
}

constexpr int64_t kChunk = 128;  // values, a multiple of 8

// Eight bytes of 0 or 1, and the byte that has them as its bits; the first is the lowest.
POKEGAN_INLINE void unpack(uint8_t byte, uint8_t* on) {
  constexpr uint64_t kEach = 0x0101010101010101U;
  const uint64_t bits = byte * kEach & 0x8040201008040201U;
  const uint64_t ones = (bits + 0x7F * kEach) >> 7 & kEach;
  for (int i = 0; i < 8; ++i) on[i] = static_cast<uint8_t>(ones >> 8 * i);
}

POKEGAN_INLINE uint8_t pack(const uint8_t* on) {
  uint64_t ones = 0;
  for (int i = 0; i < 8; ++i) ones |= static_cast<uint64_t>(on[i]) << 8 * i;
  return static_cast<uint8_t>(ones * 0x0102040810204080U >> 56);
}

template <typename Value>
POKEGAN_INLINE void scale_by_bits(const uint8_t* __restrict kept, const Value* __restrict in,
                                  Value* __restrict out, int64_t count, Real<Value> scale) {
  uint8_t on[kChunk];
  for (int64_t first = 0; first < count; first += kChunk) {
    const int64_t here = std::min(kChunk, count - first);
    for (int64_t i = 0; i < here; i += 8) unpack(kept[(first + i) / 8], on + i);
    for (int64_t i = 0; i < here; ++i) {
      store(out + first + i, load(in[first + i]) * (on[i] != 0 ? scale : Real<Value>(0)));
    }
  }
}

// Clones cannot be templates.
#define POKEGAN_DROPOUT_CLONES(Value)                                                            \
  POKEGAN_CLONES void by_words(const uint32_t* word, const Value* in, Value* out, int64_t count, \
                               Rule<Value> rule) {                                               \
    scale_by_words(word, in, out, count, rule);                                                  \
  }                                                                                              \
  POKEGAN_CLONES void by_bits(const uint8_t* kept, const Value* in, Value* out, int64_t count,   \
                              Real<Value> scale) {                                               \
    scale_by_bits(kept, in, out, count, scale);                                                  \
  }
POKEGAN_DROPOUT_CLONES(float)
POKEGAN_DROPOUT_CLONES(double)
POKEGAN_DROPOUT_CLONES(Bfloat16)
#undef POKEGAN_DROPOUT_CLONES

#if defined(__x86_64__) && defined(__GNUC__)
#define POKEGAN_AVX512 __attribute__((target("avx512f,avx512bw,bmi2")))
#define POKEGAN_AVX512_INLINE POKEGAN_AVX512 __attribute__((always_inline)) inline

bool has_avx512() {
  static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("bmi2");
  return has;
}

// Which of 32 values stay: those of even place, and those of odd.
struct Kept32 {
  __mmask16 even;
  __mmask16 odd;
};

constexpr uint32_t kEven = 0x55555555U;
constexpr uint32_t kOdd = 0xAAAAAAAAU;

POKEGAN_AVX512_INLINE uint32_t bits_of(Kept32 kept) {
  return _pdep_u32(kept.even, kEven) | _pdep_u32(kept.odd, kOdd);
}

// `word[j]` has word j of eight blocks in the low halves of its lanes.
POKEGAN_AVX512_INLINE Kept32 kept_of(const __m512i (&word)[4], __m512i limit) {
  const __m512i even = _mm512_mask_shuffle_epi32(word[0], 0xAAAA, word[2], _MM_PERM_CCAA);
  const __m512i odd = _mm512_mask_shuffle_epi32(word[1], 0xAAAA, word[3], _MM_PERM_CCAA);
  return {_mm512_cmpge_epu32_mask(even, limit), _mm512_cmpge_epu32_mask(odd, limit)};
}

// The forms with a mask of ones, because GCC 12 warns of its own header in those without.
POKEGAN_AVX512_INLINE __m512 times(__m512 values, __mmask16 kept, __m512 scale) {
  return _mm512_maskz_mul_ps(0xFFFF, values, _mm512_maskz_mov_ps(kept, scale));
}

// The bits of a bfloat16 are in the high halves; the low ones are anything.
POKEGAN_AVX512_INLINE __m512i times_rounded(__m512i values, __mmask16 kept, __m512 scale) {
  const __m512i product = _mm512_castps_si512(times(_mm512_castsi512_ps(values), kept, scale));
  const __mmask16 odd = _mm512_test_epi32_mask(product, _mm512_set1_epi32(0x10000));
  const __m512i sum = _mm512_add_epi32(product, _mm512_set1_epi32(0x7FFF));
  return _mm512_mask_add_epi32(sum, odd, sum, _mm512_set1_epi32(1));
}

POKEGAN_AVX512_INLINE void scale32(const Bfloat16* in, Bfloat16* out, Kept32 kept, __m512 scale) {
  const __m512i both = _mm512_loadu_si512(in);
  const __m512i low = _mm512_maskz_slli_epi32(0xFFFF, both, 16);
  const __m512i high = _mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(0xFFFF0000U)));
  const __m512i even = _mm512_maskz_srli_epi32(0xFFFF, times_rounded(low, kept.even, scale), 16);
  const __m512i odd = times_rounded(high, kept.odd, scale);
  _mm512_storeu_si512(out, _mm512_mask_mov_epi16(odd, kEven, even));
}

POKEGAN_AVX512_INLINE void scale32(const float* in, float* out, Kept32 kept, __m512 scale) {
  const uint32_t bits = bits_of(kept);
  for (int i = 0; i < 2; ++i) {
    const auto half = static_cast<__mmask16>(bits >> 16 * i);
    _mm512_storeu_ps(out + 16 * i, times(_mm512_loadu_ps(in + 16 * i), half, scale));
  }
}

// Whole rows of a run. Returns how many values that is.
template <bool kWrite, typename Value>
POKEGAN_AVX512_INLINE int64_t drop_rows(const DropoutRun& run, const Value* in, Value* out,
                                        uint8_t* kept, Rule<Value> rule) {
  const RowStart start = row_start(run.key, run.sample);
  const __m512i limit = _mm512_set1_epi32(static_cast<int>(rule.limit));
  const __m512 scale = _mm512_set1_ps(rule.scale);
  const int64_t count = (run.end - run.begin) / kRowWords * kRowWords;
  for (int64_t i = 0; i < count; i += kRowWords) {
    __m512i word[kRowBlocks / 8][4];
    draw_lanes_of_row(start, static_cast<uint32_t>((run.begin + i) / 4), word);
#pragma GCC unroll 4
    for (int j = 0; j < kRowBlocks / 8; ++j) {
      const int64_t at = i + 32 * j;
      const Kept32 here = kept_of(word[j], limit);
      if constexpr (kWrite) {
        const uint32_t bits = bits_of(here);
        std::memcpy(kept + at / 8, &bits, sizeof(bits));
      }
      scale32(in + at, out + at, here, scale);
    }
  }
  return count;
}

template <typename Value>
POKEGAN_AVX512_INLINE int64_t again_rows(const Value* in, const uint8_t* kept, Value* out,
                                         int64_t count, float of_kept) {
  const __m512 scale = _mm512_set1_ps(of_kept);
  int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    uint32_t bits;
    std::memcpy(&bits, kept + i / 8, sizeof(bits));
    const Kept32 here{static_cast<__mmask16>(_pext_u32(bits, kEven)),
                      static_cast<__mmask16>(_pext_u32(bits, kOdd))};
    scale32(in + i, out + i, here, scale);
  }
  return i;
}

#define POKEGAN_DROPOUT_AVX512(Value)                                                    \
  POKEGAN_AVX512 int64_t drop_avx512(const DropoutRun& run, const Value* in, Value* out, \
                                     uint8_t* kept, Rule<Value> rule) {                  \
    return kept == nullptr ? drop_rows<false>(run, in, out, kept, rule)                  \
                           : drop_rows<true>(run, in, out, kept, rule);                  \
  }                                                                                      \
  POKEGAN_AVX512 int64_t again_avx512(const Value* in, const uint8_t* kept, Value* out,  \
                                      int64_t count, float scale) {                      \
    return again_rows(in, kept, out, count, scale);                                      \
  }
POKEGAN_DROPOUT_AVX512(float)
POKEGAN_DROPOUT_AVX512(Bfloat16)
#undef POKEGAN_DROPOUT_AVX512
#endif

// How many of the first values the widest form that the processor has did.
template <typename Value>
int64_t drop_widest([[maybe_unused]] const DropoutRun& run, [[maybe_unused]] const Value* in,
                    [[maybe_unused]] Value* out, [[maybe_unused]] uint8_t* kept,
                    [[maybe_unused]] Rule<Value> rule) {
#if defined(__x86_64__) && defined(__GNUC__)
  if constexpr (!std::is_same_v<Value, double>) {
    if (has_avx512()) return drop_avx512(run, in, out, kept, rule);
  }
#endif
  return 0;
}

template <typename Value>
int64_t again_widest([[maybe_unused]] const Value* in, [[maybe_unused]] const uint8_t* kept,
                     [[maybe_unused]] Value* out, [[maybe_unused]] int64_t count,
                     [[maybe_unused]] Real<Value> scale) {
#if defined(__x86_64__) && defined(__GNUC__)
  if constexpr (!std::is_same_v<Value, double>) {
    if (has_avx512()) return again_avx512(in, kept, out, count, scale);
  }
#endif
  return 0;
}

template <typename Value>
void drop(DropoutRun run, const Value* in, Value* out, uint8_t* kept, Rule<Value> rule) {
  const int64_t begin = run.begin;
  run.begin += drop_widest(run, in, out, kept, rule);
  draw_run(run, [&](const uint32_t* word, int64_t first, int64_t count) {
    const int64_t at = first - begin;
    by_words(word, in + at, out + at, count, rule);
    if (kept != nullptr) write_bits(word, kept + at / 8, count, rule.limit);
  });
}

template <typename Value>
void again(const Value* in, const uint8_t* kept, Value* out, int64_t count, Real<Value> scale) {
  const int64_t done = again_widest(in, kept, out, count, scale);
  by_bits(kept + done / 8, in + done, out + done, count - done, scale);
}

}  // namespace

POKEGAN_CLONES void write_bits(const uint32_t* word, uint8_t* kept, int64_t count, uint32_t limit) {
  uint8_t on[kChunk] = {};
  for (int64_t first = 0; first < count; first += kChunk) {
    const int64_t here = std::min(kChunk, count - first);
    for (int64_t i = 0; i < here; ++i) on[i] = word[first + i] >= limit ? 1 : 0;
    for (int64_t i = here; i % 8 != 0; ++i) on[i] = 0;
    for (int64_t i = 0; i < here; i += 8) kept[(first + i) / 8] = pack(on + i);
  }
}

void drop_in_order(const DropoutRun& run, const float* in, float* out, uint8_t* kept,
                   Rule<float> rule) {
  drop(run, in, out, kept, rule);
}
void drop_in_order(const DropoutRun& run, const double* in, double* out, uint8_t* kept,
                   Rule<double> rule) {
  drop(run, in, out, kept, rule);
}
void drop_in_order(const DropoutRun& run, const Bfloat16* in, Bfloat16* out, uint8_t* kept,
                   Rule<Bfloat16> rule) {
  drop(run, in, out, kept, rule);
}

void drop_again(const float* in, const uint8_t* kept, float* out, int64_t count, float scale) {
  again(in, kept, out, count, scale);
}
void drop_again(const double* in, const uint8_t* kept, double* out, int64_t count, double scale) {
  again(in, kept, out, count, scale);
}
void drop_again(const Bfloat16* in, const uint8_t* kept, Bfloat16* out, int64_t count,
                float scale) {
  again(in, kept, out, count, scale);
}

}  // namespace pokegan
