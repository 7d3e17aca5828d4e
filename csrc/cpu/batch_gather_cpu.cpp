// batch_gather on the CPU: one pass over the bytes, threads over (picture, row).
#include <algorithm>
#include <cstring>
#include <vector>

#include "../batch_gather_check.h"
#include "byte_table.h"
#include "vector.h"

namespace pokegan {
namespace {

POKEGAN_CLONES void convert(const uint8_t* bytes, float* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = normalise(bytes[i]);
}

POKEGAN_CLONES void convert_finite(const uint8_t* bytes, uint16_t* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = to_bfloat16_finite(normalise(bytes[i])).bits;
}

void convert(const uint8_t* bytes, Bfloat16* out, int64_t count) {
  static const ByteTable table =
      make_byte_table([](uint8_t byte) { return to_bfloat16_finite(normalise(byte)).bits; });
  uint16_t* words = &out->bits;
  const int64_t done = looks_up_fast() ? look_up_blocks(table, bytes, words, count) : 0;
  convert_finite(bytes + done, words + done, count - done);
}

// `count` pixels from `from` to `to`, the last first. Five pixels are a shuffle of 16 bytes, of
// which the last is overwritten by the next five; the row's end is done alone, so that no shuffle
// reads or writes beyond it.
POKEGAN_CLONES void mirror(const uint8_t* from, uint8_t* to, int64_t count) {
  int64_t left = count;  // pixels of `from` that are not yet done
#if defined(__GNUC__)
  typedef uint8_t Block __attribute__((vector_size(16)));
  const Block order = {12, 13, 14, 9, 10, 11, 6, 7, 8, 3, 4, 5, 0, 1, 2, 15};
  const int64_t alone = left % 5 == 0 ? 5 : left % 5;
  for (; left > count - alone; --left, to += 3) std::memcpy(to, from + 3 * left - 3, 3);
  for (; left > 5; left -= 5, to += 15) {
    Block block;
    std::memcpy(&block, from + 3 * (left - 5), sizeof(block));
    block = __builtin_shuffle(block, order);
    std::memcpy(to, &block, sizeof(block));
  }
#endif
  for (; left > 0; --left, to += 3) std::memcpy(to, from + 3 * left - 3, 3);
}

struct Arguments {
  const uint8_t* images;
  const int64_t* indices;
  const bool* flip;      // or nullptr
  const int64_t* shift;  // or nullptr
  int64_t height;
  int64_t width;
  Background background;
};

Placement placement(const Arguments& args, int64_t sample) {
  return {args.indices[sample], args.shift != nullptr ? args.shift[2 * sample] : 0,
          args.shift != nullptr ? args.shift[2 * sample + 1] : 0,
          args.flip != nullptr && args.flip[sample]};
}

// The bytes of one output row, before normalisation, into `row` (3 * width bytes). `blank` is a
// row of background.
void gather_row(const Arguments& args, const Placement& place, int64_t y, const uint8_t* blank,
                uint8_t* row) {
  const int64_t source = source_row(place, y, args.height);
  const int64_t begin = std::clamp<int64_t>(place.right, 0, args.width);
  const int64_t end = std::clamp<int64_t>(args.width + place.right, begin, args.width);
  const auto copy = [&](const uint8_t* from, int64_t first, int64_t last) {
    std::memcpy(row + 3 * first, from, static_cast<size_t>(3 * (last - first)));
  };
  if (source < 0 || begin == end) return copy(blank, 0, args.width);
  copy(blank, 0, begin);
  copy(blank, end, args.width);
  const uint8_t* stored = args.images + ((place.picture * args.height + source) * args.width) * 3;
  if (place.mirrored) {
    mirror(stored + 3 * source_column(place, end - 1, args.width), row + 3 * begin, end - begin);
  } else {
    copy(stored + 3 * source_column(place, begin, args.width), begin, end);
  }
}

template <typename Value>
void gather_rows(const Arguments& args, int64_t begin, int64_t end, Value* out) {
  const int64_t row_values = 3 * args.width;
  std::vector<uint8_t> row(static_cast<size_t>(row_values));
  std::vector<uint8_t> blank(static_cast<size_t>(row_values));
  for (int64_t i = 0; i < row_values; ++i) blank[i] = args.background.at(static_cast<int>(i % 3));
  for (int64_t job = begin; job < end;) {
    const int64_t sample = job / args.height;
    const int64_t y = job % args.height;
    const Placement place = placement(args, sample);
    const int64_t rows = std::min(end - job, args.height - y);  // of this picture
    if (!place.mirrored && place.right == 0 && place.down == 0) {
      const uint8_t* stored = args.images + (place.picture * args.height + y) * row_values;
      convert(stored, out + job * row_values, rows * row_values);
    } else {
      for (int64_t i = 0; i < rows; ++i) {
        gather_row(args, place, y + i, blank.data(), row.data());
        convert(row.data(), out + (job + i) * row_values, row_values);
      }
    }
    job += rows;
  }
}

void check_indices(const int64_t* indices, int64_t batch, int64_t count) {
  for (int64_t i = 0; i < batch; ++i) {
    STD_TORCH_CHECK(indices[i] >= 0 && indices[i] < count, "batch_gather: indices[", i, "] is ",
                    indices[i], ", outside of the set of ", count, " images");
  }
}

// [B, H, W, 3] contiguous; the Python face shows it as [B, 3, H, W] channels_last.
Tensor batch_gather_cpu(const Tensor& images, const Tensor& indices, std::optional<Tensor> flip,
                        std::optional<Tensor> shift, std::vector<int64_t> background,
                        ScalarType dtype) {
  check_batch_gather(images, indices, flip, shift, background, dtype);
  const Tensor dense_indices = torch::stable::contiguous(indices);
  if (flip.has_value()) flip = torch::stable::contiguous(*flip);
  if (shift.has_value()) shift = torch::stable::contiguous(*shift);
  const int64_t batch = indices.size(0);
  Arguments args{images.const_data_ptr<uint8_t>(),
                 dense_indices.const_data_ptr<int64_t>(),
                 flip.has_value() ? flip->const_data_ptr<bool>() : nullptr,
                 shift.has_value() ? shift->const_data_ptr<int64_t>() : nullptr,
                 images.size(1),
                 images.size(2),
                 to_background(background)};
  check_indices(args.indices, batch, images.size(0));
  Tensor out = torch::stable::new_empty(images, {batch, args.height, args.width, 3}, dtype);
  const int64_t jobs = batch * args.height;
  if (jobs == 0 || args.width == 0) return out;
  const int64_t grain = std::max<int64_t>(1, 16384 / (3 * args.width));
  torch::stable::parallel_for(0, jobs, grain, [&](int64_t begin, int64_t end) {
    if (dtype == ScalarType::Float) {
      gather_rows(args, begin, end, static_cast<float*>(out.mutable_data_ptr()));
    } else {
      gather_rows(args, begin, end, static_cast<Bfloat16*>(out.mutable_data_ptr()));
    }
  });
  return out;
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CPU, library) {
  library.impl("batch_gather", TORCH_BOX(&pokegan::batch_gather_cpu));
}
