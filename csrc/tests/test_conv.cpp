#include "../conv.h"
#include "check.h"

using namespace pokegan;

// Every meeting of x, y and a tap is in both axes, once.
TEST(both_directions_have_the_same_meetings) {
  for (int64_t size = 1; size <= 9; ++size) {
    for (int64_t kernel = 1; kernel <= 5; ++kernel) {
      for (int64_t stride = 1; stride <= 3; ++stride) {
        for (int64_t padding = 0; padding <= 2; ++padding) {
          const int64_t out = conv_size(size, kernel, stride, padding);
          if (out < 1) continue;
          const Axis down = conv_axis(out, size, kernel, stride, padding);
          const Axis up = transposed_axis(size, out, kernel, stride, padding);
          CHECK(down.size() == out && up.size() == size);
          CHECK(down.taps.size() == up.taps.size());
          for (int64_t y = 0; y < out; ++y) {
            for (const Axis::Tap* tap = down.begin(y); tap != down.end(y); ++tap) {
              CHECK(tap->source == y * stride - padding + tap->tap);
              int64_t found = 0;
              for (const Axis::Tap* back = up.begin(tap->source); back != up.end(tap->source);
                   ++back) {
                found += back->source == y && back->tap == tap->tap ? 1 : 0;
              }
              CHECK(found == 1);
            }
          }
        }
      }
    }
  }
}

TEST(a_transposed_convolution_undoes_the_size) {
  for (int64_t size = 1; size <= 20; ++size) {
    const int64_t out = conv_size(size, 4, 2, 1);
    if (out < 1) continue;
    CHECK(transposed_size(out, 4, 2, 1, size % 2) == size);
  }
  CHECK(conv_size(3, 5, 1, 0) == 0);
}
