// Batch norm and the activation behind it on the CPU: two passes over memory forwards, two back.
//
// Threads share chunks of rows, whose sums are added in order: they change no bit.
#include <algorithm>
#include <vector>

#include "../batch_norm_act_check.h"
#include "batch_norm_coefficients.h"
#include "conv_units.h"
#include "moments.h"

namespace pokegan {
namespace {

constexpr int64_t kGrain = 1 << 15;  // values, of a thread
constexpr int64_t kPlanes = 3;       // of a chunk's sums forwards

// The maps' rows, and how they are cut.
struct Layout {
  int64_t rows;
  int64_t channels;
  int64_t chunk;

  int64_t chunks() const { return (rows + chunk - 1) / chunk; }
  int64_t begin(int64_t number) const { return number * chunk; }
  int64_t count(int64_t number) const { return std::min(chunk, rows - begin(number)); }
};

Layout layout_of(const Tensor& maps) {
  const int64_t channels = maps.size(1);
  return {maps.numel() / channels, channels, chunk_rows(channels)};
}

// Calls `run` with every chunk's number. Backwards, to begin with what is still in the cache of a
// pass that went forwards.
template <typename Run>
void over_chunks(const Layout& layout, bool backwards, const Run& run) {
  const int64_t grain = std::max<int64_t>(1, kGrain / (layout.chunk * layout.channels));
  torch::stable::parallel_for(0, layout.chunks(), grain, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) run(backwards ? first + last - 1 - i : i);
  });
}

POKEGAN_CLONES void add_plane(const float* plane, int64_t count, double* totals) {
  for (int64_t i = 0; i < count; ++i) totals[i] += plane[i];
}

template <typename Scalar>
const RowKernels<Scalar>& kernels_of(int64_t units) {
  const Scalar* type = nullptr;
  return units == 0 && widest_units() != Units::kNone ? avx512_kernels(type) : plain_kernels(type);
}

// Calls `run` with the kernels of the maps' type.
template <typename Run>
void with_kernels(const Tensor& maps, int64_t units, const Run& run) {
  if (maps.scalar_type() == ScalarType::Float) {
    run(kernels_of<float>(units));
  } else {
    run(kernels_of<Bfloat16>(units));
  }
}

// The rows of a chunk: of the input, and of the gradient and what is written where they are given.
template <typename Scalar>
Rows<Scalar> rows_of(const RowKernels<Scalar>&, const Layout& layout, int64_t chunk,
                     const Tensor& input, const Tensor* gradient, Tensor* out) {
  const int64_t place = layout.begin(chunk) * layout.channels;
  Rows<Scalar> rows{static_cast<const Scalar*>(input.const_data_ptr()) + place, nullptr, nullptr,
                    layout.count(chunk), layout.channels};
  if (gradient != nullptr) {
    rows.gradient = static_cast<const Scalar*>(gradient->const_data_ptr()) + place;
  }
  if (out != nullptr) rows.out = static_cast<Scalar*>(out->mutable_data_ptr()) + place;
  return rows;
}

void check_norm(const char* op, const Tensor& input, const Tensor& moments,
                const std::optional<Tensor>& weight, const std::optional<Tensor>& bias) {
  check_rows(op, "input", input);
  check_pairs(op, "moments", moments, input.size(1));
  check_channels(op, "weight", weight, input.size(1));
  check_channels(op, "bias", bias, input.size(1));
}

void check_units(const char* op, int64_t units) {
  STD_TORCH_CHECK(units == 0 || units == 1, op, ": units must be 0 or 1, got ", units);
}

}  // namespace

Tensor batch_norm_moments_cpu(const Tensor& input, int64_t units) {
  check_rows("batch_norm_moments", "input", input);
  check_units("batch_norm_moments", units);
  const Layout layout = layout_of(input);
  const int64_t channels = layout.channels;
  std::vector<float> sums(static_cast<size_t>(layout.chunks() * kPlanes * channels));
  const auto planes = [&](int64_t i) { return sums.data() + i * kPlanes * channels; };
  with_kernels(input, units, [&](const auto& kernels) {
    over_chunks(layout, false, [&](int64_t i) {
      kernels.moments(rows_of(kernels, layout, i, input, nullptr, nullptr), planes(i));
    });
  });
  std::vector<ChunkPlanes<float>> chunks;
  for (int64_t i = 0; i < layout.chunks(); ++i) {
    const float* chunk = planes(i);
    chunks.push_back({chunk, chunk + channels, chunk + 2 * channels, 0, channels, layout.count(i)});
  }
  return moments_of(input, channels, layout.rows, chunks);
}

namespace {

Tensor batch_norm_act_cpu(const Tensor& input, const Tensor& moments, std::optional<Tensor> weight,
                          std::optional<Tensor> bias, double eps, double slope, int64_t units) {
  check_norm("batch_norm_act", input, moments, weight, bias);
  check_units("batch_norm_act", units);
  const Layout layout = layout_of(input);
  const Coefficients coefficients(moments, weight, bias, eps, slope);
  const Channels by = coefficients.channels();
  const auto activation = static_cast<size_t>(activation_of(slope));
  Tensor out = empty_rows(input);
  with_kernels(input, units, [&](const auto& kernels) {
    over_chunks(layout, true, [&](int64_t i) {
      kernels.apply[activation](rows_of(kernels, layout, i, input, nullptr, &out), by);
    });
  });
  return out;
}

}  // namespace

Tensor batch_norm_act_sums_cpu(const Tensor& gradient, const Tensor& input, const Tensor& moments,
                               std::optional<Tensor> weight, std::optional<Tensor> bias, double eps,
                               double slope, int64_t units) {
  const char* op = "batch_norm_act_sums";
  check_norm(op, input, moments, weight, bias);
  check_units(op, units);
  check_like(op, "gradient", gradient, input);
  const Layout layout = layout_of(input);
  const int64_t channels = layout.channels;
  const Coefficients coefficients(moments, weight, bias, eps, slope);
  const Channels by = coefficients.channels();
  const auto activation = static_cast<size_t>(activation_of(slope));
  std::vector<float> sums(static_cast<size_t>(layout.chunks() * 2 * channels));
  with_kernels(input, units, [&](const auto& kernels) {
    over_chunks(layout, false, [&](int64_t i) {
      kernels.sums[activation](rows_of(kernels, layout, i, input, &gradient, nullptr), by,
                               sums.data() + i * 2 * channels);
    });
  });
  std::vector<double> totals(static_cast<size_t>(2 * channels), 0.0);
  for (int64_t i = 0; i < layout.chunks(); ++i) {
    add_plane(sums.data() + i * 2 * channels, 2 * channels, totals.data());
  }
  return coefficients.sums_of(input, totals);
}

namespace {

Tensor batch_norm_act_backward_cpu(const Tensor& gradient, const Tensor& input,
                                   const Tensor& moments, std::optional<Tensor> weight,
                                   std::optional<Tensor> bias, const Tensor& sums, int64_t count,
                                   double eps, double slope, int64_t units) {
  const char* op = "batch_norm_act_backward";
  check_norm(op, input, moments, weight, bias);
  check_units(op, units);
  check_like(op, "gradient", gradient, input);
  check_pairs(op, "sums", sums, input.size(1));
  STD_TORCH_CHECK(count >= 1, op, ": count must be at least 1, got ", count);
  const Layout layout = layout_of(input);
  const int64_t channels = layout.channels;
  const Coefficients coefficients(moments, weight, bias, eps, slope);
  const Channels by = coefficients.channels();
  const auto activation = static_cast<size_t>(activation_of(slope));
  const auto* totals = sums.const_data_ptr<float>();
  std::vector<float> along;
  std::vector<float> level;
  for (int64_t c = 0; c < channels; ++c) {
    const double share = -by.scale[c] / static_cast<double>(count);
    along.push_back(static_cast<float>(share * coefficients.inverse_deviation_of(c) * totals[c]));
    level.push_back(static_cast<float>(share * totals[c + channels]));
  }
  const Terms terms{along.data(), level.data()};
  Tensor out = empty_rows(input);
  with_kernels(input, units, [&](const auto& kernels) {
    over_chunks(layout, true, [&](int64_t i) {
      kernels.backward[activation](rows_of(kernels, layout, i, input, &gradient, &out), by, terms);
    });
  });
  return out;
}

// A share of the way from one value to another; exact at both ends, as torch.lerp is.
float between(float from, float to, float share) {
  return share < 0.5F ? from + share * (to - from) : to - (to - from) * (1 - share);
}

void batch_norm_track_cpu(Tensor mean, Tensor variance, const Tensor& moments, double weight,
                          int64_t count) {
  const char* op = "batch_norm_track_";
  const int64_t channels = mean.dim() == 1 ? mean.size(0) : -1;
  check_channels(op, "mean", mean, channels);
  check_channels(op, "variance", variance, channels);
  check_pairs(op, "moments", moments, channels);
  STD_TORCH_CHECK(count >= 1, op, ": count must be at least 1, got ", count);
  auto* means = mean.mutable_data_ptr<float>();
  auto* variances = variance.mutable_data_ptr<float>();
  const float* now = moments.const_data_ptr<float>();
  const auto share = static_cast<float>(weight);
  const auto unbiased = static_cast<float>(static_cast<double>(count) /
                                           static_cast<double>(std::max<int64_t>(count - 1, 1)));
  for (int64_t c = 0; c < channels; ++c) {
    means[c] = between(means[c], now[c], share);
    variances[c] = between(variances[c], now[c + channels] * unbiased, share);
  }
}

// Calls `run` with the beginning and the length of every run of values.
template <typename Run>
void over_values(int64_t count, const Run& run) {
  torch::stable::parallel_for(0, (count + kGrain - 1) / kGrain, 1,
                              [&](int64_t first, int64_t last) {
                                for (int64_t i = first; i < last; ++i)
                                  run(i * kGrain, std::min(kGrain, count - i * kGrain));
                              });
}

void activate_cpu(Tensor input, double slope, int64_t units) {
  check_rows("activate_", "input", input);
  check_units("activate_", units);
  const auto activation = static_cast<size_t>(activation_of(slope));
  with_kernels(input, units, [&](const auto& kernels) {
    auto* values = rows_of(kernels, layout_of(input), 0, input, nullptr, &input).out;
    over_values(input.numel(), [&](int64_t begin, int64_t count) {
      kernels.activate[activation](values + begin, count, static_cast<float>(slope));
    });
  });
}

Tensor activate_backward_cpu(const Tensor& gradient, const Tensor& result, double slope,
                             int64_t units) {
  const char* op = "activate_backward";
  check_rows(op, "result", result);
  check_like(op, "gradient", gradient, result);
  check_units(op, units);
  const auto activation = static_cast<size_t>(activation_of(slope));
  Tensor out = empty_rows(result);
  with_kernels(result, units, [&](const auto& kernels) {
    const auto rows = rows_of(kernels, layout_of(result), 0, result, &gradient, &out);
    over_values(result.numel(), [&](int64_t begin, int64_t count) {
      kernels.activate_backward[activation](rows.gradient + begin, rows.input + begin,
                                            rows.out + begin, count, static_cast<float>(slope));
    });
  });
  return out;
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CPU, library) {
  library.impl("batch_norm_moments", TORCH_BOX(&pokegan::batch_norm_moments_cpu));
  library.impl("batch_norm_act", TORCH_BOX(&pokegan::batch_norm_act_cpu));
  library.impl("batch_norm_act_sums", TORCH_BOX(&pokegan::batch_norm_act_sums_cpu));
  library.impl("batch_norm_act_backward", TORCH_BOX(&pokegan::batch_norm_act_backward_cpu));
  library.impl("batch_norm_track_", TORCH_BOX(&pokegan::batch_norm_track_cpu));
  library.impl("activate_", TORCH_BOX(&pokegan::activate_cpu));
  library.impl("activate_backward", TORCH_BOX(&pokegan::activate_backward_cpu));
}
