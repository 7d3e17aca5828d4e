// Arithmetic of batch_gather that both back ends share: the normalisation of a byte and the
// geometry of flip and shift. No torch types here.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace pokegan {

// A byte in [0, 255] to [-1, 1]. The integer part is exact and there is one rounding, so no
// compiler can contract it into something that differs between back ends.
POKEGAN_HOST_DEVICE float normalise(int32_t byte) {
  return static_cast<float>(2 * byte - 255) * (1.0F / 255.0F);
}

// What happens to one picture: mirrored first, then moved by (down, right) pixels.
struct Placement {
  int64_t picture;
  int64_t down;
  int64_t right;
  bool mirrored;
};

// Red, green and blue in the three low bytes: a register, where an array would go to the stack.
struct Background {
  uint32_t packed;
  POKEGAN_HOST_DEVICE uint8_t at(int channel) const {
    return static_cast<uint8_t>(packed >> (8 * channel));
  }
};

// The column of the stored picture that lands on column x of the output, or -1 for background.
POKEGAN_HOST_DEVICE int64_t source_column(const Placement& place, int64_t x, int64_t width) {
  const int64_t column = x - place.right;
  if (column < 0 || column >= width) return -1;
  return place.mirrored ? width - 1 - column : column;
}

// The row of the stored picture that lands on row y of the output, or -1 for background.
POKEGAN_HOST_DEVICE int64_t source_row(const Placement& place, int64_t y, int64_t height) {
  const int64_t row = y - place.down;
  return (row < 0 || row >= height) ? -1 : row;
}

}  // namespace pokegan
