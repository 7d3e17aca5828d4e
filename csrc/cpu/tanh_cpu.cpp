// The hyperbolic tangent of bfloat16 values, by one exponential: several times as fast as one that
// is exact in float32.
#include <algorithm>

#include "../random_check.h"
#include "lanes.h"

namespace pokegan {
namespace {

constexpr int64_t kGrain = 1 << 14;  // values, of a thread

// tanh |x| = (1 - e) / (1 + e) with e = exp(-2 |x|); where that cancels, x - x^3 / 3. Within 2^-18
// of its value before it is rounded; the sign is that of x.
POKEGAN_INLINE void tanh_lanes(Unaligned& value) {
  const Lanes x = value;
  const Lanes size = x < 0.0F ? -x : x;
  Lanes power = size * -2.0F;
  exp_of_negative(power);
  const Lanes far = (1.0F - power) / (1.0F + power);
  value = size < 0.015625F ? x * (1.0F - x * x * (1.0F / 3)) : (x < 0.0F ? -far : far);
}

// In runs that stay in the first cache, whose conversions are loops of their own: so the compiler
// makes vectors of them, too.
POKEGAN_CLONES void tanh_run(const Bfloat16* __restrict in, int64_t count,
                             Bfloat16* __restrict out) {
  constexpr int64_t kRun = 1024;
  float row[kRun] = {};
  for (int64_t first = 0; first < count; first += kRun) {
    const int64_t used = std::min(kRun, count - first);
    for (int64_t i = 0; i < used; ++i) row[i] = read(in[first + i]);
    for (int64_t i = 0; i < used; i += kLanes) tanh_lanes(*reinterpret_cast<Unaligned*>(row + i));
    for (int64_t i = 0; i < used; ++i) write(out + first + i, row[i]);
  }
}

Tensor tanh_cpu(const Tensor& input) {
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::BFloat16, "tanh: input must be bfloat16");
  Tensor out = torch::stable::empty_like(input);
  bool dense = out.dim() == input.dim();
  for (int64_t axis = 0; axis < input.dim(); ++axis) {
    dense = dense && (input.size(axis) <= 1 || input.stride(axis) == out.stride(axis));
  }
  STD_TORCH_CHECK(dense, "tanh: input must be dense");
  const auto* in = static_cast<const Bfloat16*>(input.const_data_ptr());
  auto* to = static_cast<Bfloat16*>(out.mutable_data_ptr());
  const int64_t count = input.numel();
  const int64_t jobs = (count + kGrain - 1) / kGrain;
  torch::stable::parallel_for(0, jobs, 1, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kGrain;
    tanh_run(in + first, std::min(end * kGrain, count) - first, to + first);
  });
  return out;
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CPU, library) {
  library.impl("tanh", TORCH_BOX(&pokegan::tanh_cpu));
}
