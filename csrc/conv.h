// The geometry of a convolution and of its gradients, and which elements of an axis meet.
//
// All three operators are told in the convolution's terms: x [N, C, H, W] is the large side,
// y [N, O, OH, OW] the small one, w [O, C, KH, KW]. A convolution makes y of x and w; a transposed
// convolution makes x of y and w; the gradient of either by its weight makes w of x and y.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace pokegan {

constexpr int64_t kMaxKernel = 16;

inline int64_t ceil_div(int64_t count, int64_t size) { return (count + size - 1) / size; }

struct ConvShape {
  int64_t images;
  int64_t channels;
  int64_t height;
  int64_t width;
  int64_t outputs;
  int64_t out_height;
  int64_t out_width;
  int64_t kernel_height;
  int64_t kernel_width;
  int64_t stride;
  int64_t padding;

  int64_t taps() const { return kernel_height * kernel_width; }
};

// What a convolution makes of `size` elements of an axis; below 1 where nothing is left.
inline int64_t conv_size(int64_t size, int64_t kernel, int64_t stride, int64_t padding) {
  const int64_t room = size + 2 * padding - kernel;
  return room < 0 ? 0 : room / stride + 1;
}

// What a transposed convolution makes of them.
inline int64_t transposed_size(int64_t size, int64_t kernel, int64_t stride, int64_t padding,
                               int64_t output_padding) {
  return (size - 1) * stride - 2 * padding + kernel + output_padding;
}

// For each element of the axis that is written: which elements of the other one it is made of, and
// by which tap of the kernel.
struct Axis {
  struct Tap {
    int64_t source;
    int64_t tap;
  };
  std::vector<int64_t> first;  // by element, and one more
  std::vector<Tap> taps;

  int64_t size() const { return static_cast<int64_t>(first.size()) - 1; }
  const Tap* begin(int64_t element) const {
    return taps.data() + first[static_cast<size_t>(element)];
  }
  const Tap* end(int64_t element) const {
    return taps.data() + first[static_cast<size_t>(element) + 1];
  }
};

// A convolution's axis of `size` elements of y, made of `sources` elements of x.
inline Axis conv_axis(int64_t size, int64_t sources, int64_t kernel, int64_t stride,
                      int64_t padding) {
  Axis axis;
  for (int64_t element = 0; element < size; ++element) {
    axis.first.push_back(static_cast<int64_t>(axis.taps.size()));
    for (int64_t tap = 0; tap < kernel; ++tap) {
      const int64_t source = element * stride - padding + tap;
      if (source >= 0 && source < sources) axis.taps.push_back({source, tap});
    }
  }
  axis.first.push_back(static_cast<int64_t>(axis.taps.size()));
  return axis;
}

// A transposed convolution's axis of `size` elements of x, made of `sources` elements of y.
inline Axis transposed_axis(int64_t size, int64_t sources, int64_t kernel, int64_t stride,
                            int64_t padding) {
  Axis axis;
  for (int64_t element = 0; element < size; ++element) {
    axis.first.push_back(static_cast<int64_t>(axis.taps.size()));
    for (int64_t tap = 0; tap < kernel; ++tap) {
      const int64_t place = element + padding - tap;
      if (place >= 0 && place % stride == 0 && place / stride < sources) {
        axis.taps.push_back({place / stride, tap});
      }
    }
  }
  axis.first.push_back(static_cast<int64_t>(axis.taps.size()));
  return axis;
}

}  // namespace pokegan
