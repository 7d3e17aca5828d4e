// batch_gather on the CPU: one pass over the bytes, threads over (picture, row).
#include <algorithm>
#include <cstring>
#include <vector>

#include "../batch_gather_check.h"
#include "clones.h"

namespace pokegan {
namespace {

// Round to nearest even, as torch does; bytes never give NaN or infinity.
inline uint16_t to_bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

POKEGAN_CLONES void convert(const uint8_t* bytes, float* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = normalise(bytes[i]);
}

POKEGAN_CLONES void convert(const uint8_t* bytes, uint16_t* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = to_bfloat16(normalise(bytes[i]));
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

void fill_background(const Arguments& args, uint8_t* row) {
  for (int64_t i = 0; i < 3 * args.width; ++i) row[i] = args.background.at(static_cast<int>(i % 3));
}

// The bytes of one output row, before normalisation, into `row` (3 * width bytes).
void gather_row(const Arguments& args, const Placement& place, int64_t y, uint8_t* row) {
  const int64_t source = source_row(place, y, args.height);
  if (source < 0) return fill_background(args, row);
  const uint8_t* stored = args.images + ((place.picture * args.height + source) * args.width) * 3;
  if (!place.mirrored && place.right == 0) {
    std::memcpy(row, stored, static_cast<size_t>(3 * args.width));
    return;
  }
  fill_background(args, row);
  for (int64_t x = 0; x < args.width; ++x) {
    const int64_t column = source_column(place, x, args.width);
    if (column >= 0) std::memcpy(row + 3 * x, stored + 3 * column, 3);
  }
}

template <typename Value>
void gather_rows(const Arguments& args, int64_t begin, int64_t end, Value* out) {
  const int64_t row_values = 3 * args.width;
  std::vector<uint8_t> row(static_cast<size_t>(row_values));
  for (int64_t job = begin; job < end; ++job) {
    const int64_t sample = job / args.height;
    const int64_t y = job % args.height;
    const Placement place = placement(args, sample);
    if (!place.mirrored && place.right == 0 && place.down == 0) {
      const uint8_t* stored = args.images + (place.picture * args.height + y) * row_values;
      convert(stored, out + job * row_values, row_values);
    } else {
      gather_row(args, place, y, row.data());
      convert(row.data(), out + job * row_values, row_values);
    }
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
      gather_rows(args, begin, end, static_cast<uint16_t*>(out.mutable_data_ptr()));
    }
  });
  return out;
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CPU, library) {
  library.impl("batch_gather", TORCH_BOX(&pokegan::batch_gather_cpu));
}
