// Dropout of a run of one sample's values that lie in memory as they are counted. No torch types.
#pragma once

#include <algorithm>
#include <type_traits>

#include "../dropout.h"
#include "philox_rows.h"
#include "vector.h"

namespace pokegan {

template <typename Value>
using Real = std::conditional_t<std::is_same_v<Value, double>, double, float>;

POKEGAN_INLINE float load(float value) { return value; }
POKEGAN_INLINE double load(double value) { return value; }
POKEGAN_INLINE float load(Bfloat16 value) { return to_float(value); }
POKEGAN_INLINE void store(float* at, float value) { *at = value; }
POKEGAN_INLINE void store(double* at, double value) { *at = value; }
// A NaN stays one: the product of a bfloat16 NaN has nothing in its low bits to be carried.
POKEGAN_INLINE void store(Bfloat16* at, float value) { *at = to_bfloat16_finite(value); }

// `scale` is of the dtype of the values, like the mask that is multiplied by elsewhere.
template <typename Value>
struct Rule {
  uint32_t limit;
  Real<Value> scale;
};

// The words [begin, end) of a sample; `begin` is a multiple of 4, and of 8 where a mask is written.
struct DropoutRun {
  RandomKey key;
  uint32_t sample;
  int64_t begin;
  int64_t end;
};

// Calls `take` with pieces of a run: (words, first of them, count).
template <typename Take>
void draw_run(const DropoutRun& run, const Take& take) {
  uint32_t word[kRowWords];
  for (int64_t first = run.begin; first < run.end; first += kRowWords) {
    draw_row(run.key, run.sample, static_cast<uint32_t>(first / 4), word);
    take(word, first, std::min<int64_t>(kRowWords, run.end - first));
  }
}

// The mask of a sample begins with a byte; bit i % 8 of byte i / 8 is whether value i stays.
inline int64_t kept_bytes(int64_t count) { return (count + 7) / 8; }

void write_bits(const uint32_t* word, uint8_t* kept, int64_t count, uint32_t limit);

// All point to where the run begins. `kept` is written, or nothing where it is null.
void drop_in_order(const DropoutRun& run, const float* in, float* out, uint8_t* kept,
                   Rule<float> rule);
void drop_in_order(const DropoutRun& run, const double* in, double* out, uint8_t* kept,
                   Rule<double> rule);
void drop_in_order(const DropoutRun& run, const Bfloat16* in, Bfloat16* out, uint8_t* kept,
                   Rule<Bfloat16> rule);

// The same products by a mask that was written; `in` begins where a byte of `kept` does.
void drop_again(const float* in, const uint8_t* kept, float* out, int64_t count, float scale);
void drop_again(const double* in, const uint8_t* kept, double* out, int64_t count, double scale);
void drop_again(const Bfloat16* in, const uint8_t* kept, Bfloat16* out, int64_t count, float scale);

}  // namespace pokegan
