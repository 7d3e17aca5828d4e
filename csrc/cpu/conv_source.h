// Feature maps [N, H, W, C] as the blocks of a matrix product: 32 consecutive images are the rows
// of a block, so every pixel gives whole blocks and no border needs a special case.
#pragma once

#include <algorithm>
#include <type_traits>

#include "conv_blocks.h"

namespace pokegan {

struct Maps {
  const void* data;  // bfloat16 of one part, else float32
  int parts;
  int64_t images;
  int64_t height;
  int64_t width;
  int64_t channels;

  int64_t blocks() const { return blocks_of(channels); }
  int64_t block_bytes() const { return parts * kBlockBytes; }
  int64_t pixel_bytes() const { return blocks() * block_bytes(); }
};

#ifdef POKEGAN_HAS_CONV

template <Form form, int kParts>
POKEGAN_AVX512_INLINE void pack_blocks(BlockSource<ValueOf<kParts>> source, char* out) {
  for (; source.columns > 0; source.columns -= kBlockSide, source.values += kBlockSide) {
    pack_block<form, kParts>(source, out);
    out += kParts * kBlockBytes;
  }
}

template <Form form, int kParts>
POKEGAN_AVX512 void pack_pixels_of(const Maps& maps, int64_t image, int64_t y, int64_t begin,
                                   int64_t end, char* out) {
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
