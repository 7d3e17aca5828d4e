#include <algorithm>
#include <cmath>

#include "../box_muller.h"
#include "check.h"

using namespace pokegan;

namespace {

constexpr double kQuarterOfPi = 0.78539816339744830962;

// How far `value` is from `exact`, in units of the last place of float32.
double ulps(float value, double exact) {
  if (exact == 0) return std::abs(value);
  return std::abs(value - exact) / std::ldexp(1.0, std::ilogb(exact) - 23);
}

// The wave of a turn of 2^24 parts, exact at the quarters.
double cosine(int turn) {
  const int quarter = ((turn + (1 << 21)) >> 22) & 3;
  const double angle = (turn - (((turn + (1 << 21)) >> 22) << 22)) * kQuarterOfPi / (1 << 21);
  const double wave = quarter % 2 == 0 ? std::cos(angle) : std::sin(angle);
  return quarter == 1 || quarter == 2 ? -wave : wave;
}

}  // namespace

TEST(normals_are_box_mullers_to_within_4_ulp) {
  double worst = 0;
  for (uint32_t i = 0; i < 2000000; ++i) {
    const uint32_t radius_word = i * 2654435761U;
    const uint32_t angle_word = i < 1000 ? (i << 29) + ((i / 8 % 3 - 1) << 8) : i * 1597334677U;
    const NormalPair pair = box_muller(radius_word, angle_word);
    const int turn = static_cast<int>(angle_word >> 8);
    const double radius = std::sqrt(-2 * std::log(((radius_word >> 8) + 1) / 16777216.0));
    worst = std::max({worst, ulps(pair.first, radius * cosine(turn)),
                      ulps(pair.second, radius * cosine(turn - (1 << 22)))});
  }
  CHECK(worst <= 4);
  CHECK(worst > 2);  // the measure is not blind
}

TEST(the_ends_of_the_radius) {
  CHECK(box_muller(0xFFFFFFFFU, 0x12345678U).first == 0.0F);
  CHECK_NEAR(box_muller(0, 0).first, std::sqrt(48 * std::log(2.0)), 1e-6);
  CHECK_NEAR(box_muller(0, 0x40000000U).second, std::sqrt(48 * std::log(2.0)), 1e-6);
  CHECK(box_muller(0, 0x40000000U).first == 0.0F);
}
