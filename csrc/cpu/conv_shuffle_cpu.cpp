// A job copies some rows of an image, with zeros around them, so that every place that a pixel is
// made of is a fixed distance away; rows of blocks are consecutive places of that copy.
#include <vector>

#include "conv_patches.h"
#include "conv_scratch.h"

namespace pokegan {

#ifdef POKEGAN_HAS_CONV
namespace {

constexpr int64_t kCopiedBytes = 512 << 10;  // of a second-level cache
constexpr int64_t kPlaceBytes = 2 * kBlockSide;
constexpr int64_t kTileColumns = 16;

// Some rows of places of one image.
class Band {
 public:
  Band(const PixelShuffleConvolution& convolution, int64_t image, int64_t begin, int64_t end)
      : all_(convolution),
        image_(image),
        begin_(begin),
        rows_(end - begin),
        columns_(ceil_div(all_.out_width, all_.stride)),
        width_(columns_ + all_.columns.size() - 1) {}

  int64_t plane_bytes() const {
    const int64_t places = (rows_ + all_.rows.size() - 1) * width_ + all_.columns.size();
    return (places + kBlockSide) * kPlaceBytes;  // the last block may end in none
  }
  int64_t bytes() const { return blocks_of(all_.channels) * plane_bytes(); }

  // Planes of 32 channels.
  POKEGAN_AVX512 void copy(char* planes) const {
    for (int64_t row = 0; row < rows_ + all_.rows.size() - 1; ++row) {
      const int64_t y = begin_ + all_.rows.first + row;
      const bool there = y >= 0 && y < all_.height;
      for (int64_t column = 0; column < width_; ++column) {
        const int64_t x = all_.columns.first + column;
        const bool inside = there && x >= 0 && x < all_.width;
        const uint16_t* values =
            all_.source + ((image_ * all_.height + y) * all_.width + x) * all_.channels;
        if (inside) ask_ahead(values, static_cast<size_t>(all_.channels) * 2);
        char* out = planes + (row * width_ + column) * kPlaceBytes;
        for (int64_t c = 0; c < all_.channels; c += kBlockSide, out += plane_bytes()) {
          const uint32_t mask = inside ? mask_of(all_.channels - c) : 0;
          _mm512_store_si512(out, _mm512_maskz_loadu_epi16(mask, values + c));
        }
      }
    }
  }

  void run(const Product product, const char* planes) const {
    const int64_t blocks = blocks_of(all_.channels);
    std::vector<Step> steps;
    for (int64_t row = 0; row < all_.rows.size(); ++row) {
      for (int64_t column = 0; column < all_.columns.size(); ++column) {
        steps.push_back({(row * width_ + column) * kPlaceBytes,
                         static_cast<int64_t>(steps.size()) * blocks * kBlockBytes});
      }
    }
    const Run run{steps.data(), static_cast<int64_t>(steps.size()), blocks, plane_bytes(),
                  kBlockBytes};
    alignas(64) float sums[kBlockSide * kTileColumns];
    for (int64_t place = 0; place < rows_ * width_; place += kBlockSide) {
      product(run, planes + place * kPlaceBytes, all_.weights, sums, false);
      write(sums, place);
    }
  }

 private:
  POKEGAN_AVX512 void write(const float* sums, int64_t place) const {
    const __m512 bias = all_.bias != nullptr ? _mm512_loadu_ps(all_.bias) : _mm512_setzero_ps();
    const __m256i order = _mm256_set_epi16(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const int64_t run = all_.stride * all_.out_channels;
    const int64_t line = all_.out_width * all_.out_channels;
    const int64_t end = std::min(place + kBlockSide, rows_ * width_);
    int64_t row = place / width_;
    int64_t column = place % width_;
    for (; place < end; ++place, sums += kTileColumns) {
      if (column < columns_) {
        const auto values = (__m256i)_mm512_cvtneps_pbh(_mm512_add_ps(_mm512_load_ps(sums), bias));
        const uint32_t mask = mask_of(std::min(run, line - column * run));
        const int64_t top = (begin_ + row) * all_.stride;
        uint16_t* out = all_.out + (image_ * all_.out_height + top) * line + column * run;
        const int64_t lines = std::min(all_.stride, all_.out_height - top);
        for (int64_t i = 0; i < lines; ++i, out += line) {
          const __m256i from =
              _mm256_add_epi16(order, _mm256_set1_epi16(static_cast<short>(i * run)));
          _mm256_mask_storeu_epi16(out, static_cast<__mmask16>(mask),
                                   _mm256_permutexvar_epi16(from, values));
        }
      }
      if (++column == width_) {
        column = 0;
        ++row;
      }
    }
  }

  const PixelShuffleConvolution& all_;
  int64_t image_;
  int64_t begin_;
  int64_t rows_;
  int64_t columns_;
  int64_t width_;
};

}  // namespace

void run_pixel_shuffle(const PixelShuffleConvolution& convolution, Units units) {
  const Kernels& kernels = kernels_of(units);
  const int64_t height = ceil_div(convolution.out_height, convolution.stride);
  int64_t rows = height;
  while (rows > 1 && Band(convolution, 0, 0, rows).bytes() > kCopiedBytes) {
    rows = ceil_div(rows, 2);
  }
  const int64_t bands = ceil_div(height, rows);
  share_products(kernels, convolution.images * bands, [&](int64_t job) {
    thread_local Scratch scratch;
    const int64_t begin = job % bands * rows;
    const Band band(convolution, job / bands, begin, std::min(begin + rows, height));
    char* planes = scratch.bytes(band.bytes());
    band.copy(planes);
    band.run(kernels.product[0][1][0], planes);
  });
}

#else

void run_pixel_shuffle(const PixelShuffleConvolution&, Units) {}

#endif

}  // namespace pokegan
