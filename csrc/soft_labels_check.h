// Arguments of the soft-label operators and their checks, the same words on every back end.
#pragma once

#include <vector>

#include "random_check.h"
#include "soft_labels.h"

namespace pokegan {

inline void check_range(const char* op, const char* side, double low, double high) {
  STD_TORCH_CHECK(low >= -1 && low <= 2, op, ": ", side, "_low must be in [-1, 2], got ", low);
  STD_TORCH_CHECK(high >= low && high <= 2, op, ": ", side, "_high must be in [", side,
                  "_low, 2], got ", high);
}

// `rule` is (real_low, real_high, fake_low, fake_high, swap).
inline LabelRule check_labels(const char* op, const std::vector<double>& rule) {
  STD_TORCH_CHECK(rule.size() == 5, op, ": rule must hold five numbers, got ", rule.size());
  check_range(op, "real", rule[0], rule[1]);
  check_range(op, "fake", rule[2], rule[3]);
  STD_TORCH_CHECK(rule[4] >= 0 && rule[4] <= 1, op, ": swap must be in [0, 1], got ", rule[4]);
  return {static_cast<float>(rule[0]), static_cast<float>(rule[1] - rule[0]),
          static_cast<float>(rule[2]), static_cast<float>(rule[3] - rule[2]),
          static_cast<float>(rule[4])};
}

inline void check_soft_labels(const Tensor& real, const Tensor& fake, const Tensor& samples,
                              const Tensor& step, int64_t form) {
  const ScalarType dtype = real.scalar_type();
  STD_TORCH_CHECK(
      dtype == ScalarType::Float || dtype == ScalarType::Double || dtype == ScalarType::BFloat16,
      "soft_labels: real must be float32, float64 or bfloat16");
  STD_TORCH_CHECK(real.dim() == 1, "soft_labels: real must have the shape [N]");
  STD_TORCH_CHECK(fake.scalar_type() == dtype, "soft_labels: fake must have the dtype of real");
  STD_TORCH_CHECK(fake.dim() == 1 && fake.size(0) == real.size(0),
                  "soft_labels: fake must have the shape of real");
  STD_TORCH_CHECK(same_device(fake, real), "soft_labels: fake must be on the device of real");
  check_place("soft_labels", step, samples);
  STD_TORCH_CHECK(samples.size(0) == real.size(0),
                  "soft_labels: samples must have the shape of real");
  STD_TORCH_CHECK(same_device(samples, real), "soft_labels: samples must be on the device of real");
  STD_TORCH_CHECK(form >= 0 && form <= 3, "soft_labels: form must be in [0, 3], got ", form);
}

// Calls `run` with the form as a compile-time constant.
template <typename Run>
void with_form(int64_t form, const Run& run) {
  switch (static_cast<LossForm>(form)) {
    case LossForm::kBce:
      return run(std::integral_constant<LossForm, LossForm::kBce>{});
    case LossForm::kLsgan:
      return run(std::integral_constant<LossForm, LossForm::kLsgan>{});
    case LossForm::kRgan:
      return run(std::integral_constant<LossForm, LossForm::kRgan>{});
    case LossForm::kRagan:
      return run(std::integral_constant<LossForm, LossForm::kRagan>{});
  }
}

}  // namespace pokegan
