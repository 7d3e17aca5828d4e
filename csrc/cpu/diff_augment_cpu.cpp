// diff_augment on the CPU: threads over pictures, and a picture fits the cache, so that memory is
// read and written once although contrast needs the picture's mean first.
#include <algorithm>
#include <type_traits>

#include "../diff_augment_check.h"
#include "vector.h"

namespace pokegan {
namespace {

template <typename Value>
using Real = std::conditional_t<std::is_same_v<Value, double>, double, float>;

POKEGAN_INLINE float load(const float* at) { return *at; }
POKEGAN_INLINE double load(const double* at) { return *at; }
POKEGAN_INLINE float load(const Bfloat16* at) { return to_float(*at); }
POKEGAN_INLINE void store(float* at, float value) { *at = value; }
POKEGAN_INLINE void store(double* at, double value) { *at = value; }
POKEGAN_INLINE void store(Bfloat16* at, float value) { *at = to_bfloat16(value); }

// One picture of either layout; a planar one has three planes, an interleaved one a plane of
// 3 * width values a row.
template <typename Value>
struct Picture {
  const Value* in;
  Value* out;
  int64_t height;
  int64_t width;
  bool interleaved;
  bool colour;
  bool linear;
  double fill;
  Augmentation augmentation;

  POKEGAN_INLINE int64_t planes() const { return interleaved ? 1 : 3; }
  POKEGAN_INLINE int64_t step() const { return interleaved ? 3 : 1; }
  POKEGAN_INLINE int64_t plane() const { return height * width; }
  POKEGAN_INLINE int64_t offset(int64_t y, int64_t x) const { return (y * width + x) * step(); }
};

// Sums in a fixed order on every instruction set: kLanes running sums of a row, then doubles.
template <typename Value>
POKEGAN_INLINE double sum_values(const Value* values, int64_t count) {
  constexpr int kLanes = 32;
  Real<Value> lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += load(values + i + lane);
  }
  for (int lane = 0; i + lane < count; ++lane) lanes[lane] += load(values + i + lane);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

template <typename Value>
POKEGAN_INLINE double sum_span(const Picture<Value>& picture, int64_t y, const Span& span) {
  if (span.end <= span.begin) return 0;
  double sum = 0;
  for (int64_t plane = 0; plane < picture.planes(); ++plane) {
    const Value* from = picture.in + plane * picture.plane() + picture.offset(y, span.begin);
    sum += sum_values(from, (span.end - span.begin) * picture.step());
  }
  return sum;
}

template <typename Value>
POKEGAN_INLINE void fill_span(const Picture<Value>& picture, int64_t y, const Span& span,
                              Real<Value> value) {
  const int64_t count = (span.end - span.begin) * picture.step();
  for (int64_t plane = 0; plane < picture.planes(); ++plane) {
    Value* to = picture.out + plane * picture.plane() + picture.offset(y, span.begin);
    for (int64_t i = 0; i < count; ++i) store(to + i, value);
  }
}

template <typename Value>
POKEGAN_INLINE void copy_span(const Picture<Value>& picture, int64_t from, int64_t to,
                              int64_t count) {
  for (int64_t plane = 0; plane < picture.planes(); ++plane) {
    const int64_t base = plane * picture.plane();
    std::memcpy(picture.out + base + to, picture.in + base + from,
                static_cast<size_t>(count * picture.step()) * sizeof(Value));
  }
}

template <typename Value>
POKEGAN_INLINE void map_interleaved(const Value* __restrict in, Value* __restrict out,
                                    int64_t count, const ColourMap<Real<Value>>& map) {
  for (int64_t i = 0; i < count; ++i) {
    const Real<Value> red = load(in + 3 * i);
    const Real<Value> green = load(in + 3 * i + 1);
    const Real<Value> blue = load(in + 3 * i + 2);
    const Real<Value> part = map.pixel_part(red, green, blue);
    store(out + 3 * i, map(red, part));
    store(out + 3 * i + 1, map(green, part));
    store(out + 3 * i + 2, map(blue, part));
  }
}

template <typename Value>
POKEGAN_INLINE void map_planar(const Value* __restrict in, Value* __restrict out, int64_t plane,
                               int64_t count, const ColourMap<Real<Value>>& map) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    const Real<Value> red = load(in + i);
    const Real<Value> green = load(in + plane + i);
    const Real<Value> blue = load(in + 2 * plane + i);
    const Real<Value> part = map.pixel_part(red, green, blue);
    store(out + i, map(red, part));
    store(out + plane + i, map(green, part));
    store(out + 2 * plane + i, map(blue, part));
  }
}

// `count` pixels from (from_y, from_x) of the input to (to_y, to_x) of the output.
template <typename Value>
POKEGAN_INLINE void map_span(const Picture<Value>& picture, int64_t from, int64_t to, int64_t count,
                             const ColourMap<Real<Value>>& map) {
  if (!picture.colour) return copy_span(picture, from, to, count);
  if (picture.interleaved) {
    map_interleaved(picture.in + from, picture.out + to, count, map);
  } else {
    map_planar(picture.in + from, picture.out + to, picture.plane(), count, map);
  }
}

template <typename Value>
POKEGAN_INLINE ColourMap<Real<Value>> map_for(const Picture<Value>& picture, double sum) {
  const double mean = sum / static_cast<double>(3 * picture.plane());
  return colour_map(picture.augmentation, static_cast<Real<Value>>(mean), picture.linear);
}

template <typename Value>
POKEGAN_INLINE void augment(const Picture<Value>& picture) {
  const Augmentation& augmentation = picture.augmentation;
  const Region& visible = augmentation.visible;
  const Region& hole = augmentation.hole;
  double sum = 0;
  for (int64_t y = 0; picture.colour && y < picture.height; ++y) {
    sum += sum_span(picture, y, {0, picture.width});
  }
  const ColourMap<Real<Value>> map = map_for(picture, sum);
  const Real<Value> fill = static_cast<Real<Value>>(picture.linear ? 0.0 : picture.fill);
  for (int64_t y = 0; y < picture.height; ++y) {
    if (visible.has_row(y)) {
      fill_span(picture, y, {0, visible.left}, fill);
      fill_span(picture, y, {visible.right, picture.width}, fill);
      for (const Span& span : kept_columns(augmentation, y).span) {
        if (span.end <= span.begin) continue;
        map_span(picture, picture.offset(y - augmentation.down, span.begin - augmentation.right),
                 picture.offset(y, span.begin), span.end - span.begin, map);
      }
    } else {
      fill_span(picture, y, {0, picture.width}, fill);
    }
    if (hole.has_row(y)) fill_span(picture, y, {hole.left, hole.right}, Real<Value>(0));
  }
}

// The adjoint: the gradient of what was kept goes back to where it came from, zero elsewhere; then
// the linear part of the colours, which is its own adjoint.
template <typename Value>
POKEGAN_INLINE void augment_adjoint(const Picture<Value>& picture) {
  const Augmentation& augmentation = picture.augmentation;
  double sum = 0;
  for (int64_t y = 0; picture.colour && y < picture.height; ++y) {
    for (const Span& span : kept_columns(augmentation, y).span) sum += sum_span(picture, y, span);
  }
  const ColourMap<Real<Value>> map = map_for(picture, sum);
  const Real<Value> elsewhere = picture.colour ? map.constant : Real<Value>(0);
  for (int64_t y = 0; y < picture.height; ++y) {
    int64_t done = 0;
    for (const Span& span : kept_columns(augmentation, y + augmentation.down).span) {
      if (span.end <= span.begin) continue;
      const int64_t begin = span.begin - augmentation.right;
      fill_span(picture, y, {done, begin}, elsewhere);
      map_span(picture, picture.offset(y + augmentation.down, span.begin), picture.offset(y, begin),
               span.end - span.begin, map);
      done = span.end - augmentation.right;
    }
    fill_span(picture, y, {done, picture.width}, elsewhere);
  }
}

// Clones cannot be templates.
POKEGAN_CLONES void run(const Picture<float>& picture, bool adjoint) {
  adjoint ? augment_adjoint(picture) : augment(picture);
}
POKEGAN_CLONES void run(const Picture<double>& picture, bool adjoint) {
  adjoint ? augment_adjoint(picture) : augment(picture);
}
POKEGAN_CLONES void run(const Picture<Bfloat16>& picture, bool adjoint) {
  adjoint ? augment_adjoint(picture) : augment(picture);
}

struct Mode {
  bool adjoint;
  bool linear;
  double fill;
};

template <typename Value>
void run_all(const DenseImages& images, Tensor& out, const AugmentChoice& choice,
             const Mode& mode) {
  const int64_t height = out.size(2);
  const int64_t width = out.size(3);
  const Tensor dense_samples = torch::stable::contiguous(choice.samples);
  const int64_t* samples = dense_samples.const_data_ptr<int64_t>();
  const RandomKey key = to_key(choice, choice.step.const_data_ptr<int64_t>()[0]);
  const Value* in = static_cast<const Value*>(images.tensor.const_data_ptr());
  Value* to = static_cast<Value*>(out.mutable_data_ptr());
  const int64_t values = 3 * height * width;
  const int64_t grain = std::max<int64_t>(1, 8192 / values);  // small work is not worth a thread
  torch::stable::parallel_for(0, out.size(0), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const uint32_t sample = static_cast<uint32_t>(samples[i]);
      run(Picture<Value>{in + i * values, to + i * values, height, width, images.interleaved,
                         choice.policy.colour, mode.linear, mode.fill,
                         augmentation_of(key, sample, choice.policy, height, width)},
          mode.adjoint);
    }
  });
}

Tensor run_any(const Tensor& images, const AugmentChoice& choice, const Mode& mode) {
  check_diff_augment(images, choice, mode.adjoint ? "gradient" : "images", mode.fill);
  const DenseImages dense = to_dense(images);
  Tensor out = torch::stable::empty_like(dense.tensor);
  if (out.numel() == 0) return out;
  if (images.scalar_type() == ScalarType::Float) {
    run_all<float>(dense, out, choice, mode);
  } else if (images.scalar_type() == ScalarType::Double) {
    run_all<double>(dense, out, choice, mode);
  } else {
    run_all<Bfloat16>(dense, out, choice, mode);
  }
  return out;
}

Tensor diff_augment_cpu(const Tensor& images, const Tensor& step, const Tensor& samples,
                        int64_t seed, int64_t stream, bool colour, bool translation, bool cutout,
                        double fill, bool linear) {
  return run_any(images, {step, samples, seed, stream, {colour, translation, cutout}},
                 {false, linear, fill});
}

Tensor diff_augment_adjoint_cpu(const Tensor& gradient, const Tensor& step, const Tensor& samples,
                                int64_t seed, int64_t stream, bool colour, bool translation,
                                bool cutout) {
  return run_any(gradient, {step, samples, seed, stream, {colour, translation, cutout}},
                 {true, true, 0.0});
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CPU, library) {
  library.impl("diff_augment", TORCH_BOX(&pokegan::diff_augment_cpu));
  library.impl("diff_augment_adjoint", TORCH_BOX(&pokegan::diff_augment_adjoint_cpu));
}
