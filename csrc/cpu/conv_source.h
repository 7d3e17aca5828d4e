// Feature maps [N, H, W, C] as the blocks of a matrix product: 32 consecutive images are the rows
// of a block, so every pixel gives whole blocks and no border needs a special case.
#pragma once

#include <algorithm>

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

// A row of a patch, in parts of 32 values: which of them are inside of the maps.
struct PatchRow {
  uint32_t inside[kPatchValues / kBlockSide];
};

inline PatchRow patch_row(const Maps& maps, int64_t left) {
  const int64_t run = maps.patches->kernel_width * maps.channels;
  const int64_t begin = std::max<int64_t>(0, -left) * maps.channels;
  const int64_t end = std::min(maps.patches->kernel_width, maps.width - left) * maps.channels;
  PatchRow row{};
  for (int64_t part = 0; part * kBlockSide < run; ++part) {
    const int64_t first = part * kBlockSide;
    row.inside[part] =
        mask_of(std::max<int64_t>(0, end - first)) & ~mask_of(std::max<int64_t>(0, begin - first));
  }
  return row;
}

// The patches of `count` pixels of a row of one image, `padded` values each, from `begin` on.
POKEGAN_AVX512_INLINE void gather_patches(const Maps& maps, int64_t image, int64_t y, int64_t begin,
                                          int64_t count, int64_t padded, const PatchRow* rows,
                                          uint16_t* out) {
  const ConvShape& shape = *maps.patches;
  const int64_t run = shape.kernel_width * maps.channels;
  const int64_t top = y * shape.stride - shape.padding;
  const int64_t left = (begin * shape.stride - shape.padding) * maps.channels;
  for (int64_t tap = 0; tap < shape.kernel_height; ++tap, out += run) {
    const bool inside = top + tap >= 0 && top + tap < maps.height;
    const uint16_t* line =
        maps.data + (image * maps.height + top + tap) * maps.width * maps.channels + left;
    for (int64_t first = 0; first < run; first += kBlockSide) {
      const __mmask32 mask = mask_of(run - first);
      for (int64_t i = 0; i < count; ++i) {
        const __mmask32 there = inside ? rows[i].inside[first / kBlockSide] : 0;
        const uint16_t* values = line + i * shape.stride * maps.channels + first;
        _mm512_mask_storeu_epi16(out + i * padded + first, mask, load_values(values, there));
      }
    }
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
    PatchRow inside[kPatchValues / kBlockSide];
    for (int64_t i = 0; i < count; ++i) {
      inside[i] = patch_row(maps, (begin + i) * maps.patches->stride - maps.patches->padding);
    }
    for (int64_t r = 0; r < rows; ++r) {
      gather_patches(maps, image + r, y, begin, count, padded, inside, patches + r * stride);
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
