#include <algorithm>
#include <vector>

#include "../diff_augment.h"
#include "check.h"

using namespace pokegan;

namespace {

constexpr Policy kAll{true, true, true};

}  // namespace

TEST(integers_reach_both_ends_and_no_farther) {
  CHECK(integer_below(0, 17) == 0);
  CHECK(integer_below(0xFFFFFFFFU, 17) == 16);
  CHECK(integer_below(0xFFFFFFFFU, 1) == 0);
  CHECK(integer_below(0x80000000U, 2) == 1);
}

TEST(moves_and_cutouts_have_the_papers_sizes) {
  for (int64_t side = 1; side <= 300; ++side) {
    CHECK(farthest_move(side) == static_cast<int64_t>(side * 0.125 + 0.5));
    CHECK(cutout_side(side) == static_cast<int64_t>(side * 0.5 + 0.5));
  }
}

TEST(parameters_stay_in_their_ranges) {
  const RandomKey key{9, 1, 2};
  const int64_t height = 33;
  const int64_t width = 64;
  for (uint32_t sample = 0; sample < 2000; ++sample) {
    const Augmentation chosen = augmentation_of(key, sample, kAll, height, width);
    CHECK(chosen.brightness >= -0.5F && chosen.brightness < 0.5F);
    CHECK(chosen.saturation >= 0.0F && chosen.saturation < 2.0F);
    CHECK(chosen.contrast >= 0.5F && chosen.contrast < 1.5F);
    CHECK(chosen.down >= -4 && chosen.down <= 4);
    CHECK(chosen.right >= -8 && chosen.right <= 8);
    CHECK(chosen.hole.top >= 0 && chosen.hole.bottom <= height);
    CHECK(chosen.hole.left >= 0 && chosen.hole.right <= width);
    CHECK(chosen.hole.top < chosen.hole.bottom && chosen.hole.left < chosen.hole.right);
  }
}

TEST(a_policy_left_out_changes_no_other) {
  const RandomKey key{9, 1, 2};
  const Augmentation all = augmentation_of(key, 5, kAll, 32, 32);
  const Augmentation moved = augmentation_of(key, 5, {false, true, false}, 32, 32);
  CHECK(moved.down == all.down && moved.right == all.right);
  CHECK(moved.brightness == 0.0F && moved.saturation == 1.0F && moved.contrast == 1.0F);
  CHECK(moved.hole.top == moved.hole.bottom);
}

TEST(kept_columns_say_the_same_as_keeps) {
  const int64_t height = 9;
  const int64_t width = 14;
  for (uint32_t sample = 0; sample < 500; ++sample) {
    const Augmentation chosen = augmentation_of({3, 1, 2}, sample, kAll, height, width);
    for (int64_t y = 0; y < height; ++y) {
      std::vector<int> times(width, 0);
      for (const Span& span : kept_columns(chosen, y).span) {
        for (int64_t x = span.begin; x < span.end; ++x) ++times.at(x);
      }
      for (int64_t x = 0; x < width; ++x) CHECK(times[x] == (chosen.keeps(y, x) ? 1 : 0));
    }
  }
}

// The three steps of the paper, one after the other, on a picture of two pixels.
TEST(one_map_is_the_three_colour_steps) {
  const Augmentation chosen = augmentation_of({3, 1, 2}, 8, kAll, 1, 2);
  const double start[6] = {0.3, -0.9, 0.1, 1.0, -0.2, 0.4};  // [pixel][channel]
  double stepped[6];
  double mean = 0;
  double moved_mean = 0;
  for (int i = 0; i < 6; ++i) mean += start[i] / 6;
  for (int i = 0; i < 6; ++i) {
    const double* pixel = start + i / 3 * 3;
    const double grey = (pixel[0] + pixel[1] + pixel[2]) / 3 + chosen.brightness;
    stepped[i] = (start[i] + chosen.brightness - grey) * chosen.saturation + grey;
    moved_mean += stepped[i] / 6;
  }
  const ColourMap<double> map = colour_map(chosen, mean, false);
  const ColourMap<double> linear = colour_map(chosen, mean, true);
  for (int i = 0; i < 6; ++i) {
    const double* pixel = start + i / 3 * 3;
    const double expected = (stepped[i] - moved_mean) * chosen.contrast + moved_mean;
    CHECK_NEAR(map(start[i], map.pixel_part(pixel[0], pixel[1], pixel[2])), expected, 1e-12);
    CHECK_NEAR(linear(start[i], linear.pixel_part(pixel[0], pixel[1], pixel[2])),
               expected - chosen.brightness, 1e-12);
  }
}
