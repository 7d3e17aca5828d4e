// The power iteration of all layers of a network on the CPU. One pass over W an iteration.
#include <cmath>

#include "../spectral_norm_check.h"
#include "spectral_blocks.h"
#include "vector.h"

namespace pokegan {
namespace {

constexpr int kRows = 4;  // rows that share one reading of v and of s

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

// Columns from memory order to PyTorch's.
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

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CPU, library) {
  library.impl("spectral_iterate", TORCH_BOX(&pokegan::spectral_iterate_cpu));
  library.impl("spectral_sigma", TORCH_BOX(&pokegan::spectral_sigma_cpu));
}
