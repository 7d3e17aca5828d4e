// Maps at twice their side (nearest neighbour) and others of that side, one behind the other in the
// channels: one pass over memory in place of an upsampling and a concatenation. And its gradient.
#include <algorithm>

#include "../maps_check.h"
#include "vector.h"

namespace pokegan {
namespace {

constexpr int64_t kGrain = 1 << 15;  // values, of a thread

struct Shape {
  int64_t batch;
  int64_t channels;  // of the result that come from the maps
  int64_t others;    // and that have the result's side
  int64_t height;    // of the maps
  int64_t width;

  int64_t pixel() const { return channels + others; }
  int64_t jobs() const { return batch * height; }  // each makes two rows
  int64_t grain() const { return std::max<int64_t>(1, kGrain / (4 * width * pixel())); }
};

// Rows 2 job and 2 job + 1 of all pictures, whose sides are even.
template <typename Word>
void join_rows(const Word* maps, const Word* skip, Word* out, const Shape& shape, int64_t job) {
  const Word* in = maps + job * shape.width * shape.channels;
  for (int64_t row = 2 * job; row < 2 * job + 2; ++row) {
    const Word* other = skip + row * 2 * shape.width * shape.others;
    Word* to = out + row * 2 * shape.width * shape.pixel();
    for (int64_t x = 0; x < 2 * shape.width; ++x) {
      std::copy_n(in + x / 2 * shape.channels, shape.channels, to);
      std::copy_n(other + x * shape.others, shape.others, to + shape.channels);
      to += shape.pixel();
    }
  }
}

template <typename Word>
void join_all(const Tensor& maps, const Tensor& skip, Tensor& out, const Shape& shape) {
  const auto* in = static_cast<const Word*>(maps.const_data_ptr());
  const auto* other = static_cast<const Word*>(skip.const_data_ptr());
  auto* to = static_cast<Word*>(out.mutable_data_ptr());
  torch::stable::parallel_for(0, shape.jobs(), shape.grain(), [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; ++job) join_rows(in, other, to, shape, job);
  });
}

template <typename Value>
POKEGAN_INLINE void add_block_of(const Value* __restrict one, const Value* __restrict two,
                                 const Value* __restrict three, const Value* __restrict four,
                                 int64_t count, Value* __restrict sum) {
  for (int64_t i = 0; i < count; ++i) {
    write(sum + i, (read(one[i]) + read(two[i])) + (read(three[i]) + read(four[i])));
  }
}
POKEGAN_CLONES void add_block(const float* one, const float* two, const float* three,
                              const float* four, int64_t count, float* sum) {
  add_block_of(one, two, three, four, count, sum);
}
POKEGAN_CLONES void add_block(const Bfloat16* one, const Bfloat16* two, const Bfloat16* three,
                              const Bfloat16* four, int64_t count, Bfloat16* sum) {
  add_block_of(one, two, three, four, count, sum);
}

template <typename Value>
void part_rows(const Value* gradient, Value* maps, Value* skip, const Shape& shape, int64_t job) {
  const int64_t row = 2 * shape.width * shape.pixel();
  const Value* in = gradient + 2 * job * row;
  Value* out = maps + job * shape.width * shape.channels;
  for (int64_t x = 0; x < shape.width; ++x) {
    const Value* block = in + 2 * x * shape.pixel();
    add_block(block, block + shape.pixel(), block + row, block + row + shape.pixel(),
              shape.channels, out + x * shape.channels);
  }
  Value* other = skip + 2 * job * 2 * shape.width * shape.others;
  for (int64_t pixel = 0; pixel < 4 * shape.width; ++pixel) {
    std::copy_n(in + pixel * shape.pixel() + shape.channels, shape.others,
                other + pixel * shape.others);
  }
}

template <typename Value>
void part_all(const Tensor& gradient, Tensor& maps, Tensor& skip, const Shape& shape) {
  const auto* in = static_cast<const Value*>(gradient.const_data_ptr());
  auto* out = static_cast<Value*>(maps.mutable_data_ptr());
  auto* other = static_cast<Value*>(skip.mutable_data_ptr());
  torch::stable::parallel_for(0, shape.jobs(), shape.grain(), [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; ++job) part_rows(in, out, other, shape, job);
  });
}

Tensor upsample_cat_cpu(const Tensor& maps, const Tensor& skip) {
  constexpr const char* kName = "upsample_cat";
  check_maps(kName, "maps", maps);
  check_maps(kName, "skip", skip);
  const Shape shape{maps.size(0), maps.size(1), skip.size(1), maps.size(2), maps.size(3)};
  check_shape(kName, "skip", skip, maps,
              {shape.batch, shape.others, 2 * shape.height, 2 * shape.width});
  Tensor out = new_maps(maps, {shape.batch, shape.pixel(), 2 * shape.height, 2 * shape.width});
  if (out.numel() == 0) return out;
  if (maps.scalar_type() == ScalarType::Float) {
    join_all<uint32_t>(maps, skip, out, shape);
  } else {
    join_all<uint16_t>(maps, skip, out, shape);
  }
  return out;
}

std::tuple<Tensor, Tensor> upsample_cat_backward_cpu(const Tensor& gradient, int64_t others) {
  constexpr const char* kName = "upsample_cat_backward";
  check_maps(kName, "gradient", gradient);
  STD_TORCH_CHECK(gradient.size(2) % 2 == 0 && gradient.size(3) % 2 == 0 && others >= 0 &&
                      others <= gradient.size(1),
                  kName, ": gradient has not the shape of such a result");
  const Shape shape{gradient.size(0), gradient.size(1) - others, others, gradient.size(2) / 2,
                    gradient.size(3) / 2};
  Tensor maps = new_maps(gradient, {shape.batch, shape.channels, shape.height, shape.width});
  Tensor skip = new_maps(gradient, {shape.batch, others, 2 * shape.height, 2 * shape.width});
  if (gradient.numel() == 0) return {maps, skip};
  if (gradient.scalar_type() == ScalarType::Float) {
    part_all<float>(gradient, maps, skip, shape);
  } else {
    part_all<Bfloat16>(gradient, maps, skip, shape);
  }
  return {maps, skip};
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CPU, library) {
  library.impl("upsample_cat", TORCH_BOX(&pokegan::upsample_cat_cpu));
  library.impl("upsample_cat_backward", TORCH_BOX(&pokegan::upsample_cat_backward_cpu));
}
