// What the passes of a batch norm need of a channel, from its moments and parameters.
#pragma once

#include <vector>

#include "../batch_norm_act_check.h"
#include "batch_norm_rows.h"

namespace pokegan {

constexpr int64_t kPaddedChannels = 32;

class Coefficients {
 public:
  Coefficients(const Tensor& moments, const std::optional<Tensor>& weight,
               const std::optional<Tensor>& bias, double eps, double slope)
      : count_(moments.size(1)),
        slope_(static_cast<float>(slope)),
        mean_(padded()),
        scale_(padded()),
        bias_(padded()) {
    const auto* means = moments.const_data_ptr<float>();
    const float* factor = weight.has_value() ? weight->const_data_ptr<float>() : nullptr;
    const float* shift = bias.has_value() ? bias->const_data_ptr<float>() : nullptr;
    for (int64_t i = 0; i < count_; ++i) {
      const auto c = static_cast<size_t>(i);
      deviation_.push_back(inverse_deviation(means[i + count_], eps));
      mean_[c] = means[i];
      scale_[c] = static_cast<float>(factor == nullptr ? deviation_[c] : deviation_[c] * factor[i]);
      bias_[c] = shift == nullptr ? 0.0F : shift[i];
    }
  }

  double inverse_deviation_of(int64_t c) const { return deviation_[static_cast<size_t>(c)]; }

  // Zeros behind the last channel, up to a multiple of kPaddedChannels.
  Channels channels() const { return {mean_.data(), scale_.data(), bias_.data(), slope_}; }

  // The gradients by weight and bias, of the sums of g (x - mean) and those of g: [2, C].
  Tensor sums_of(const Tensor& like, const std::vector<double>& totals) const {
    Tensor out = new_dense<2>(like, {2, count_}, ScalarType::Float);
    auto* values = out.mutable_data_ptr<float>();
    for (int64_t c = 0; c < count_; ++c) {
      values[c] = static_cast<float>(totals[static_cast<size_t>(c)] * inverse_deviation_of(c));
      values[c + count_] = static_cast<float>(totals[static_cast<size_t>(c + count_)]);
    }
    return out;
  }

 private:
  std::vector<float> padded() const {
    const int64_t blocks = (count_ + kPaddedChannels - 1) / kPaddedChannels;
    return std::vector<float>(static_cast<size_t>(blocks * kPaddedChannels), 0.0F);
  }

  int64_t count_;
  float slope_;
  std::vector<double> deviation_;
  std::vector<float> mean_;
  std::vector<float> scale_;
  std::vector<float> bias_;
};

}  // namespace pokegan
