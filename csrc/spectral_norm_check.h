// Argument checks and results of the spectral norm's operators, the same on every back end.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <tuple>
#include <vector>

#include "spectral_norm.h"

namespace pokegan {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Tensors = std::vector<Tensor>;
// sigma [L], and copies of every u and every v one after another, which nothing will change.
using Factors = std::tuple<Tensor, Tensor, Tensor>;

inline bool same_device(const Tensor& one, const Tensor& two) {
  return one.is_cpu() == two.is_cpu() && one.get_device_index() == two.get_device_index();
}

// The matrices of all weights, after the checks that every operator shares.
inline std::vector<Matrix> check_weights(const char* name, const Tensors& weights,
                                         const std::vector<int64_t>& dims) {
  STD_TORCH_CHECK(!weights.empty(), name, ": weights must not be empty");
  STD_TORCH_CHECK(dims.size() == weights.size(), name, ": dims must hold one number a weight");
  const ScalarType type = weights[0].scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double, name,
                  ": weights must be float32 or float64");
  std::vector<Matrix> matrices(weights.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    const Tensor& weight = weights[i];
    STD_TORCH_CHECK(weight.scalar_type() == type, name, ": weights[", i,
                    "] must have the dtype of weights[0]");
    STD_TORCH_CHECK(same_device(weight, weights[0]), name, ": weights[", i,
                    "] must be on the device of weights[0]");
    STD_TORCH_CHECK(weight.dim() >= 2 && weight.dim() <= kMaxDims, name, ": weights[", i,
                    "] must have 2 to ", kMaxDims, " dimensions");
    STD_TORCH_CHECK(dims[i] >= 0 && dims[i] < weight.dim(), name, ": dims[", i,
                    "] must be a dimension of weights[", i, "], got ", dims[i]);
    STD_TORCH_CHECK(
        read_matrix(weight.sizes().data(), weight.strides().data(), static_cast<int>(weight.dim()),
                    static_cast<int>(dims[i]), &matrices[i]),
        name, ": weights[", i, "] must be contiguous or channels_last");
  }
  return matrices;
}

inline void check_vector(const char* name, const char* argument, size_t i, const Tensor& vector,
                         int64_t length, const Tensor& weight) {
  STD_TORCH_CHECK(vector.dim() == 1 && vector.size(0) == length && vector.is_contiguous(), name,
                  ": ", argument, "[", i, "] must be contiguous of the shape [", length, "]");
  STD_TORCH_CHECK(vector.scalar_type() == weight.scalar_type(), name, ": ", argument, "[", i,
                  "] must have the dtype of the weights");
  STD_TORCH_CHECK(same_device(vector, weight), name, ": ", argument, "[", i,
                  "] must be on the device of the weights");
}

inline void check_vectors(const char* name, const Tensors& weights, const Tensors& u,
                          const Tensors& v, const std::vector<Matrix>& matrices) {
  STD_TORCH_CHECK(u.size() == weights.size(), name, ": u must hold one vector a weight");
  STD_TORCH_CHECK(v.size() == weights.size(), name, ": v must hold one vector a weight");
  for (size_t i = 0; i < weights.size(); ++i) {
    check_vector(name, "u", i, u[i], matrices[i].rows, weights[0]);
    check_vector(name, "v", i, v[i], matrices[i].columns(), weights[0]);
  }
}

inline void check_iterate(int64_t iterations, double eps) {
  STD_TORCH_CHECK(iterations >= 1, "spectral_iterate: iterations must be at least 1, got ",
                  iterations);
  STD_TORCH_CHECK(eps > 0, "spectral_iterate: eps must be positive, got ", eps);
}

struct Lengths {
  int64_t u = 0;
  int64_t v = 0;
};

inline Lengths total_lengths(const std::vector<Matrix>& matrices) {
  Lengths total;
  for (const Matrix& matrix : matrices) {
    total.u += matrix.rows;
    total.v += matrix.columns();
  }
  return total;
}

inline void check_factors(const char* name, const Tensors& weights, const Tensor& sigma,
                          const Tensor& u, const Tensor& v, const std::vector<Matrix>& matrices) {
  const Lengths total = total_lengths(matrices);
  const auto check = [&](const char* argument, const Tensor& factor, int64_t length) {
    STD_TORCH_CHECK(factor.dim() == 1 && factor.size(0) == length && factor.is_contiguous(), name,
                    ": ", argument, " must be contiguous of the shape [", length, "]");
    STD_TORCH_CHECK(factor.scalar_type() == weights[0].scalar_type(), name, ": ", argument,
                    " must have the dtype of the weights");
    STD_TORCH_CHECK(same_device(factor, weights[0]), name, ": ", argument,
                    " must be on the device of the weights");
  };
  check("sigma", sigma, static_cast<int64_t>(weights.size()));
  check("u", u, total.u);
  check("v", v, total.v);
}

inline void check_scale_dtype(ScalarType dtype, const Tensors& weights) {
  STD_TORCH_CHECK(
      dtype == weights[0].scalar_type() ||
          (dtype == ScalarType::BFloat16 && weights[0].scalar_type() == ScalarType::Float),
      "spectral_scale: dtype must be that of the weights, or bfloat16 for float32");
}

// Uninitialised, in the shape and the memory order of `weight`.
inline Tensor empty_as(const Tensor& weight, ScalarType dtype) {
  int32_t device_type = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(weight.get(), &device_type));
  int32_t number = aoti_torch_dtype_float32();
  if (dtype == ScalarType::Double) number = aoti_torch_dtype_float64();
  if (dtype == ScalarType::BFloat16) number = aoti_torch_dtype_bfloat16();
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(weight.dim(), weight.sizes().data(),
                                                  weight.strides().data(), number, device_type,
                                                  weight.get_device_index(), &handle));
  return Tensor(handle);
}

inline bool same_memory_order(const Tensor& one, const Tensor& two) {
  for (int64_t axis = 0; axis < one.dim(); ++axis) {
    if (one.size(axis) > 1 && one.stride(axis) != two.stride(axis)) return false;
  }
  return true;
}

// The gradients, checked, each in the memory order of its weight.
inline Tensors check_gradients(const Tensors& gradients, const Tensors& weights) {
  const char* name = "spectral_scale_backward";
  STD_TORCH_CHECK(gradients.size() == weights.size(), name,
                  ": gradients must hold one tensor a weight");
  const ScalarType type = gradients[0].scalar_type();
  STD_TORCH_CHECK(
      type == weights[0].scalar_type() ||
          (type == ScalarType::BFloat16 && weights[0].scalar_type() == ScalarType::Float),
      name, ": gradients must have the dtype of the weights, or bfloat16 for float32");
  Tensors ordered;
  ordered.reserve(gradients.size());
  for (size_t i = 0; i < gradients.size(); ++i) {
    const Tensor& gradient = gradients[i];
    STD_TORCH_CHECK(gradient.scalar_type() == type, name, ": gradients[", i,
                    "] must have the dtype of gradients[0]");
    STD_TORCH_CHECK(same_device(gradient, weights[i]), name, ": gradients[", i,
                    "] must be on the device of its weight");
    bool same_shape = gradient.dim() == weights[i].dim();
    for (int64_t axis = 0; same_shape && axis < gradient.dim(); ++axis) {
      same_shape = gradient.size(axis) == weights[i].size(axis);
    }
    STD_TORCH_CHECK(same_shape, name, ": gradients[", i, "] must have the shape of its weight");
    if (same_memory_order(gradient, weights[i])) {
      ordered.push_back(gradient);
    } else {
      Tensor copy = empty_as(weights[i], type);
      torch::stable::copy_(copy, gradient);
      ordered.push_back(copy);
    }
  }
  return ordered;
}

inline Factors empty_factors(const Tensors& weights, const std::vector<Matrix>& matrices) {
  const Lengths total = total_lengths(matrices);
  return {torch::stable::new_empty(weights[0], {static_cast<int64_t>(weights.size())}),
          torch::stable::new_empty(weights[0], {total.u}),
          torch::stable::new_empty(weights[0], {total.v})};
}

inline Tensors empty_like_all(const Tensors& weights, ScalarType dtype) {
  Tensors out;
  out.reserve(weights.size());
  for (const Tensor& weight : weights) out.push_back(empty_as(weight, dtype));
  return out;
}

}  // namespace pokegan
