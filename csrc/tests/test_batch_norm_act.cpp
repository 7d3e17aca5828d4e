#include <limits>
#include <vector>

#include "../batch_norm_act.h"
#include "check.h"

using namespace pokegan;

namespace {

ChunkSums sums_of(const std::vector<double>& values, double shift) {
  ChunkSums sums{static_cast<double>(values.size()), shift, 0, 0};
  for (const double value : values) {
    sums.sum += value - shift;
    sums.square += (value - shift) * (value - shift);
  }
  return sums;
}

}  // namespace

TEST(chunks_are_whole_groups_of_rows) {
  for (int64_t channels = 0; channels < 5000; ++channels) {
    const int64_t rows = chunk_rows(channels);
    CHECK(rows >= 16 && rows <= 256 && rows % kShiftRows == 0);
  }
  CHECK(chunk_rows(3) == 256);
  CHECK(chunk_rows(512) == 64);
}

// (1, 2, 6) and (7, 9): the mean is 5 and the squared distances are 16 + 9 + 1 and 4 + 16.
TEST(chunks_with_shifts_of_their_own_make_one_variance) {
  for (const double shift : {0.0, 1.0, -30.0}) {
    const ChunkSums one = sums_of({1, 2, 6}, shift);
    const ChunkSums two = sums_of({7, 9}, 8 + shift);
    CHECK_NEAR((one.total() + two.total()) / 5, 5, 1e-12);
    CHECK_NEAR(one.spread(5), 26, 1e-9);
    CHECK_NEAR(two.spread(5), 20, 1e-9);
  }
}

TEST(an_activation_is_its_slope) {
  CHECK(activation_of(0) == Activation::kRelu);
  CHECK(activation_of(1) == Activation::kNone);
  CHECK(activation_of(0.2) == Activation::kLeaky);
  for (const float t : {-3.0F, 0.0F, 2.0F}) {
    CHECK(activate<Activation::kNone>(t, 0.2F) == t);
    CHECK(activate<Activation::kRelu>(t, 0.2F) == (t > 0 ? t : 0));
    CHECK(activate<Activation::kLeaky>(t, 0.5F) == (t > 0 ? t : 0.5F * t));
    CHECK(activate_backward<Activation::kNone>(4, t, 0.2F) == 4);
    CHECK(activate_backward<Activation::kRelu>(4, t, 0.2F) == (t > 0 ? 4 : 0));
    CHECK(activate_backward<Activation::kLeaky>(4, t, 0.5F) == (t > 0 ? 4 : 2));
  }
}

TEST(a_nan_stays_one_and_an_infinity_vanishes_below_a_relu) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(std::isnan(activate<Activation::kNone>(nan, 1)));
  CHECK(std::isnan(activate<Activation::kRelu>(nan, 0)));
  CHECK(std::isnan(activate<Activation::kLeaky>(nan, 0.2F)));
  CHECK(activate<Activation::kRelu>(-infinity, 0) == 0);
  CHECK(activate<Activation::kLeaky>(-infinity, 0.2F) == -infinity);
  CHECK(activate_backward<Activation::kRelu>(infinity, -1, 0) == 0);
}
