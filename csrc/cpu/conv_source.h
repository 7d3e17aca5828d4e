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

// The patch of pixel (y, x) of one image.
POKEGAN_AVX512_INLINE void gather_patch(const Maps& maps, int64_t image, int64_t y, int64_t x,
                                        uint16_t* out) {
  const ConvShape& shape = *maps.patches;
  const int64_t left = x * shape.stride - shape.padding;
  const int64_t run = shape.kernel_width * maps.channels;
  const int64_t begin = std::max<int64_t>(0, -left) * maps.channels;
  const int64_t end = std::min(shape.kernel_width, maps.width - left) * maps.channels;
  const int64_t top = y * shape.stride - shape.padding;
  const uint16_t* row = maps.data + ((image * maps.height + top) * maps.width + left) * maps.channels;
  for (int64_t tap = 0; tap < shape.kernel_height; ++tap) {
    const bool inside = top + tap >= 0 && top + tap < maps.height;
    for (int64_t first = 0; first < run; first += kBlockSide) {
      const uint32_t mask = mask_of(std::max<int64_t>(0, end - first)) &
                            ~mask_of(std::max<int64_t>(0, begin - first));
      const __m512i values =
          inside ? load_values(row + first, mask) : _mm512_setzero_si512();
      _mm512_mask_storeu_epi16(out + first, mask_of(run - first), values);
    }
    row += maps.width * maps.channels;
    out += run;
  }
}

template <Form form>
POKEGAN_AVX512_INLINE void pack_blocks(BlockSource<uint16_t> source, char* out) {
  for (; source.columns > 0; source.columns -= kBlockSide, source.values += kBlockSide) {
    pack_block<form>(source, out);
    out += kBlockBytes;
  }
}

// The same of a few pixels at a time: what they share is read while it is near.
template <Form form>
POKEGAN_AVX512 void pack_patches(const Maps& maps, int64_t image, int64_t y, int64_t begin,
                                 int64_t end, char* out) {
  alignas(64) uint16_t patches[kBlockSide * kPatchValues];
  const int64_t rows = std::min(kBlockSide, maps.images - image);
  const int64_t values = maps.values();
  const int64_t padded = maps.blocks() * kBlockSide;
  const int64_t most = kPatchValues / padded;
  while (begin < end) {
    const int64_t count = std::min(most, end - begin);
    const int64_t stride = count * padded;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < count; ++i) {
        gather_patch(maps, image + r, y, begin + i, patches + r * stride + i * padded);
      }
    }
    for (int64_t i = 0; i < count; ++i, out += maps.pixel_bytes()) {
      pack_blocks<form>({patches + i * padded, stride, rows, values}, out);
    }
    begin += count;
  }
}

// The blocks of the pixels [begin, end) of row y of the 32 images from `image` on.
template <Form form>
POKEGAN_AVX512 void pack_pixels(const Maps& maps, int64_t image, int64_t y, int64_t begin,
                                int64_t end, char* out) {
  if (maps.patches != nullptr) return pack_patches<form>(maps, image, y, begin, end, out);
  const int64_t rows = std::min(kBlockSide, maps.images - image);
  const int64_t stride = maps.height * maps.width * maps.channels;
  const uint16_t* values =
      maps.data + ((image * maps.height + y) * maps.width + begin) * maps.channels;
  for (int64_t x = begin; x < end; ++x, values += maps.channels, out += maps.pixel_bytes()) {
    pack_blocks<form>({values, stride, rows, maps.channels}, out);
  }
}

#endif

}  // namespace pokegan
