// How a weight's memory is read as the matrix of its spectral norm. No torch types here.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace pokegan {

// A dense weight as [outer, rows, inner] in memory. A row of the matrix is everything at one index
// of the middle axis; its columns, in memory order, are (outer, inner).
//
//   convolution, linear            outer 1,              inner the rest
//   transposed convolution (dim 1) outer input channels, inner the kernel
//   the same, channels_last        outer the rest,       inner 1
//
// The vector v keeps PyTorch's order of columns. Memory has the same order (channels is 0), or the
// first column axis innermost (channels is its length), as channels_last has it.
struct Matrix {
  int64_t outer = 1;
  int64_t rows = 0;
  int64_t inner = 0;
  int64_t channels = 0;

  POKEGAN_HOST_DEVICE int64_t columns() const { return outer * inner; }
  POKEGAN_HOST_DEVICE int64_t numel() const { return outer * rows * inner; }
};

constexpr int kMaxDims = 8;

namespace detail {

// Axes longer than 1, from the largest stride to the smallest; their count, or -1 if not dense.
inline int memory_order(const int64_t* sizes, const int64_t* strides, int dims, int* order) {
  int count = 0;
  for (int axis = 0; axis < dims; ++axis) {
    if (sizes[axis] == 1) continue;
    int place = count++;
    for (; place > 0 && strides[order[place - 1]] < strides[axis]; --place) {
      order[place] = order[place - 1];
    }
    order[place] = axis;
  }
  int64_t expected = 1;
  for (int place = count - 1; place >= 0; --place) {
    if (strides[order[place]] != expected) return -1;
    expected *= sizes[order[place]];
  }
  return count;
}

inline bool increasing(const int* axes, int count) {
  for (int i = 1; i < count; ++i) {
    if (axes[i - 1] > axes[i]) return false;
  }
  return true;
}

}  // namespace detail

// Read a weight of `dims` axes, of which `dim` counts the rows. False: its memory has gaps, or an
// order that Matrix cannot say.
inline bool read_matrix(const int64_t* sizes, const int64_t* strides, int dims, int dim,
                        Matrix* matrix) {
  *matrix = Matrix{1, sizes[dim], 1, 0};
  for (int axis = 0; axis < dims; ++axis) matrix->inner *= axis == dim ? 1 : sizes[axis];
  if (matrix->numel() == 0) return true;
  int order[kMaxDims];
  const int count = detail::memory_order(sizes, strides, dims, order);
  if (count < 0) return false;
  int columns[kMaxDims];
  int column_axes = 0;
  for (int place = 0; place < count; ++place) {
    if (order[place] != dim) {
      columns[column_axes++] = order[place];
    } else {  // every axis before this one is outer
      for (int i = 0; i < column_axes; ++i) matrix->outer *= sizes[columns[i]];
      matrix->inner /= matrix->outer;
    }
  }
  if (detail::increasing(columns, column_axes)) return true;
  const int innermost = columns[column_axes - 1];
  if (!detail::increasing(columns, column_axes - 1) || innermost > columns[0]) return false;
  matrix->channels = sizes[innermost];
  return true;
}

// What an iteration makes of t = W v and s = Wt t, with PyTorch's clamps at eps:
// u = t u_scale, v = s v_scale, sigma = ut W v. Its own Wt u is s u_scale, of length p.
struct Normalisation {
  double u_scale;
  double v_scale;
  double sigma;
};

// t_length and s_length are |t| and |s|.
POKEGAN_HOST_DEVICE Normalisation normalisation(double t_length, double s_length, double eps) {
  const double u_scale = 1.0 / (t_length > eps ? t_length : eps);
  const double p = s_length * u_scale;
  const double clamped = p > eps ? p : eps;
  return {u_scale, u_scale / clamped, p * p / clamped};
}

}  // namespace pokegan
