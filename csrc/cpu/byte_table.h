// A table of 256 words of 16 bits, looked up for many bytes at once. Where the processor permutes
// bytes across a whole register (AVX-512 VBMI), 64 at a time: there arithmetic would be the limit.
#pragma once

#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace pokegan {

struct ByteTable {
  uint16_t word[256];
  uint8_t low[256];   // the low bytes of `word`
  uint8_t high[256];  // and the high ones
};

template <typename WordOf>
ByteTable make_byte_table(WordOf word_of) {
  ByteTable table;
  for (int byte = 0; byte < 256; ++byte) {
    table.word[byte] = word_of(static_cast<uint8_t>(byte));
    table.low[byte] = static_cast<uint8_t>(table.word[byte]);
    table.high[byte] = static_cast<uint8_t>(table.word[byte] >> 8);
  }
  return table;
}

#if defined(__x86_64__) && defined(__GNUC__)
inline bool looks_up_fast() {
  static const bool fast =
      __builtin_cpu_supports("avx512vbmi") != 0 && __builtin_cpu_supports("avx512bw") != 0;
  return fast;
}

__attribute__((target("avx512f,avx512bw,avx512vbmi"))) inline __m512i look_up_bytes(
    const uint8_t* table, __m512i bytes) {
  const __m512i lower =
      _mm512_permutex2var_epi8(_mm512_loadu_si512(table), bytes, _mm512_loadu_si512(table + 64));
  const __m512i upper = _mm512_permutex2var_epi8(_mm512_loadu_si512(table + 128), bytes,
                                                 _mm512_loadu_si512(table + 192));
  return _mm512_mask_blend_epi8(_mm512_movepi8_mask(bytes), lower, upper);
}

// The first multiple of 64 bytes; returns how many were done.
__attribute__((target("avx512f,avx512bw,avx512vbmi"))) inline int64_t look_up_blocks(
    const ByteTable& table, const uint8_t* bytes, uint16_t* out, int64_t count) {
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  int64_t done = 0;
  for (; done + 64 <= count; done += 64) {
    const __m512i block = _mm512_loadu_si512(bytes + done);
    const __m512i low = look_up_bytes(table.low, block);
    const __m512i high = look_up_bytes(table.high, block);
    const __m512i even = _mm512_unpacklo_epi8(low, high);
    const __m512i odd = _mm512_unpackhi_epi8(low, high);
    _mm512_storeu_si512(out + done, _mm512_permutex2var_epi64(even, first, odd));
    _mm512_storeu_si512(out + done + 32, _mm512_permutex2var_epi64(even, second, odd));
  }
  return done;
}
#else
inline bool looks_up_fast() { return false; }
inline int64_t look_up_blocks(const ByteTable&, const uint8_t*, uint16_t*, int64_t) { return 0; }
#endif

}  // namespace pokegan
