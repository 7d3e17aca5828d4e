#include <set>

#include "../dropout.h"
#include "check.h"

using namespace pokegan;

TEST(values_are_kept_where_the_uniform_is_at_least_p) {
  for (const double p : {0.0, 1e-9, 0.1, 0.25, 0.3, 0.5, 0.7, 0.999, 1 - 1e-7}) {
    const DropoutRule rule = dropout_rule(p);
    for (int64_t word = rule.limit - 600LL; word < rule.limit + 600LL; word += 7) {
      if (word < 0 || word > INT64_C(0xFFFFFFFF)) continue;
      const auto bits = static_cast<uint32_t>(word);
      const bool kept = uniform_from(bits) >= static_cast<float>(p);
      CHECK(dropout_factor(bits, rule.limit, rule.scale) == (kept ? rule.scale : 0.0F));
    }
    CHECK_NEAR(rule.scale * (1 - p), 1, 1e-7);
  }
}

TEST(dropout_reaches_its_ends) {
  CHECK(dropout_rule(0.0).limit == 0 && dropout_rule(0.0).scale == 1.0F);
  CHECK(dropout_rule(0.5).limit == 1U << 31 && dropout_rule(0.5).scale == 2.0F);
  CHECK(dropout_rule(1 - 1.0 / 16777216).limit == 0xFFFFFF00U);
  CHECK(dropout_rule(1 - 1e-9).scale == 0.0F);  // as a float it is 1, which no uniform reaches
}

TEST(a_value_has_the_same_word_in_every_layout) {
  const uint32_t channels = 5;
  const uint32_t pixels = 6;
  std::set<uint32_t> words;
  for (uint32_t channel = 0; channel < channels; ++channel) {
    for (uint32_t pixel = 0; pixel < pixels; ++pixel) {
      const uint32_t planar = channel * pixels + pixel;
      const uint32_t interleaved = pixel * channels + channel;
      const uint32_t word = dropout_word<DropoutOrder::kPlanes>(planar, channels, pixels);
      CHECK(word == dropout_word<DropoutOrder::kInOrder>(interleaved, channels, pixels));
      CHECK(dropout_word<DropoutOrder::kPlanarMaps>(planar, channels, pixels) == channel);
      CHECK(dropout_word<DropoutOrder::kInterleavedMaps>(interleaved, channels, pixels) == channel);
      words.insert(word);
    }
  }
  CHECK(words.size() == channels * pixels);
  CHECK(*words.rbegin() == channels * pixels - 1);
}

TEST(each_pass_over_the_samples_has_its_own_stream) {
  const RandomKey key{7, 0xFFFFFFFFU, 3};
  CHECK(dropout_key(key, 3, 4).stream == 0xFFFFFFFFU);
  CHECK(dropout_key(key, 4, 4).stream == 0);
  CHECK(dropout_key(key, 11, 4).stream == 1);
  CHECK(dropout_key(key, 11, 4).seed == 7 && dropout_key(key, 11, 4).step == 3);
}
