// Soft-label losses on the CPU: targets, loss and sum in one pass over runs of samples.
//
// A run's length does not depend on the threads and the runs' sums are added in order, so neither
// does the result.
#include <algorithm>
#include <tuple>
#include <vector>

#include "../soft_labels_check.h"
#include "vector.h"

namespace pokegan {
namespace {

constexpr int64_t kRun = 512;
constexpr int64_t kGrain = 16;  // runs
constexpr int kSums = 16;       // partial sums that are added side by side

// One run, in the arithmetic's type.
template <typename Value>
struct Run {
  int64_t count;
  Value real[kRun];
  Value fake[kRun];
  float real_target[kRun];
  float fake_target[kRun];
};

struct Labels {
  RandomKey key;
  LabelRule rule;
  const int64_t* samples;
};

POKEGAN_CLONES void draw_targets(const Labels& labels, int64_t begin, int64_t count, float* real,
                                 float* fake) {
  const int64_t* samples = labels.samples + begin;
  for (int64_t i = 0; i < count; ++i) {
    const Targets targets =
        soft_targets(labels.key, labels.rule, static_cast<uint32_t>(samples[i]));
    real[i] = targets.real;
    fake[i] = targets.fake;
  }
}

template <typename Value>
POKEGAN_INLINE double sum_of(const Value* value, int64_t count) {
  double sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= count; i += kSums) {
    for (int lane = 0; lane < kSums; ++lane) sums[lane] += value[i + lane];
  }
  double total = 0;
  for (; i < count; ++i) total += value[i];
  for (const double sum : sums) total += sum;
  return total;
}

template <LossForm kForm, typename Value>
POKEGAN_INLINE double sum_losses(const Run<Value>& run, const Means<Value>& means) {
  Value loss[kRun];
  for (int64_t i = 0; i < run.count; ++i) {
    loss[i] = pair_loss<kForm, Value>(run.real[i], run.fake[i], run.real_target[i],
                                      run.fake_target[i], means);
  }
  return sum_of(loss, run.count);
}

// In place: the logits become the slopes.
template <LossForm kForm, typename Value>
POKEGAN_INLINE void make_slopes(Run<Value>& run, const Means<Value>& means) {
  for (int64_t i = 0; i < run.count; ++i) {
    const Slopes<Value> slopes = pair_slopes<kForm, Value>(
        run.real[i], run.fake[i], run.real_target[i], run.fake_target[i], means);
    run.real[i] = slopes.real;
    run.fake[i] = slopes.fake;
  }
}

// Clones cannot be templates: one of each for the forms in float, which is what training runs.
#define POKEGAN_FORM(name, form)                                                       \
  POKEGAN_CLONES double sum_##name(const Run<float>& run, const Means<float>& means) { \
    return sum_losses<form>(run, means);                                               \
  }                                                                                    \
  POKEGAN_CLONES void slopes_##name(Run<float>& run, const Means<float>& means) {      \
    make_slopes<form>(run, means);                                                     \
  }
POKEGAN_FORM(bce, LossForm::kBce)
POKEGAN_FORM(lsgan, LossForm::kLsgan)
POKEGAN_FORM(rgan, LossForm::kRgan)
POKEGAN_FORM(ragan, LossForm::kRagan)
#undef POKEGAN_FORM

template <LossForm kForm>
double sum_run(const Run<double>& run, const Means<double>& means) {
  return sum_losses<kForm>(run, means);
}

template <LossForm kForm>
double sum_run(const Run<float>& run, const Means<float>& means) {
  if constexpr (kForm == LossForm::kBce) return sum_bce(run, means);
  if constexpr (kForm == LossForm::kLsgan) return sum_lsgan(run, means);
  if constexpr (kForm == LossForm::kRgan) return sum_rgan(run, means);
  if constexpr (kForm == LossForm::kRagan) return sum_ragan(run, means);
}

template <LossForm kForm>
void slopes_run(Run<double>& run, const Means<double>& means) {
  make_slopes<kForm>(run, means);
}

template <LossForm kForm>
void slopes_run(Run<float>& run, const Means<float>& means) {
  if constexpr (kForm == LossForm::kBce) slopes_bce(run, means);
  if constexpr (kForm == LossForm::kLsgan) slopes_lsgan(run, means);
  if constexpr (kForm == LossForm::kRgan) slopes_rgan(run, means);
  if constexpr (kForm == LossForm::kRagan) slopes_ragan(run, means);
}

inline float load(float value) { return value; }
inline double load(double value) { return value; }
inline float load(Bfloat16 value) { return to_float(value); }
inline void store(float value, float& out) { out = value; }
inline void store(double value, double& out) { out = value; }
inline void store(float value, Bfloat16& out) { out = to_bfloat16(value); }

// The batch's two rows of logits, of any dtype.
template <typename Scalar>
struct Logits {
  const Scalar* real;
  const Scalar* fake;
  int64_t count;
};

template <typename Scalar, typename Value>
void load_run(const Logits<Scalar>& logits, const Labels& labels, int64_t begin, Run<Value>& run) {
  run.count = std::min(kRun, logits.count - begin);
  for (int64_t i = 0; i < run.count; ++i) run.real[i] = load(logits.real[begin + i]);
  for (int64_t i = 0; i < run.count; ++i) run.fake[i] = load(logits.fake[begin + i]);
  draw_targets(labels, begin, run.count, run.real_target, run.fake_target);
}

// The means of the logits, for the form that needs them.
template <LossForm kForm, typename Value, typename Scalar>
Means<Value> logit_means(const Logits<Scalar>& logits) {
  if constexpr (kForm != LossForm::kRagan) return {0, 0};
  double real = 0;
  double fake = 0;
  for (int64_t i = 0; i < logits.count; ++i) real += load(logits.real[i]);
  for (int64_t i = 0; i < logits.count; ++i) fake += load(logits.fake[i]);
  const auto count = static_cast<double>(logits.count);
  return {static_cast<Value>(real / count), static_cast<Value>(fake / count)};
}

int64_t runs_of(int64_t count) { return (count + kRun - 1) / kRun; }

template <LossForm kForm, typename Value, typename Scalar>
Value mean_loss(const Logits<Scalar>& logits, const Labels& labels) {
  const Means<Value> means = logit_means<kForm, Value>(logits);
  std::vector<double> sums(static_cast<size_t>(runs_of(logits.count)));
  const auto sum_runs = [&](int64_t begin, int64_t end) {
    Run<Value> run;
    for (int64_t i = begin; i < end; ++i) {
      load_run(logits, labels, i * kRun, run);
      sums[static_cast<size_t>(i)] = sum_run<kForm>(run, means);
    }
  };
  torch::stable::parallel_for(0, runs_of(logits.count), kGrain, sum_runs);
  double total = 0;
  for (const double sum : sums) total += sum;
  return static_cast<Value>(total / static_cast<double>(logits.count));  // NaN of an empty batch
}

// The slopes' means, which flow back through the means of the other side's logits.
template <LossForm kForm, typename Value, typename Scalar>
Means<Value> slope_means(const Logits<Scalar>& logits, const Labels& labels,
                         const Means<Value>& means) {
  if constexpr (kForm != LossForm::kRagan) return {0, 0};
  double real = 0;
  double fake = 0;
  Run<Value> run;
  for (int64_t i = 0; i < runs_of(logits.count); ++i) {
    load_run(logits, labels, i * kRun, run);
    slopes_run<kForm>(run, means);
    real += sum_of(run.real, run.count);
    fake += sum_of(run.fake, run.count);
  }
  const auto count = static_cast<double>(logits.count);
  return {static_cast<Value>(real / count), static_cast<Value>(fake / count)};
}

template <LossForm kForm, typename Value, typename Scalar>
void write_gradients(const Logits<Scalar>& logits, const Labels& labels, Value gradient,
                     Scalar* real_out, Scalar* fake_out) {
  const Means<Value> means = logit_means<kForm, Value>(logits);
  const Means<Value> slopes = slope_means<kForm, Value>(logits, labels, means);
  const Value scale = gradient / static_cast<Value>(logits.count);
  const auto write_runs = [&](int64_t begin, int64_t end) {
    Run<Value> run;
    for (int64_t i = begin; i < end; ++i) {
      load_run(logits, labels, i * kRun, run);
      slopes_run<kForm>(run, means);
      for (int64_t j = 0; j < run.count; ++j) {
        store((run.real[j] - slopes.fake) * scale, real_out[i * kRun + j]);
        store((run.fake[j] - slopes.real) * scale, fake_out[i * kRun + j]);
      }
    }
  };
  torch::stable::parallel_for(0, runs_of(logits.count), kGrain, write_runs);
}

// Calls `run` with a null pointer of the logits' type and one of the arithmetic's.
template <typename Call>
void with_types(ScalarType dtype, const Call& call) {
  if (dtype == ScalarType::Double) {
    call(static_cast<double*>(nullptr), static_cast<double*>(nullptr));
  } else if (dtype == ScalarType::Float) {
    call(static_cast<float*>(nullptr), static_cast<float*>(nullptr));
  } else {
    call(static_cast<Bfloat16*>(nullptr), static_cast<float*>(nullptr));
  }
}

template <typename Scalar>
Logits<Scalar> logits_of(const Tensor& real, const Tensor& fake) {
  return {static_cast<const Scalar*>(real.const_data_ptr()),
          static_cast<const Scalar*>(fake.const_data_ptr()), real.size(0)};
}

Tensor soft_labels_cpu(const Tensor& real, const Tensor& fake, const Tensor& samples,
                       const Tensor& step, int64_t seed, int64_t stream, int64_t form,
                       double real_low, double real_high, double fake_low, double fake_high,
                       double swap) {
  check_soft_labels(real, fake, samples, step, form);
  const LabelRule rule =
      check_labels("soft_labels", {real_low, real_high, fake_low, fake_high, swap});
  const Tensor x = torch::stable::contiguous(real);
  const Tensor y = torch::stable::contiguous(fake);
  const Tensor places = torch::stable::contiguous(samples);
  const Labels labels{random_key(seed, stream, *step.const_data_ptr<int64_t>()), rule,
                      places.const_data_ptr<int64_t>()};
  const bool wide = real.scalar_type() == ScalarType::Double;
  Tensor out = torch::stable::new_empty(x, {}, wide ? ScalarType::Double : ScalarType::Float);
  with_types(real.scalar_type(), [&](auto* scalar, auto* value) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    using Value = std::remove_pointer_t<decltype(value)>;
    with_form(form, [&](auto constant) {
      *out.mutable_data_ptr<Value>() =
          mean_loss<decltype(constant)::value, Value>(logits_of<Scalar>(x, y), labels);
    });
  });
  return out;
}

std::tuple<Tensor, Tensor> soft_labels_backward_cpu(const Tensor& gradient, const Tensor& real,
                                                    const Tensor& fake, const Tensor& samples,
                                                    const Tensor& step, int64_t seed,
                                                    int64_t stream, int64_t form, double real_low,
                                                    double real_high, double fake_low,
                                                    double fake_high, double swap) {
  check_soft_labels(real, fake, samples, step, form);
  check_gradient(gradient, real);
  const LabelRule rule =
      check_labels("soft_labels", {real_low, real_high, fake_low, fake_high, swap});
  const Tensor x = torch::stable::contiguous(real);
  const Tensor y = torch::stable::contiguous(fake);
  const Tensor places = torch::stable::contiguous(samples);
  const Labels labels{random_key(seed, stream, *step.const_data_ptr<int64_t>()), rule,
                      places.const_data_ptr<int64_t>()};
  Tensor real_out = torch::stable::new_empty(x, {x.size(0)});
  Tensor fake_out = torch::stable::new_empty(y, {y.size(0)});
  with_types(real.scalar_type(), [&](auto* scalar, auto* value) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    using Value = std::remove_pointer_t<decltype(value)>;
    with_form(form, [&](auto constant) {
      write_gradients<decltype(constant)::value, Value>(
          logits_of<Scalar>(x, y), labels, *gradient.const_data_ptr<Value>(),
          static_cast<Scalar*>(real_out.mutable_data_ptr()),
          static_cast<Scalar*>(fake_out.mutable_data_ptr()));
    });
  });
  return {real_out, fake_out};
}

Tensor label_targets_cpu(const Tensor& samples, const Tensor& step, int64_t seed, int64_t stream,
                         double real_low, double real_high, double fake_low, double fake_high,
                         double swap) {
  check_place("label_targets", step, samples);
  const LabelRule rule =
      check_labels("label_targets", {real_low, real_high, fake_low, fake_high, swap});
  const Tensor places = torch::stable::contiguous(samples);
  const int64_t count = places.size(0);
  Tensor out = torch::stable::new_empty(places, {2, count}, ScalarType::Float);
  const Labels labels{random_key(seed, stream, *step.const_data_ptr<int64_t>()), rule,
                      places.const_data_ptr<int64_t>()};
  auto* values = out.mutable_data_ptr<float>();
  draw_targets(labels, 0, count, values, values + count);
  return out;
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CPU, library) {
  library.impl("soft_labels", TORCH_BOX(&pokegan::soft_labels_cpu));
  library.impl("soft_labels_backward", TORCH_BOX(&pokegan::soft_labels_backward_cpu));
  library.impl("label_targets", TORCH_BOX(&pokegan::label_targets_cpu));
}
