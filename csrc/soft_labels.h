// Soft labels and the losses on them: what a sample's targets are, and what its logits cost.
// No torch types here. pokegan/ops/soft_labels.py has the formulas in plain PyTorch.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "exact.h"
#include "philox.h"

namespace pokegan {

// The numbers are those of FORMS in pokegan/ops/soft_labels.py.
enum class LossForm : int64_t { kBce = 0, kLsgan = 1, kRgan = 2, kRagan = 3 };

// A target is low + span * U, and with probability `swap` 1 minus that.
struct LabelRule {
  float real_low;
  float real_span;
  float fake_low;
  float fake_span;
  float swap;
};

struct Targets {
  float real;
  float fake;
};

// Of words 0 to 3 of a sample: the real target, its swap, the fake target, its swap.
POKEGAN_HOST_DEVICE Targets soft_targets(const Words4& words, const LabelRule& rule) {
  const float real = multiply_add(rule.real_span, uniform_from(words.word[0]), rule.real_low);
  const float fake = multiply_add(rule.fake_span, uniform_from(words.word[2]), rule.fake_low);
  return {uniform_from(words.word[1]) < rule.swap ? 1.0F - real : real,
          uniform_from(words.word[3]) < rule.swap ? 1.0F - fake : fake};
}

// exp(-a) for a >= 0.
POKEGAN_HOST_DEVICE double exp_minus(double a) { return std::exp(-a); }

POKEGAN_HOST_DEVICE float exp_minus(float a) {
#if defined(__CUDA_ARCH__)
  return expf(-a);
#else
  // Cephes' expf without branches, so that loops over it are vectorised; a NaN stays one.
  const float x = -(a > 87.0F ? 87.0F : a);
  const float shifted = x * 1.44269504F + 12582912.0F;  // 1.5 * 2^23: rounds, keeps n in its bits
  const float n = shifted - 12582912.0F;
  const float r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  const float fraction = (p * r) * r + r + 1.0F;
  uint32_t power;
  uint32_t bits;
  std::memcpy(&power, &shifted, sizeof(power));
  std::memcpy(&bits, &fraction, sizeof(bits));
  bits += power << 23;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
#endif
}

// log(1 + e) for e in [0, 1].
POKEGAN_HOST_DEVICE double log_one_plus(double e) { return std::log1p(e); }

POKEGAN_HOST_DEVICE float log_one_plus(float e) {
#if defined(__CUDA_ARCH__)
  return log1pf(e);
#else
  const float s = e / (2.0F + e);  // 2 atanh(s), its series cut at 3e-9
  const float z = s * s;
  float series = 1.0F / 15;
  series = series * z + 1.0F / 13;
  series = series * z + 1.0F / 11;
  series = series * z + 1.0F / 9;
  series = series * z + 1.0F / 7;
  series = series * z + 1.0F / 5;
  series = series * z + 1.0F / 3;
  series = series * z + 1.0F;
  return (s + s) * series;
#endif
}

template <typename Value>
POKEGAN_HOST_DEVICE Value absolute(Value x) {
  return x < Value(0) ? -x : x;
}

// Binary cross entropy of a logit: -t log s(x) - (1 - t) log(1 - s(x)) = softplus(x) - t x.
template <typename Value>
POKEGAN_HOST_DEVICE Value cross_entropy(Value x, Value target) {
  const Value positive = x > Value(0) ? x : Value(0);
  return positive - target * x + log_one_plus(exp_minus(absolute(x)));
}

// Its derivative: s(x) - t.
template <typename Value>
POKEGAN_HOST_DEVICE Value cross_entropy_slope(Value x, Value target) {
  const Value e = exp_minus(absolute(x));
  return (x < Value(0) ? e : Value(1)) / (Value(1) + e) - target;
}

// With z = real - fake, half the sum of f1(z) against the real target and f2(-z) against the fake
// one is the cross entropy of z against this.
template <typename Value>
POKEGAN_HOST_DEVICE Value pair_target(Value real, Value fake) {
  return Value(0.5) * (real + (Value(1) - fake));
}

// Means over the batch, which only the relativistic average loss has.
template <typename Value>
struct Means {
  Value real;
  Value fake;
};

// What a pair of logits costs, and the derivatives by the two.
template <typename Value>
struct Cost {
  Value loss;
  Value real_slope;
  Value fake_slope;
};

// The slopes of the relativistic average loss are those with the means held fixed.
template <LossForm kForm, typename Value>
POKEGAN_HOST_DEVICE Cost<Value> pair_cost(Value real, Value fake, Value real_target,
                                          Value fake_target, const Means<Value>& logits) {
  if constexpr (kForm == LossForm::kLsgan) {
    const Value on_real = real - real_target;
    const Value on_fake = fake - fake_target;
    return {Value(0.5) * (on_real * on_real + on_fake * on_fake), on_real, on_fake};
  } else if constexpr (kForm == LossForm::kRgan) {
    const Value target = pair_target(real_target, fake_target);
    const Value slope = cross_entropy_slope(real - fake, target);
    return {cross_entropy(real - fake, target), slope, -slope};
  } else {
    const bool average = kForm == LossForm::kRagan;
    const Value x = average ? real - logits.fake : real;
    const Value y = average ? fake - logits.real : fake;
    return {cross_entropy(x, real_target) + cross_entropy(y, fake_target),
            cross_entropy_slope(x, real_target), cross_entropy_slope(y, fake_target)};
  }
}

}  // namespace pokegan
