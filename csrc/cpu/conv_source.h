// Feature maps [N, H, W, C] as the blocks of a matrix product: 32 consecutive images are the rows
// of a block, so every pixel gives whole blocks and no border needs a special case.
#pragma once

#include <algorithm>

#include "../conv.h"
#include "conv_blocks.h"

namespace pokegan {

// Maps with few channels would leave most of a block empty. Of these a block holds patches: all
// values under the kernel, and the product is that of a 1 x 1 convolution.
constexpr int64_t kPatchValues = 512;

inline bool uses_patches(const ConvShape& shape) {
  return shape.channels < kBlockSide && shape.taps() > 1 &&
         shape.taps() * shape.channels <= kPatchValues;
}

struct Maps {
  const uint16_t* data;
  int64_t images;
  int64_t height;
  int64_t width;
  int64_t channels;
  const ConvShape* patches = nullptr;  // what is seen are the patches that this convolution reads

  int64_t values() const { return channels * (patches == nullptr ? 1 : patches->taps()); }
  int64_t blocks() const { return blocks_of(values()); }
  int64_t pixel_bytes() const { return blocks() * kBlockBytes; }
};

#ifdef POKEGAN_HAS_CONV

// The patch of pixel (y, x) of each image from `image` on, `stride` values apart.
POKEGAN_AVX512 inline void gather_patches(const Maps& maps, int64_t image, int64_t rows, int64_t y,
                                          int64_t x, int64_t stride, uint16_t* out) {
  const ConvShape& shape = *maps.patches;
  const int64_t left = x * shape.stride - shape.padding;
  const int64_t run = shape.kernel_width * maps.channels;
  const int64_t begin = std::max<int64_t>(0, -left) * maps.channels;
  const int64_t end = std::min(shape.kernel_width, maps.width - left) * maps.channels;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t tap = 0; tap < shape.kernel_height; ++tap) {
      const int64_t source = y * shape.stride - shape.padding + tap;
      const bool inside = source >= 0 && source < maps.height;
      const int64_t row = ((image + r) * maps.height + source) * maps.width;
      for (int64_t first = 0; first < run; first += kBlockSide) {
        __m512i values = _mm512_setzero_si512();
        if (inside) {
          const uint32_t mask = mask_of(std::max<int64_t>(0, end - first)) &
                                ~mask_of(std::max<int64_t>(0, begin - first));
          values = load_values(maps.data + (row + left) * maps.channels + first, mask);
        }
        _mm512_mask_storeu_epi16(out + r * stride + tap * run + first, mask_of(run - first),
                                 values);
      }
    }
  }
}

// The blocks of pixel (y, x) of the 32 images from `image` on.
template <Form form>
POKEGAN_AVX512 void pack_pixel(const Maps& maps, int64_t image, int64_t y, int64_t x, char* out) {
  const int64_t rows = std::min(kBlockSide, maps.images - image);
  const int64_t values = maps.values();
  alignas(64) uint16_t patches[kBlockSide * kPatchValues];
  BlockSource<uint16_t> source{};
  if (maps.patches != nullptr) {
    const int64_t stride = maps.blocks() * kBlockSide;
    gather_patches(maps, image, rows, y, x, stride, patches);
    source = {patches, stride, rows, values};
  } else {
    const int64_t pixels = maps.height * maps.width;
    source = {maps.data + ((image * maps.height + y) * maps.width + x) * maps.channels,
              pixels * maps.channels, rows, values};
  }
  for (; source.columns > 0; source.columns -= kBlockSide, source.values += kBlockSide) {
    pack_block<form>(source, out);
    out += kBlockBytes;
  }
}

#endif

}  // namespace pokegan
