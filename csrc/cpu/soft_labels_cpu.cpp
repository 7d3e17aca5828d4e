// Soft-label losses on the CPU: targets, loss, sum and slopes in one pass over runs of samples.
//
// A run's length does not depend on the threads and the runs' sums are added in order, so neither
// does the result.
#include <algorithm>
#include <tuple>
#include <type_traits>
#include <vector>

#include "../soft_labels_check.h"
#include "philox_lanes.h"
#include "vector.h"

namespace pokegan {
namespace {

constexpr int64_t kRun = 512;
constexpr int64_t kGrain = 4;  // runs
constexpr int kSums = 16;      // partial sums that are added side by side

// One run, in the arithmetic's type; the logits become the slopes.
template <typename Value>
struct Run {
  int64_t count;
  Value real[kRun];
  Value fake[kRun];
  Value loss[kRun];
  float real_target[kRun];
  float fake_target[kRun];
};

struct Labels {
  RandomKey key;
  LabelRule rule;
  const int64_t* samples;
};

POKEGAN_CLONES void targets_from(const Lanes& lanes, const LabelRule& rule, float* real,
                                 float* fake) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const uint32_t* word = lanes.word[lane];
    const Targets targets = soft_targets({{word[0], word[1], word[2], word[3]}}, rule);
    real[lane] = targets.real;
    fake[lane] = targets.fake;
  }
}

void draw_targets(const Labels& labels, int64_t begin, int64_t count, float* real, float* fake) {
  Lanes lanes{};
  float last[2][kLanes];
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t used = std::min<int64_t>(kLanes, count - i);
    std::copy_n(labels.samples + begin + i, used, lanes.sample);
    draw_lanes(labels.key, lanes);
    const bool whole = used == kLanes;
    targets_from(lanes, labels.rule, whole ? real + i : last[0], whole ? fake + i : last[1]);
    if (!whole) {
      std::copy_n(last[0], used, real + i);
      std::copy_n(last[1], used, fake + i);
    }
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
POKEGAN_INLINE void cost_of(Run<Value>& run, const Means<Value>& means) {
  for (int64_t i = 0; i < run.count; ++i) {
    const Cost<Value> cost = pair_cost<kForm, Value>(run.real[i], run.fake[i], run.real_target[i],
                                                     run.fake_target[i], means);
    run.loss[i] = cost.loss;
    run.real[i] = cost.real_slope;
    run.fake[i] = cost.fake_slope;
  }
}

// Clones cannot be templates: one for each form in float, which is what training runs.
POKEGAN_CLONES void cost_bce(Run<float>& run, const Means<float>& means) {
  cost_of<LossForm::kBce>(run, means);
}

POKEGAN_CLONES void cost_lsgan(Run<float>& run, const Means<float>& means) {
  cost_of<LossForm::kLsgan>(run, means);
}

POKEGAN_CLONES void cost_rgan(Run<float>& run, const Means<float>& means) {
  cost_of<LossForm::kRgan>(run, means);
}

POKEGAN_CLONES void cost_ragan(Run<float>& run, const Means<float>& means) {
  cost_of<LossForm::kRagan>(run, means);
}

template <LossForm kForm>
void cost_run(Run<double>& run, const Means<double>& means) {
  cost_of<kForm>(run, means);
}

template <LossForm kForm>
void cost_run(Run<float>& run, const Means<float>& means) {
  if constexpr (kForm == LossForm::kBce) cost_bce(run, means);
  if constexpr (kForm == LossForm::kLsgan) cost_lsgan(run, means);
  if constexpr (kForm == LossForm::kRgan) cost_rgan(run, means);
  if constexpr (kForm == LossForm::kRagan) cost_ragan(run, means);
}

inline float load(float value) { return value; }
inline double load(double value) { return value; }
inline float load(Bfloat16 value) { return to_float(value); }

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

// Sums over a run.
struct Sums {
  double loss;
  double real_slope;
  double fake_slope;
};

// The slopes' means flow back through the means of the other side's logits.
template <typename Value>
void take_means_off(const Sums& total, int64_t count, Value* real_slopes, Value* fake_slopes) {
  const double square = static_cast<double>(count) * static_cast<double>(count);
  const auto real = static_cast<Value>(total.real_slope / square);
  const auto fake = static_cast<Value>(total.fake_slope / square);
  for (int64_t i = 0; i < count; ++i) real_slopes[i] -= fake;
  for (int64_t i = 0; i < count; ++i) fake_slopes[i] -= real;
}

// The mean loss, NaN of an empty batch; its derivatives into the slopes.
template <LossForm kForm, typename Value, typename Scalar>
Value mean_loss(const Logits<Scalar>& logits, const Labels& labels, Value* real_slopes,
                Value* fake_slopes) {
  const int64_t count = logits.count;
  const Means<Value> means = logit_means<kForm, Value>(logits);
  const Value scale = Value(1) / static_cast<Value>(count);
  std::vector<Sums> sums(static_cast<size_t>(runs_of(count)));
  const auto cost_runs = [&](int64_t first, int64_t last) {
    Run<Value> run;
    for (int64_t i = first; i < last; ++i) {
      const int64_t begin = i * kRun;
      load_run(logits, labels, begin, run);
      cost_run<kForm>(run, means);
      Sums& sum = sums[static_cast<size_t>(i)];
      sum.loss = sum_of(run.loss, run.count);
      if constexpr (kForm == LossForm::kRagan) {
        sum.real_slope = sum_of(run.real, run.count);
        sum.fake_slope = sum_of(run.fake, run.count);
      }
      for (int64_t j = 0; j < run.count; ++j) real_slopes[begin + j] = run.real[j] * scale;
      for (int64_t j = 0; j < run.count; ++j) fake_slopes[begin + j] = run.fake[j] * scale;
    }
  };
  torch::stable::parallel_for(0, runs_of(count), kGrain, cost_runs);
  Sums total{};
  for (const Sums& sum : sums) {
    total.loss += sum.loss;
    total.real_slope += sum.real_slope;
    total.fake_slope += sum.fake_slope;
  }
  if constexpr (kForm == LossForm::kRagan) take_means_off(total, count, real_slopes, fake_slopes);
  return static_cast<Value>(total.loss / static_cast<double>(count));
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

std::tuple<Tensor, Tensor, Tensor> soft_labels_cpu(const Tensor& real, const Tensor& fake,
                                                   const Tensor& samples, const Tensor& step,
                                                   int64_t seed, int64_t stream, int64_t form,
                                                   const std::vector<double>& rule) {
  check_soft_labels(real, fake, samples, step, form);
  const LabelRule label_rule = check_labels("soft_labels", rule);
  const Tensor x = dense(real);
  const Tensor y = dense(fake);
  const Tensor places = dense(samples);
  const Labels labels{random_key(seed, stream, *step.const_data_ptr<int64_t>()), label_rule,
                      places.const_data_ptr<int64_t>()};
  const ScalarType dtype =
      real.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  Tensor loss = new_dense<0>(x, {}, dtype);
  Tensor real_slopes = new_dense<1>(x, {x.size(0)}, dtype);
  Tensor fake_slopes = new_dense<1>(x, {x.size(0)}, dtype);
  with_types(real.scalar_type(), [&](auto* scalar, auto* value) {
    using Scalar = std::remove_pointer_t<decltype(scalar)>;
    using Value = std::remove_pointer_t<decltype(value)>;
    with_form(form, [&](auto constant) {
      *loss.mutable_data_ptr<Value>() = mean_loss<decltype(constant)::value, Value>(
          logits_of<Scalar>(x, y), labels, real_slopes.mutable_data_ptr<Value>(),
          fake_slopes.mutable_data_ptr<Value>());
    });
  });
  return {loss, real_slopes, fake_slopes};
}

Tensor label_targets_cpu(const Tensor& samples, const Tensor& step, int64_t seed, int64_t stream,
                         const std::vector<double>& rule) {
  check_place("label_targets", step, samples);
  const LabelRule label_rule = check_labels("label_targets", rule);
  const Tensor places = dense(samples);
  const int64_t count = places.size(0);
  Tensor out = new_dense<2>(places, {2, count}, ScalarType::Float);
  const Labels labels{random_key(seed, stream, *step.const_data_ptr<int64_t>()), label_rule,
                      places.const_data_ptr<int64_t>()};
  auto* values = out.mutable_data_ptr<float>();
  draw_targets(labels, 0, count, values, values + count);
  return out;
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CPU, library) {
  library.impl("soft_labels", TORCH_BOX(&pokegan::soft_labels_cpu));
  library.impl("label_targets", TORCH_BOX(&pokegan::label_targets_cpu));
}
