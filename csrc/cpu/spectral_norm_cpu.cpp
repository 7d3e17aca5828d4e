// The spectral norm of all layers of a network on the CPU. One pass over W an iteration.
//
// The work is cut into blocks whose size depends on the shapes alone, and what the blocks give is
// added up in their order: the same bits for any count of threads.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "../spectral_norm_check.h"
#include "vector.h"

namespace pokegan {
namespace {

constexpr int64_t kBlock = 65536;  // values of W a block: 256 KB, inside of a second-level cache
constexpr int kRows = 4;           // rows that share one reading of v and of s
constexpr int kLanes = 16;         // partial sums of a dot product, in a fixed order

// A plain loop over lanes is what every compiler turns into vector registers.
template <int kCount, typename T>
POKEGAN_INLINE void add_dots(const T* w, int64_t stride, const T* v, int64_t count, T* sums) {
  T lanes[kCount][kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int k = 0; k < kCount; ++k) {
      for (int lane = 0; lane < kLanes; ++lane) {
        lanes[k][lane] += w[k * stride + i + lane] * v[i + lane];
      }
    }
  }
  for (int k = 0; k < kCount; ++k) {
    for (int half = kLanes / 2; half > 0; half /= 2) {
      for (int lane = 0; lane < half; ++lane) lanes[k][lane] += lanes[k][lane + half];
    }
    T sum = lanes[k][0];
    for (int64_t j = i; j < count; ++j) sum += w[k * stride + j] * v[j];
    sums[k] += sum;
  }
}

template <int kCount, typename T>
POKEGAN_INLINE void add_rows(const T* w, int64_t stride, const T* t, int64_t count, T* s) {
  for (int64_t i = 0; i < count; ++i) {
    T sum = s[i];
    for (int k = 0; k < kCount; ++k) sum += t[k] * w[k * stride + i];
    s[i] = sum;
  }
}

// t = W v of kCount rows; s += Wt t, unless s is nullptr.
template <int kCount, typename T>
POKEGAN_INLINE void pass_rows(const T* w, const Matrix& m, const T* v, T* t, T* s) {
  for (int k = 0; k < kCount; ++k) t[k] = 0;
  for (int64_t a = 0; a < m.outer; ++a) {
    add_dots<kCount>(w + a * m.rows * m.inner, m.inner, v + a * m.inner, m.inner, t);
  }
  if (s == nullptr) return;
  for (int64_t a = 0; a < m.outer; ++a) {
    add_rows<kCount>(w + a * m.rows * m.inner, m.inner, t, m.inner, s + a * m.inner);
  }
}

// The same where rows are innermost: `rows` of them from w on, vectorised over the rows.
template <typename T>
POKEGAN_INLINE void pass_innermost(const T* w, const Matrix& m, int64_t rows, const T* v, T* t,
                                   T* s) {
  for (int64_t r = 0; r < rows; ++r) t[r] = 0;
  for (int64_t a = 0; a < m.outer; ++a) {
    for (int64_t r = 0; r < rows; ++r) t[r] += v[a] * w[a * m.rows + r];
  }
  if (s == nullptr) return;
  for (int64_t a = 0; a < m.outer; ++a) add_dots<1>(w + a * m.rows, 0, t, rows, s + a);
}

template <typename T>
POKEGAN_INLINE void pass_block_of(const T* w, const Matrix& m, int64_t begin, int64_t end,
                                  const T* v, T* t, T* s) {
  if (s != nullptr) std::fill(s, s + m.columns(), T(0));
  if (m.inner == 1) {
    return pass_innermost(w + begin, m, end - begin, v, t + begin, s);
  }
  int64_t r = begin;
  for (; r + kRows <= end; r += kRows) pass_rows<kRows>(w + r * m.inner, m, v, t + r, s);
  for (; r < end; ++r) pass_rows<1>(w + r * m.inner, m, v, t + r, s);
}

POKEGAN_CLONES void pass_block(const float* w, const Matrix& m, int64_t begin, int64_t end,
                               const float* v, float* t, float* s) {
  pass_block_of(w, m, begin, end, v, t, s);
}
POKEGAN_CLONES void pass_block(const double* w, const Matrix& m, int64_t begin, int64_t end,
                               const double* v, double* t, double* s) {
  pass_block_of(w, m, begin, end, v, t, s);
}

template <typename T>
POKEGAN_INLINE void add_partials_of(const T* partials, int64_t blocks, int64_t count, T* sum) {
  std::copy(partials, partials + count, sum);
  for (int64_t block = 1; block < blocks; ++block) {
    for (int64_t i = 0; i < count; ++i) sum[i] += partials[block * count + i];
  }
}

POKEGAN_CLONES void add_partials(const float* partials, int64_t blocks, int64_t count, float* sum) {
  add_partials_of(partials, blocks, count, sum);
}
POKEGAN_CLONES void add_partials(const double* partials, int64_t blocks, int64_t count,
                                 double* sum) {
  add_partials_of(partials, blocks, count, sum);
}

template <typename T>
double dot(const T* one, const T* two, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(one[i]) * two[i];
  return sum;
}

// Columns from PyTorch's order to memory order, and back.
template <typename T>
void to_memory_order(const Matrix& m, const T* logical, T* memory) {
  const int64_t channels = m.channels == 0 ? 1 : m.channels;
  const int64_t places = m.columns() / std::max<int64_t>(channels, 1);
  for (int64_t place = 0; place < places; ++place) {
    for (int64_t c = 0; c < channels; ++c)
      memory[place * channels + c] = logical[c * places + place];
  }
}

template <typename T>
void to_logical_order(const Matrix& m, const T* memory, T* logical) {
  const int64_t channels = m.channels == 0 ? 1 : m.channels;
  const int64_t places = m.columns() / std::max<int64_t>(channels, 1);
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t place = 0; place < places; ++place) {
      logical[c * places + place] = memory[place * channels + c];
    }
  }
}

// Run jobs 0, ..., count - 1 on whichever thread is free. A job's result may not depend on that.
template <typename Job>
void run_jobs(int64_t count, bool parallel, const Job& job) {
  const int64_t threads = parallel ? std::min<int64_t>(torch::stable::get_num_threads(), count) : 1;
  if (threads <= 1) {
    for (int64_t i = 0; i < count; ++i) job(i);
    return;
  }
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < count; i = next++) job(i);
  });
}

// Consecutive blocks of all layers; a job is a range of one layer's items.
struct Blocks {
  struct Block {
    size_t layer;
    int64_t begin;
    int64_t end;
  };
  std::vector<Block> blocks;
  std::vector<int64_t> first;  // by layer, and one more
  int64_t values = 0;

  // `items` of `size` values each, in blocks of about kBlock values and a multiple of `multiple`.
  void add_layer(int64_t items, int64_t size, int64_t multiple) {
    if (first.empty()) first.push_back(0);
    const int64_t wanted = kBlock / std::max<int64_t>(size, 1) / multiple * multiple;
    const int64_t step = std::max(multiple, wanted);
    const size_t layer = first.size() - 1;
    for (int64_t begin = 0; begin < items; begin += step) {
      blocks.push_back({layer, begin, std::min(begin + step, items)});
    }
    first.push_back(static_cast<int64_t>(blocks.size()));
    values += items * size;
  }
  int64_t count() const { return static_cast<int64_t>(blocks.size()); }
  bool parallel() const { return values >= kBlock; }
};

template <typename T>
std::unique_ptr<T[]> scratch(int64_t count) {
  return std::unique_ptr<T[]>(new T[static_cast<size_t>(std::max<int64_t>(count, 1))]);
}

struct Offsets {
  std::vector<int64_t> u;
  std::vector<int64_t> v;
};

Offsets offsets_of(const std::vector<Matrix>& matrices) {
  Offsets offsets{{0}, {0}};
  for (const Matrix& matrix : matrices) {
    offsets.u.push_back(offsets.u.back() + matrix.rows);
    offsets.v.push_back(offsets.v.back() + matrix.columns());
  }
  return offsets;
}

// What one pass over all weights needs and leaves: t = W v, and s = Wt t as one partial a block.
template <typename T>
struct Pass {
  Pass(const Tensors& weights, const std::vector<Matrix>& matrices, bool with_s)
      : weights(weights), matrices(matrices), offsets(offsets_of(matrices)) {
    int64_t partial_values = 0;
    for (const Matrix& m : matrices) {
      const int64_t before = blocks.count();
      blocks.add_layer(m.rows, m.columns(), m.inner == 1 ? kLanes : kRows);
      for (int64_t block = before; block < blocks.count(); ++block) {
        partial_offsets.push_back(partial_values);
        partial_values += with_s ? m.columns() : 0;
      }
      partial_offsets.push_back(partial_values);  // of the layer's end: one more a layer
    }
    t = scratch<T>(offsets.u.back());
    v = scratch<T>(offsets.v.back());
    if (with_s) partials = scratch<T>(partial_values);
  }

  // The partials of a block. Every layer before it has one entry more than it has blocks.
  T* partial(int64_t block, size_t layer) const {
    if (partials == nullptr) return nullptr;
    return partials.get() + partial_offsets[static_cast<size_t>(block) + layer];
  }

  void run() const {
    run_jobs(blocks.count(), blocks.parallel(), [&](int64_t job) {
      const auto& block = blocks.blocks[static_cast<size_t>(job)];
      pass_block(weights[block.layer].template const_data_ptr<T>(), matrices[block.layer],
                 block.begin, block.end, v.get() + offsets.v[block.layer],
                 t.get() + offsets.u[block.layer], partial(job, block.layer));
    });
  }

  const Tensors& weights;
  const std::vector<Matrix>& matrices;
  Offsets offsets;
  Blocks blocks;
  std::vector<int64_t> partial_offsets;
  std::unique_ptr<T[]> t;
  std::unique_ptr<T[]> v;  // in memory order
  std::unique_ptr<T[]> partials;
};

template <typename T>
void load_vectors(const Pass<T>& pass, const Tensors& v) {
  for (size_t i = 0; i < v.size(); ++i) {
    to_memory_order(pass.matrices[i], v[i].template const_data_ptr<T>(),
                    pass.v.get() + pass.offsets.v[i]);
  }
}

// u, v and sigma of layer i from its t and its partials of s.
template <typename T>
void finish_layer(const Pass<T>& pass, size_t i, double eps, T* u, T* v, T* sigma) {
  const Matrix& m = pass.matrices[i];
  const int64_t blocks = pass.blocks.first[i + 1] - pass.blocks.first[i];
  const T* t = pass.t.get() + pass.offsets.u[i];
  T* s = pass.v.get() + pass.offsets.v[i];  // the old v has served
  if (blocks > 0) {
    add_partials(pass.partial(pass.blocks.first[i], i), blocks, m.columns(), s);
  } else {
    std::fill(s, s + m.columns(), T(0));
  }
  const Normalisation scales =
      normalisation(std::sqrt(dot(t, t, m.rows)), std::sqrt(dot(s, s, m.columns())), eps);
  for (int64_t r = 0; r < m.rows; ++r) u[r] = static_cast<T>(t[r] * scales.u_scale);
  for (int64_t j = 0; j < m.columns(); ++j) s[j] = static_cast<T>(s[j] * scales.v_scale);
  to_logical_order(m, s, v);
  *sigma = static_cast<T>(scales.sigma);
}

// The snapshots of u and v, and sigma, as pointers.
template <typename T>
struct FactorPointers {
  explicit FactorPointers(const Factors& factors)
      : sigma(std::get<0>(factors).template mutable_data_ptr<T>()),
        u(std::get<1>(factors).template mutable_data_ptr<T>()),
        v(std::get<2>(factors).template mutable_data_ptr<T>()) {}
  T* sigma;
  T* u;
  T* v;
};

template <typename T>
void iterate(const Tensors& weights, const Tensors& u, const Tensors& v,
             const std::vector<Matrix>& matrices, int64_t iterations, double eps,
             const Factors& factors) {
  const FactorPointers<T> out(factors);
  const Pass<T> pass(weights, matrices, true);
  load_vectors(pass, v);
  for (int64_t iteration = 0; iteration < iterations; ++iteration) {
    pass.run();
    run_jobs(static_cast<int64_t>(weights.size()), pass.blocks.parallel(), [&](int64_t layer) {
      const size_t i = static_cast<size_t>(layer);
      finish_layer(pass, i, eps, out.u + pass.offsets.u[i], out.v + pass.offsets.v[i],
                   out.sigma + i);
    });
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    const T* new_u = out.u + pass.offsets.u[i];
    const T* new_v = out.v + pass.offsets.v[i];
    std::copy(new_u, new_u + matrices[i].rows, u[i].template mutable_data_ptr<T>());
    std::copy(new_v, new_v + matrices[i].columns(), v[i].template mutable_data_ptr<T>());
  }
}

Factors spectral_iterate_cpu(Tensors weights, Tensors u, Tensors v, std::vector<int64_t> dims,
                             int64_t iterations, double eps) {
  const std::vector<Matrix> matrices = check_weights("spectral_iterate", weights, dims);
  check_vectors("spectral_iterate", weights, u, v, matrices);
  check_iterate(iterations, eps);
  const Factors factors = empty_factors(weights, matrices);
  if (weights[0].scalar_type() == ScalarType::Float) {
    iterate<float>(weights, u, v, matrices, iterations, eps, factors);
  } else {
    iterate<double>(weights, u, v, matrices, iterations, eps, factors);
  }
  return factors;
}

// sigma = ut W v with the vectors as they are.
template <typename T>
void measure(const Tensors& weights, const Tensors& u, const Tensors& v,
             const std::vector<Matrix>& matrices, const Factors& factors) {
  const FactorPointers<T> out(factors);
  const Pass<T> pass(weights, matrices, false);
  load_vectors(pass, v);
  pass.run();
  for (size_t i = 0; i < weights.size(); ++i) {
    const T* old_u = u[i].template const_data_ptr<T>();
    const T* old_v = v[i].template const_data_ptr<T>();
    std::copy(old_u, old_u + matrices[i].rows, out.u + pass.offsets.u[i]);
    std::copy(old_v, old_v + matrices[i].columns(), out.v + pass.offsets.v[i]);
    out.sigma[i] = static_cast<T>(dot(old_u, pass.t.get() + pass.offsets.u[i], matrices[i].rows));
  }
}

Factors spectral_sigma_cpu(Tensors weights, Tensors u, Tensors v, std::vector<int64_t> dims) {
  const std::vector<Matrix> matrices = check_weights("spectral_sigma", weights, dims);
  check_vectors("spectral_sigma", weights, u, v, matrices);
  const Factors factors = empty_factors(weights, matrices);
  if (weights[0].scalar_type() == ScalarType::Float) {
    measure<float>(weights, u, v, matrices, factors);
  } else {
    measure<double>(weights, u, v, matrices, factors);
  }
  return factors;
}

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
  library.impl("spectral_iterate", TORCH_BOX(&pokegan::spectral_iterate_cpu));
  library.impl("spectral_sigma", TORCH_BOX(&pokegan::spectral_sigma_cpu));
  library.impl("spectral_scale", TORCH_BOX(&pokegan::spectral_scale_cpu));
  library.impl("spectral_scale_backward", TORCH_BOX(&pokegan::spectral_scale_backward_cpu));
}
