// The weights of all layers divided by their spectral norms on the CPU, and the gradient of that.
#include <cstring>

#include "../spectral_norm_check.h"
#include "spectral_blocks.h"
#include "vector.h"

namespace pokegan {
namespace {

// bfloat16 as its bits. Rounded to nearest even, as torch does; a NaN stays one.
POKEGAN_INLINE void store(uint16_t* out, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  *out = static_cast<uint16_t>(value != value ? 0x7FC0U : rounded);
}
POKEGAN_INLINE void store(float* out, float value) { *out = value; }
POKEGAN_INLINE void store(double* out, double value) { *out = value; }

POKEGAN_INLINE float load(const uint16_t* stored) {
  const uint32_t bits = static_cast<uint32_t>(*stored) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
POKEGAN_INLINE float load(const float* stored) { return *stored; }
POKEGAN_INLINE double load(const double* stored) { return *stored; }

template <typename T, typename Out>
POKEGAN_INLINE void scale_of(const T* w, T factor, int64_t count, Out* out) {
  for (int64_t i = 0; i < count; ++i) store(out + i, w[i] * factor);
}
POKEGAN_CLONES void scale(const float* w, float factor, int64_t count, float* out) {
  scale_of(w, factor, count, out);
}
POKEGAN_CLONES void scale(const float* w, float factor, int64_t count, uint16_t* out) {
  scale_of(w, factor, count, out);
}
POKEGAN_CLONES void scale(const double* w, double factor, int64_t count, double* out) {
  scale_of(w, factor, count, out);
}

template <typename T, typename Out>
void scale_all(const Tensors& weights, const Tensor& sigma, const Tensors& out) {
  Blocks blocks;
  for (const Tensor& weight : weights) blocks.add_layer(weight.numel(), 1, 1);
  const T* sigmas = sigma.template const_data_ptr<T>();
  run_jobs(blocks.count(), blocks.parallel(), [&](int64_t job) {
    const auto& block = blocks.blocks[static_cast<size_t>(job)];
    scale(weights[block.layer].template const_data_ptr<T>() + block.begin,
          T(1) / sigmas[block.layer], block.end - block.begin,
          static_cast<Out*>(out[block.layer].mutable_data_ptr()) + block.begin);
  });
}

Tensors spectral_scale_cpu(Tensors weights, Tensor sigma, Tensor u, Tensor v,
                           std::vector<int64_t> dims, ScalarType dtype) {
  const std::vector<Matrix> matrices = check_weights("spectral_scale", weights, dims);
  check_factors("spectral_scale", weights, sigma, u, v, matrices);
  check_scale_dtype(dtype, weights);
  const Tensors out = empty_like_all(weights, dtype);
  if (dtype == ScalarType::Double) {
    scale_all<double, double>(weights, sigma, out);
  } else if (dtype == ScalarType::Float) {
    scale_all<float, float>(weights, sigma, out);
  } else {
    scale_all<float, uint16_t>(weights, sigma, out);
  }
  return out;
}

template <typename T, typename Gradient>
POKEGAN_INLINE double inner_product_of(const Gradient* g, const T* w, int64_t count) {
  T lanes[2 * kLanes] = {};
  int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    for (int lane = 0; lane < 2 * kLanes; ++lane) lanes[lane] += load(g + i + lane) * w[i + lane];
  }
  double sum = 0;
  for (int lane = 0; lane < 2 * kLanes; ++lane) sum += lanes[lane];
  for (; i < count; ++i) sum += static_cast<double>(load(g + i)) * w[i];
  return sum;
}
POKEGAN_CLONES double inner_product(const float* g, const float* w, int64_t count) {
  return inner_product_of(g, w, count);
}
POKEGAN_CLONES double inner_product(const uint16_t* g, const float* w, int64_t count) {
  return inner_product_of(g, w, count);
}
POKEGAN_CLONES double inner_product(const double* g, const double* w, int64_t count) {
  return inner_product_of(g, w, count);
}

// out = factor g - coefficient vector
template <typename T, typename Gradient>
POKEGAN_INLINE void subtract_of(const Gradient* g, T factor, T coefficient, const T* vector,
                                int64_t count, T* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = load(g + i) * factor - coefficient * vector[i];
}
POKEGAN_CLONES void subtract(const float* g, float factor, float coefficient, const float* vector,
                             int64_t count, float* out) {
  subtract_of(g, factor, coefficient, vector, count, out);
}
POKEGAN_CLONES void subtract(const uint16_t* g, float factor, float coefficient,
                             const float* vector, int64_t count, float* out) {
  subtract_of(g, factor, coefficient, vector, count, out);
}
POKEGAN_CLONES void subtract(const double* g, double factor, double coefficient,
                             const double* vector, int64_t count, double* out) {
  subtract_of(g, factor, coefficient, vector, count, out);
}

// <G, W> of every layer.
template <typename T, typename Gradient>
std::vector<double> inner_products(const Tensors& gradients, const Tensors& weights) {
  Blocks blocks;
  for (const Tensor& weight : weights) blocks.add_layer(weight.numel(), 1, 1);
  std::vector<double> partials(static_cast<size_t>(blocks.count()));
  run_jobs(blocks.count(), blocks.parallel(), [&](int64_t job) {
    const auto& block = blocks.blocks[static_cast<size_t>(job)];
    const auto* g = static_cast<const Gradient*>(gradients[block.layer].const_data_ptr());
    partials[static_cast<size_t>(job)] = inner_product(
        g + block.begin, weights[block.layer].template const_data_ptr<T>() + block.begin,
        block.end - block.begin);
  });
  std::vector<double> products(weights.size(), 0.0);
  for (size_t job = 0; job < partials.size(); ++job) {
    products[blocks.blocks[job].layer] += partials[job];
  }
  return products;
}

// dW = (G - <G, W> / sigma u vt) / sigma, segment by segment of contiguous memory.
template <typename T, typename Gradient>
void backward(const Tensors& gradients, const Tensors& weights, const Tensor& sigma,
              const Tensor& u, const Tensor& v, const std::vector<Matrix>& matrices,
              const Tensors& out) {
  const std::vector<double> products = inner_products<T, Gradient>(gradients, weights);
  const Offsets offsets = offsets_of(matrices);
  const T* us = u.template const_data_ptr<T>();
  const auto memory_v = scratch<T>(offsets.v.back());
  Blocks blocks;
  for (size_t i = 0; i < weights.size(); ++i) {
    const Matrix& m = matrices[i];
    to_memory_order(m, v.template const_data_ptr<T>() + offsets.v[i],
                    memory_v.get() + offsets.v[i]);
    if (m.inner == 1) {
      blocks.add_layer(m.outer, m.rows, 1);
    } else {
      blocks.add_layer(m.outer * m.rows, m.inner, 1);
    }
  }
  run_jobs(blocks.count(), blocks.parallel(), [&](int64_t job) {
    const auto& block = blocks.blocks[static_cast<size_t>(job)];
    const Matrix& m = matrices[block.layer];
    const double one = 1.0 / sigma.template const_data_ptr<T>()[block.layer];
    const double common = products[block.layer] * one * one;
    const T* layer_u = us + offsets.u[block.layer];
    const T* layer_v = memory_v.get() + offsets.v[block.layer];
    const auto* g = static_cast<const Gradient*>(gradients[block.layer].const_data_ptr());
    T* result = out[block.layer].template mutable_data_ptr<T>();
    const bool rows_innermost = m.inner == 1;
    const int64_t length = rows_innermost ? m.rows : m.inner;
    for (int64_t segment = block.begin; segment < block.end; ++segment) {
      const T* vector = rows_innermost ? layer_u : layer_v + segment / m.rows * m.inner;
      const double other = rows_innermost ? layer_v[segment] : layer_u[segment % m.rows];
      subtract(g + segment * length, static_cast<T>(one), static_cast<T>(common * other), vector,
               length, result + segment * length);
    }
  });
}

Tensors spectral_scale_backward_cpu(Tensors gradients, Tensors weights, Tensor sigma, Tensor u,
                                    Tensor v, std::vector<int64_t> dims) {
  const char* name = "spectral_scale_backward";
  const std::vector<Matrix> matrices = check_weights(name, weights, dims);
  check_factors(name, weights, sigma, u, v, matrices);
  const Tensors ordered = check_gradients(gradients, weights);
  const Tensors out = empty_like_all(weights, weights[0].scalar_type());
  if (weights[0].scalar_type() == ScalarType::Double) {
    backward<double, double>(ordered, weights, sigma, u, v, matrices, out);
  } else if (ordered[0].scalar_type() == ScalarType::Float) {
    backward<float, float>(ordered, weights, sigma, u, v, matrices, out);
  } else {
    backward<float, uint16_t>(ordered, weights, sigma, u, v, matrices, out);
  }
  return out;
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CPU, library) {
  library.impl("spectral_scale", TORCH_BOX(&pokegan::spectral_scale_cpu));
  library.impl("spectral_scale_backward", TORCH_BOX(&pokegan::spectral_scale_backward_cpu));
}
