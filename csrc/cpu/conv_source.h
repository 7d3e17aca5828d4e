// Feature maps [N, H, W, C] as the blocks of a matrix product: 32 consecutive images are the rows
// of a block, so every pixel gives whole blocks and no border needs a special case.
#pragma once

#include <algorithm>
#include <type_traits>

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
  const void* data;  // bfloat16 of one part, else float32
  int parts;
  int64_t images;
  int64_t height;
  int64_t width;
  int64_t channels;
  const ConvShape* patches = nullptr;  // what is seen are the patches that this convolution reads

  int64_t values() const { return channels * (patches == nullptr ? 1 : patches->taps()); }
  int64_t blocks() const { return blocks_of(values()); }
  int64_t block_bytes() const { return parts * kBlockBytes; }
  int64_t pixel_bytes() const { return blocks() * block_bytes(); }
};

#ifdef POKEGAN_HAS_CONV

template <int kParts>
using ValueOf = std::conditional_t<kParts == 1, uint16_t, float>;

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

// Copies 32 values: those of `inside`, else zeros, where `mask` says.
POKEGAN_AVX512_INLINE void copy_values(const uint16_t* values, uint32_t inside, uint32_t mask,
                                       uint16_t* out) {
  _mm512_mask_storeu_epi16(out, mask, _mm512_maskz_loadu_epi16(inside, values));
}

POKEGAN_AVX512_INLINE void copy_values(const float* values, uint32_t inside, uint32_t mask,
                                       float* out) {
  for (int half = 0; half < 32; half += 16) {
    _mm512_mask_storeu_ps(
        out + half, static_cast<__mmask16>(mask >> half),
        _mm512_maskz_loadu_ps(static_cast<__mmask16>(inside >> half), values + half));
  }
}

// The patches of `count` pixels of a row of one image, `padded` values each, from `begin` on.
template <typename Value>
POKEGAN_AVX512_INLINE void gather_patches(const Maps& maps, int64_t image, int64_t y, int64_t begin,
                                          int64_t count, int64_t padded, const PatchRow* rows,
                                          Value* out) {
  const ConvShape& shape = *maps.patches;
  const int64_t run = shape.kernel_width * maps.channels;
  const int64_t top = y * shape.stride - shape.padding;
  const int64_t left = (begin * shape.stride - shape.padding) * maps.channels;
  for (int64_t tap = 0; tap < shape.kernel_height; ++tap, out += run) {
    const bool inside = top + tap >= 0 && top + tap < maps.height;
    const Value* line = static_cast<const Value*>(maps.data) +
                        (image * maps.height + top + tap) * maps.width * maps.channels + left;
    for (int64_t first = 0; first < run; first += kBlockSide) {
      const uint32_t mask = mask_of(run - first);
      for (int64_t i = 0; i < count; ++i) {
        const uint32_t there = inside ? rows[i].inside[first / kBlockSide] : 0;
        copy_values(line + i * shape.stride * maps.channels + first, there, mask,
                    out + i * padded + first);
      }
    }
  }
}

template <Form form, int kParts>
POKEGAN_AVX512_INLINE void pack_blocks(BlockSource<ValueOf<kParts>> source, char* out) {
  for (; source.columns > 0; source.columns -= kBlockSide, source.values += kBlockSide) {
    pack_block<form, kParts>(source, out);
    out += kParts * kBlockBytes;
  }
}

// The same of a few pixels at a time: what they share is read while it is near.
template <Form form, int kParts>
POKEGAN_AVX512 void pack_patches(const Maps& maps, int64_t image, int64_t y, int64_t begin,
                                 int64_t end, char* out) {
  alignas(64) ValueOf<kParts> patches[kBlockSide * kPatchValues];
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
      pack_blocks<form, kParts>({patches + i * padded, stride, rows, values}, out);
    }
    begin += count;
  }
}

template <Form form, int kParts>
POKEGAN_AVX512 void pack_pixels_of(const Maps& maps, int64_t image, int64_t y, int64_t begin,
                                   int64_t end, char* out) {
  if (maps.patches != nullptr) return pack_patches<form, kParts>(maps, image, y, begin, end, out);
  const int64_t rows = std::min(kBlockSide, maps.images - image);
  const int64_t stride = maps.height * maps.width * maps.channels;
  const auto* values = static_cast<const ValueOf<kParts>*>(maps.data) +
                       ((image * maps.height + y) * maps.width + begin) * maps.channels;
  for (int64_t x = begin; x < end; ++x, values += maps.channels, out += maps.pixel_bytes()) {
    pack_blocks<form, kParts>({values, stride, rows, maps.channels}, out);
  }
}

// The blocks of the pixels [begin, end) of row y of the 32 images from `image` on.
template <Form form>
void pack_pixels(const Maps& maps, int64_t image, int64_t y, int64_t begin, int64_t end,
                 char* out) {
  const auto pack = maps.parts == 1   ? pack_pixels_of<form, 1>
                    : maps.parts == 2 ? pack_pixels_of<form, 2>
                                      : pack_pixels_of<form, 3>;
  pack(maps, image, y, begin, end, out);
}

#endif

}  // namespace pokegan
