#include <cstring>
#include <vector>

#include "../cpu/philox_lanes.h"
#include "../cpu/philox_rows.h"
#include "../philox.h"
#include "check.h"

using namespace pokegan;

namespace {

bool same(const Words4& a, const Words4& b) { return std::memcmp(&a, &b, sizeof(a)) == 0; }

}  // namespace

// Random123's known-answer vectors for Philox4x32-10.
TEST(philox_known_answers) {
  CHECK(same(philox4x32({{0, 0, 0, 0}}, 0, 0),
             {{0x6627E8D5U, 0xE169C58DU, 0xBC57AC4CU, 0x9B00DBD8U}}));
  const uint32_t ones = 0xFFFFFFFFU;
  CHECK(same(philox4x32({{ones, ones, ones, ones}}, ones, ones),
             {{0x408F276DU, 0x41C83B0EU, 0xA20BC7C6U, 0x6D5451FDU}}));
  CHECK(same(
      philox4x32({{0x243F6A88U, 0x85A308D3U, 0x13198A2EU, 0x03707344U}}, 0xA4093822U, 0x299F31D0U),
      {{0xD16CFE09U, 0x94FDCCEBU, 0x5001E420U, 0x24126EA1U}}));
}

TEST(words_come_from_the_documented_counter) {
  const RandomKey key{(UINT64_C(7) << 32) + 5, 3, 11};
  CHECK(same(random_words(key, 41, 2), philox4x32({{2, 41, 11, 3}}, 5, 7)));
}

TEST(uniforms_are_exact_at_the_ends) {
  CHECK(uniform_from(0) == 0.0F);
  CHECK(uniform_from(0xFFU) == 0.0F);
  CHECK(uniform_from(0x80000000U) == 0.5F);
  CHECK(uniform_from(0xFFFFFFFFU) == 1.0F - 1.0F / 16777216.0F);
}

TEST(every_form_of_many_counters_has_the_words_of_one) {
  std::vector<DrawLanes> forms{&draw_lanes_plain};
#if defined(__x86_64__) && defined(__GNUC__)
  if (__builtin_cpu_supports("avx2")) forms.push_back(&draw_lanes_avx2);
  if (__builtin_cpu_supports("avx512f")) forms.push_back(&draw_lanes_avx512);
#endif
  const RandomKey key{UINT64_C(0xFEDCBA9876543210), 0xFFFFFFFFU, 0x80000001U};
  Lanes lanes{};
  for (int lane = 0; lane < kLanes; ++lane) {
    lanes.sample[lane] = UINT64_C(0xFFFFFFFF00000000) + 0xFFFFFFF0U + static_cast<uint32_t>(lane);
    lanes.block[lane] = UINT64_C(0x7777777700000000) + 3U * static_cast<uint32_t>(lane);
  }
  for (const DrawLanes draw : forms) {
    std::memset(lanes.word, 0, sizeof(lanes.word));
    draw(key, lanes);
    for (int lane = 0; lane < kLanes; ++lane) {
      const Words4 one = random_words(key, static_cast<uint32_t>(lanes.sample[lane]),
                                      static_cast<uint32_t>(lanes.block[lane]));
      CHECK(std::memcmp(&one, lanes.word[lane], sizeof(one)) == 0);
    }
  }
}

TEST(every_form_of_a_row_of_counters_has_the_words_of_one) {
  std::vector<DrawRow> forms{&draw_row_plain};
#if defined(__x86_64__) && defined(__GNUC__)
  if (__builtin_cpu_supports("avx2")) forms.push_back(&draw_row_avx2);
  if (__builtin_cpu_supports("avx512f")) forms.push_back(&draw_row_avx512);
#endif
  const RandomKey keys[] = {{UINT64_C(0xFEDCBA9876543210), 0xFFFFFFFFU, 0x80000001U}, {0, 0, 0}};
  for (const RandomKey& key : keys) {
    for (const uint32_t block : {0U, 96U, 0xFFFFFFF0U}) {  // the last goes round to 0
      for (const DrawRow draw : forms) {
        uint32_t word[kRowWords] = {};
        draw(key, 0xFFFFFF01U, block, word);
        for (uint32_t i = 0; i < kRowBlocks; ++i) {
          const Words4 one = random_words(key, 0xFFFFFF01U, block + i);
          CHECK(std::memcmp(&one, word + 4 * i, sizeof(one)) == 0);
        }
      }
    }
  }
}
