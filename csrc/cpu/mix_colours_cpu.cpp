// Colours mixed by the softmax of their scores, pixel by pixel, in blocks that stay in the first
// cache; the shares are worked out again in the backward pass.
#include <algorithm>
#include <vector>

#include "../maps_check.h"
#include "lanes.h"

namespace pokegan {
namespace {

constexpr int64_t kGrain = 1 << 13;  // values, of a thread
constexpr int kBlock = kLanes;       // pixels that are computed together
constexpr int kMaxColours = 64;
constexpr int kAxes = 3;  // red, green, blue

// Conversions go along memory and only floats are turned around: both in vectors.
template <typename Value>
POKEGAN_INLINE void read_block(const Value* __restrict in, int64_t count, int64_t width,
                               Lanes* __restrict out) {
  float row[kBlock * kMaxColours];
  for (int64_t i = 0; i < count * width; ++i) row[i] = read(in[i]);
  for (int64_t i = count * width; i < kBlock * width; ++i) row[i] = 0;
  auto* lane = reinterpret_cast<float*>(out);
  for (int64_t k = 0; k < width; ++k) {
    for (int64_t p = 0; p < kBlock; ++p) lane[k * kBlock + p] = row[p * width + k];
  }
}

template <typename Value>
POKEGAN_INLINE void write_block(const Lanes* __restrict in, int64_t count, int64_t width,
                                Value* __restrict out) {
  float row[kBlock * kMaxColours];
  const auto* lane = reinterpret_cast<const float*>(in);
  for (int64_t k = 0; k < width; ++k) {
    for (int64_t p = 0; p < kBlock; ++p) row[p * width + k] = lane[k * kBlock + p];
  }
  for (int64_t i = 0; i < count * width; ++i) write(out + i, row[i]);
}

// Scores become shares.
POKEGAN_INLINE void softmax(Lanes* scores, int64_t colours) {
  Lanes most = scores[0];
  for (int64_t k = 1; k < colours; ++k) most = most < scores[k] ? scores[k] : most;
  Lanes sum{};
  for (int64_t k = 0; k < colours; ++k) {
    Lanes power = scores[k] - most;
    exp_of_negative(power);
    scores[k] = power;
    sum += power;
  }
  sum = 1.0F / sum;
  for (int64_t k = 0; k < colours; ++k) scores[k] *= sum;
}

template <typename Value>
POKEGAN_INLINE void mix_block(const Value* scores, const float* palette, int64_t colours,
                              int64_t count, Value* out) {
  Lanes share[kMaxColours];
  read_block(scores, count, colours, share);
  softmax(share, colours);
  Lanes mixed[kAxes];
  for (int axis = 0; axis < kAxes; ++axis) {
    Lanes sum{};
    for (int64_t k = 0; k < colours; ++k) sum += palette[axis * colours + k] * share[k];
    mixed[axis] = sum;
  }
  write_block(mixed, count, kAxes, out);
}

// Gradients by the scores, written; by the palette, added to `sums`: lanes of [axis, colour].
template <typename Value>
POKEGAN_INLINE void unmix_block(const Value* gradient, const Value* scores, const float* palette,
                                int64_t colours, int64_t count, Value* out, float* sums) {
  Lanes share[kMaxColours];
  read_block(scores, count, colours, share);
  softmax(share, colours);
  Lanes given[kAxes];
  read_block(gradient, count, kAxes, given);  // zeros beyond `count`
  Lanes by_share[kMaxColours];
  Lanes mean{};
  for (int64_t k = 0; k < colours; ++k) {
    Lanes sum{};
    for (int axis = 0; axis < kAxes; ++axis) {
      sum += palette[axis * colours + k] * given[axis];
      auto& total = reinterpret_cast<Unaligned&>(sums[(axis * colours + k) * kBlock]);
      total += given[axis] * share[k];
    }
    by_share[k] = sum;
    mean += sum * share[k];
  }
  for (int64_t k = 0; k < colours; ++k) by_share[k] = share[k] * (by_share[k] - mean);
  write_block(by_share, count, colours, out);
}

// Clones cannot be templates.
#define POKEGAN_MIX_CLONES(Value)                                                             \
  POKEGAN_CLONES void mix(const Value* scores, const float* palette, int64_t colours,         \
                          int64_t pixels, Value* out) {                                       \
    for (int64_t first = 0; first < pixels; first += kBlock) {                                \
      mix_block(scores + first * colours, palette, colours,                                   \
                std::min<int64_t>(kBlock, pixels - first), out + first * kAxes);              \
    }                                                                                         \
  }                                                                                           \
  POKEGAN_CLONES void unmix(const Value* gradient, const Value* scores, const float* palette, \
                            int64_t colours, int64_t pixels, Value* out, float* sums) {       \
    for (int64_t first = 0; first < pixels; first += kBlock) {                                \
      unmix_block(gradient + first * kAxes, scores + first * colours, palette, colours,       \
                  std::min<int64_t>(kBlock, pixels - first), out + first * colours, sums);    \
    }                                                                                         \
  }
POKEGAN_MIX_CLONES(float)
POKEGAN_MIX_CLONES(Bfloat16)
#undef POKEGAN_MIX_CLONES

struct Shape {
  int64_t batch;
  int64_t colours;
  int64_t height;
  int64_t width;

  int64_t jobs() const { return batch * height; }  // rows of pixels
  int64_t grain() const {
    return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, width * colours));
  }
  int64_t palette() const { return kAxes * colours; }
};

Shape checked_shape(const char* op, const Tensor& scores, const Tensor& palettes) {
  check_maps(op, "scores", scores);
  const Shape shape{scores.size(0), scores.size(1), scores.size(2), scores.size(3)};
  STD_TORCH_CHECK(shape.colours >= 1 && shape.colours <= kMaxColours, op,
                  ": scores must be of 1 to ", kMaxColours, " colours, got ", shape.colours);
  check_shape(op, "palettes", palettes, scores, {shape.batch, kAxes, shape.colours});
  return shape;
}

template <typename Value>
std::vector<float> in_float(const Tensor& tensor) {
  const auto* values = static_cast<const Value*>(tensor.const_data_ptr());
  std::vector<float> out(static_cast<size_t>(tensor.numel()));
  for (size_t i = 0; i < out.size(); ++i) out[i] = read(values[i]);
  return out;
}

template <typename Value>
void mix_all(const Tensor& scores, const Tensor& palettes, Tensor& out, const Shape& shape) {
  const std::vector<float> colours = in_float<Value>(palettes);
  const auto* in = static_cast<const Value*>(scores.const_data_ptr());
  auto* to = static_cast<Value*>(out.mutable_data_ptr());
  torch::stable::parallel_for(0, shape.jobs(), shape.grain(), [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; ++job) {
      mix(in + job * shape.width * shape.colours,
          colours.data() + job / shape.height * shape.palette(), shape.colours, shape.width,
          to + job * shape.width * kAxes);
    }
  });
}

template <typename Value>
void unmix_all(const Tensor& gradient, const Tensor& scores, const Tensor& palettes, Tensor& out,
               Tensor& by_palette, const Shape& shape) {
  const std::vector<float> colours = in_float<Value>(palettes);
  const auto* given = static_cast<const Value*>(gradient.const_data_ptr());
  const auto* in = static_cast<const Value*>(scores.const_data_ptr());
  auto* to = static_cast<Value*>(out.mutable_data_ptr());
  std::vector<float> sums(static_cast<size_t>(shape.jobs() * shape.palette()));  // of each row
  torch::stable::parallel_for(0, shape.jobs(), shape.grain(), [&](int64_t begin, int64_t end) {
    std::vector<float> lanes(static_cast<size_t>(shape.palette() * kBlock));
    for (int64_t job = begin; job < end; ++job) {
      std::fill(lanes.begin(), lanes.end(), 0.0F);
      unmix(given + job * shape.width * kAxes, in + job * shape.width * shape.colours,
            colours.data() + job / shape.height * shape.palette(), shape.colours, shape.width,
            to + job * shape.width * shape.colours, lanes.data());
      for (int64_t i = 0; i < shape.palette(); ++i) {
        float sum = 0;
        for (int p = 0; p < kBlock; ++p) sum += lanes[static_cast<size_t>(i * kBlock + p)];
        sums[static_cast<size_t>(job * shape.palette() + i)] = sum;
      }
    }
  });
  auto* totals = static_cast<Value*>(by_palette.mutable_data_ptr());
  for (int64_t n = 0; n < shape.batch; ++n) {
    for (int64_t i = 0; i < shape.palette(); ++i) {
      double total = 0;
      for (int64_t y = 0; y < shape.height; ++y) {
        total += sums[static_cast<size_t>((n * shape.height + y) * shape.palette() + i)];
      }
      write(totals + n * shape.palette() + i, static_cast<float>(total));
    }
  }
}

Tensor mix_colours_cpu(const Tensor& scores, const Tensor& palettes) {
  const Shape shape = checked_shape("mix_colours", scores, palettes);
  Tensor out = new_maps(scores, {shape.batch, kAxes, shape.height, shape.width});
  if (out.numel() == 0) return out;
  const Tensor colours = dense(palettes);
  if (scores.scalar_type() == ScalarType::Float) {
    mix_all<float>(scores, colours, out, shape);
  } else {
    mix_all<Bfloat16>(scores, colours, out, shape);
  }
  return out;
}

std::tuple<Tensor, Tensor> mix_colours_backward_cpu(const Tensor& gradient, const Tensor& scores,
                                                    const Tensor& palettes) {
  constexpr const char* kName = "mix_colours_backward";
  const Shape shape = checked_shape(kName, scores, palettes);
  check_maps(kName, "gradient", gradient);
  check_shape(kName, "gradient", gradient, scores, {shape.batch, kAxes, shape.height, shape.width});
  Tensor by_scores = new_maps(scores, {shape.batch, shape.colours, shape.height, shape.width});
  Tensor by_palette =
      new_dense<3>(scores, {shape.batch, kAxes, shape.colours}, scores.scalar_type());
  const Tensor colours = dense(palettes);
  if (scores.scalar_type() == ScalarType::Float) {
    unmix_all<float>(gradient, scores, colours, by_scores, by_palette, shape);
  } else {
    unmix_all<Bfloat16>(gradient, scores, colours, by_scores, by_palette, shape);
  }
  return {by_scores, by_palette};
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CPU, library) {
  library.impl("mix_colours", TORCH_BOX(&pokegan::mix_colours_cpu));
  library.impl("mix_colours_backward", TORCH_BOX(&pokegan::mix_colours_backward_cpu));
}
