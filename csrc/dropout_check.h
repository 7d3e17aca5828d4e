// Arguments of dropout, their checks and memory layout, the same on every back end.
#pragma once

#include "dropout.h"
#include "random_check.h"

namespace pokegan {

inline void check_dropout_values(const Tensor& values, double p) {
  const ScalarType dtype = values.scalar_type();
  STD_TORCH_CHECK(
      dtype == ScalarType::Float || dtype == ScalarType::BFloat16 || dtype == ScalarType::Double,
      "dropout: values must be float32, bfloat16 or float64");
  STD_TORCH_CHECK(values.dim() >= 1, "dropout: values must have the shape [N, ...]");
  STD_TORCH_CHECK(p >= 0 && p < 1, "dropout: p must be in [0, 1), got ", p);
}

inline void check_dropout(const Tensor& values, const Tensor& step, const Tensor& samples,
                          int64_t stream, double p, bool maps) {
  check_dropout_values(values, p);
  STD_TORCH_CHECK(!maps || values.dim() == 4,
                  "dropout: maps need values of the shape [N, C, H, W]");
  check_place("dropout", step, samples);
  STD_TORCH_CHECK(same_device(samples, values), "dropout: samples must be on the device of values");
  const int64_t share = samples.size(0);
  STD_TORCH_CHECK(share > 0 ? values.size(0) % share == 0 : values.size(0) == 0,
                  "dropout: a batch of ", values.size(0), " is no multiple of ", share, " samples");
  STD_TORCH_CHECK(stream >= 0 && stream <= INT64_C(0xFFFFFFFF),
                  "dropout: stream must be in [0, 2^32)");
}

// Channels fastest; sides of length 1 have any stride.
inline bool is_interleaved(const Tensor& values) {
  if (values.dim() != 4) return false;
  int64_t stride = 1;
  for (const int64_t dim : {1, 3, 2, 0}) {
    if (values.size(dim) != 1 && values.stride(dim) != stride) return false;
    stride *= values.size(dim);
  }
  return true;
}

// Values that are dense in memory, and how their words are counted.
struct DropoutValues {
  Tensor tensor;
  DropoutOrder order;
  int64_t rows;
  int64_t count;  // of a row
  int64_t channels;
  int64_t pixels;
};

// The tensor itself where it is dense in one of the two layouts, else a contiguous copy.
inline DropoutValues to_dropout_values(const Tensor& values, bool maps) {
  const bool interleaved = !values.is_contiguous() && is_interleaved(values);
  const Tensor given = interleaved ? values : dense(values);
  const bool picture = given.dim() == 4;
  const int64_t rows = given.size(0);
  int64_t count = 1;
  for (int64_t dim = 1; dim < given.dim(); ++dim) count *= given.size(dim);
  const int64_t channels = picture ? given.size(1) : count;
  const int64_t pixels = picture ? given.size(2) * given.size(3) : 1;
  DropoutOrder order = DropoutOrder::kInOrder;
  if (maps) {
    order = interleaved ? DropoutOrder::kInterleavedMaps : DropoutOrder::kPlanarMaps;
  } else if (!interleaved && rows > 0 && channels > 1 && pixels > 1) {
    order = DropoutOrder::kPlanes;
  }
  return {given, order, rows, count, channels, pixels};
}

// A mask has its bits as the words are counted, so values must lie as they are counted.
inline void check_in_order(const DropoutValues& values) {
  STD_TORCH_CHECK(values.order == DropoutOrder::kInOrder,
                  "dropout: a mask needs maps in channels_last memory");
}

inline void check_kept(const DropoutValues& values, const Tensor& kept) {
  const int64_t bytes = (values.count + 7) / 8;
  STD_TORCH_CHECK(kept.scalar_type() == ScalarType::Byte && kept.dim() == 2 &&
                      kept.size(0) == values.rows && kept.size(1) == bytes,
                  "dropout: the mask must be uint8 of the shape [", values.rows, ", ", bytes, "]");
  STD_TORCH_CHECK(same_device(kept, values.tensor),
                  "dropout: the mask must be on the device of values");
}

}  // namespace pokegan
