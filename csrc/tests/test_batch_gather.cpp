#include "../batch_gather.h"
#include "check.h"

using namespace pokegan;

TEST(bytes_become_minus_one_to_one) {
  CHECK(normalise(0) == -1.0F);
  CHECK(normalise(255) == 1.0F);
  for (int byte = 0; byte < 256; ++byte) {
    CHECK_NEAR(normalise(byte), byte / 127.5 - 1.0, 1e-7);
    CHECK(normalise(byte) == -normalise(255 - byte));
  }
}

TEST(background_keeps_its_channels) {
  const Background background{0x00030201U};
  CHECK(background.at(0) == 1 && background.at(1) == 2 && background.at(2) == 3);
}

// A mirrored picture moved by `right` shows its pixel `column` at width - 1 - column + right.
TEST(columns_and_rows_come_from_where_they_should) {
  const int64_t side = 5;
  for (int64_t move = -7; move <= 7; ++move) {
    for (int64_t stored = 0; stored < side; ++stored) {
      for (const bool mirrored : {false, true}) {
        const Placement place{0, move, move, mirrored};
        const int64_t shown = (mirrored ? side - 1 - stored : stored) + move;
        if (shown >= 0 && shown < side) CHECK(source_column(place, shown, side) == stored);
      }
      const int64_t shown = stored + move;
      if (shown >= 0 && shown < side) CHECK(source_row({0, move, 0, false}, shown, side) == stored);
    }
  }
  CHECK(source_column({0, 0, 2, false}, 1, side) == -1);
  CHECK(source_column({0, 0, -2, true}, 4, side) == -1);
  CHECK(source_row({0, 9, 0, false}, 4, side) == -1);
}
