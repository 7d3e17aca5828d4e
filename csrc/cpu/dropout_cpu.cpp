// Dropout on the CPU: threads over pieces of samples, whose words live in the first cache.
#include <algorithm>
#include <vector>

#include "../dropout_check.h"
#include "philox_rows.h"
#include "vector.h"

namespace pokegan {
namespace {

constexpr int64_t kPiece = 8192;   // words
constexpr int64_t kGrain = 16384;  // values

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

// A product, and not a choice: what is not finite and the sign of zero are those of the product.
template <typename Value>
POKEGAN_INLINE void scale_in_order(const uint32_t* __restrict word, const Value* __restrict in,
                                   Value* __restrict out, int64_t count, Rule<Value> rule) {
  for (int64_t i = 0; i < count; ++i) {
    store(out + i, load(in[i]) * dropout_factor(word[i], rule.limit, rule.scale));
  }
}

// `pixels` of every plane; the words are [pixels, channels].
template <typename Value>
POKEGAN_INLINE void scale_planes(const uint32_t* __restrict word, const Value* __restrict in,
                                 Value* __restrict out, int64_t channels, int64_t plane,
                                 int64_t pixels, Rule<Value> rule) {
  for (int64_t channel = 0; channel < channels; ++channel) {
    const int64_t base = channel * plane;
    for (int64_t i = 0; i < pixels; ++i) {
      const uint32_t of_value = word[i * channels + channel];
      store(out + base + i, load(in[base + i]) * dropout_factor(of_value, rule.limit, rule.scale));
    }
  }
}

template <typename Value>
POKEGAN_INLINE void scale_by_one(const Value* __restrict in, Value* __restrict out, int64_t count,
                                 Real<Value> factor) {
  for (int64_t i = 0; i < count; ++i) store(out + i, load(in[i]) * factor);
}

// Clones cannot be templates.
#define POKEGAN_DROPOUT_CLONES(Value)                                                             \
  POKEGAN_CLONES void in_order(const uint32_t* word, const Value* in, Value* out, int64_t count,  \
                               Rule<Value> rule) {                                                \
    scale_in_order(word, in, out, count, rule);                                                   \
  }                                                                                               \
  POKEGAN_CLONES void planes(const uint32_t* word, const Value* in, Value* out, int64_t channels, \
                             int64_t plane, int64_t pixels, Rule<Value> rule) {                   \
    scale_planes(word, in, out, channels, plane, pixels, rule);                                   \
  }                                                                                               \
  POKEGAN_CLONES void by_one(const Value* in, Value* out, int64_t count, Real<Value> factor) {    \
    scale_by_one(in, out, count, factor);                                                         \
  }
POKEGAN_DROPOUT_CLONES(float)
POKEGAN_DROPOUT_CLONES(double)
POKEGAN_DROPOUT_CLONES(Bfloat16)
#undef POKEGAN_DROPOUT_CLONES

#if defined(__x86_64__) && defined(__GNUC__)
// The clone of bfloat16 spends most of its time on moving halves about in vectors of 8.
__attribute__((target("avx512f"))) void in_order_avx512(const uint32_t* word, const Bfloat16* in,
                                                        Bfloat16* out, int64_t count,
                                                        Rule<Bfloat16> rule) {
  constexpr __mmask16 kAll = 0xFFFF;
  const __m512i limit = _mm512_set1_epi32(static_cast<int>(rule.limit));
  const __m512 scale = _mm512_set1_ps(rule.scale);
  const __m512i half = _mm512_set1_epi32(0x7FFF);
  const __m512i one = _mm512_set1_epi32(1);
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __mmask16 kept = _mm512_cmpge_epu32_mask(_mm512_loadu_si512(word + i), limit);
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i));
    const __m512i wide = _mm512_maskz_slli_epi32(kAll, _mm512_maskz_cvtepu16_epi32(kAll, bits), 16);
    const __m512i product = _mm512_castps_si512(
        _mm512_maskz_mul_ps(kAll, _mm512_castsi512_ps(wide), _mm512_maskz_mov_ps(kept, scale)));
    const __m512i odd = _mm512_and_si512(_mm512_maskz_srli_epi32(kAll, product, 16), one);
    const __m512i rounded = _mm512_add_epi32(product, _mm512_add_epi32(half, odd));
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(out + i),
        _mm512_maskz_cvtepi32_epi16(kAll, _mm512_maskz_srli_epi32(kAll, rounded, 16)));
  }
  scale_in_order(word + i, in + i, out + i, count - i, rule);
}

bool has_avx512() {
  static const bool has = __builtin_cpu_supports("avx512f");
  return has;
}

void in_order_widest(const uint32_t* word, const Bfloat16* in, Bfloat16* out, int64_t count,
                     Rule<Bfloat16> rule) {
  has_avx512() ? in_order_avx512(word, in, out, count, rule) : in_order(word, in, out, count, rule);
}
#else
void in_order_widest(const uint32_t* word, const Bfloat16* in, Bfloat16* out, int64_t count,
                     Rule<Bfloat16> rule) {
  in_order(word, in, out, count, rule);
}
#endif

template <typename Value>
void in_order_widest(const uint32_t* word, const Value* in, Value* out, int64_t count,
                     Rule<Value> rule) {
  in_order(word, in, out, count, rule);
}

// Calls `take` with runs of the words [begin, end) of a sample: (words, first, count). `begin` is
// a multiple of 4.
template <typename Take>
void draw_run(const RandomKey& key, int64_t sample, int64_t begin, int64_t end, const Take& take) {
  uint32_t word[kRowWords];
  for (int64_t first = begin; first < end; first += kRowWords) {
    draw_row(key, static_cast<uint32_t>(sample), static_cast<uint32_t>(first / 4), word);
    take(word, first, std::min<int64_t>(kRowWords, end - first));
  }
}

template <typename Value>
struct Batch {
  const Value* in;
  Value* out;
  const DropoutValues& values;
  RandomKey key;
  const int64_t* samples;
  int64_t share;
  Rule<Value> rule;

  RandomKey key_of(int64_t row) const { return dropout_key(key, row, share); }
};

// Pieces are runs of words, and where values lie in planes, of whole pixels.
template <typename Value>
int64_t piece_of(const Batch<Value>& batch) {
  const DropoutValues& values = batch.values;
  if (values.order != DropoutOrder::kPlanes) return kPiece;
  return std::max<int64_t>(4, kPiece / values.channels / 16 * 16) * values.channels;
}

template <typename Value>
void drop_piece(const Batch<Value>& batch, int64_t row, int64_t begin, int64_t end,
                std::vector<uint32_t>& words) {
  const DropoutValues& values = batch.values;
  const Value* in = batch.in + row * values.count;
  Value* out = batch.out + row * values.count;
  const int64_t sample = batch.samples[row % batch.share];
  if (values.order == DropoutOrder::kInOrder) {
    draw_run(batch.key_of(row), sample, begin, end,
             [&](const uint32_t* word, int64_t first, int64_t count) {
               in_order_widest(word, in + first, out + first, count, batch.rule);
             });
    return;
  }
  words.resize(static_cast<size_t>(end - begin));
  draw_run(batch.key_of(row), sample, begin, end,
           [&](const uint32_t* word, int64_t first, int64_t count) {
             std::copy_n(word, count, words.data() + (first - begin));
           });
  const int64_t pixel = begin / values.channels;
  planes(words.data(), in + pixel, out + pixel, values.channels, values.pixels,
         (end - begin) / values.channels, batch.rule);
}

template <typename Value>
void drop_values(const Batch<Value>& batch) {
  const int64_t count = batch.values.count;
  const int64_t piece = piece_of(batch);
  const int64_t pieces = (count + piece - 1) / piece;
  const int64_t grain = std::max<int64_t>(1, kGrain / std::min(piece, count));
  torch::stable::parallel_for(0, batch.values.rows * pieces, grain, [&](int64_t from, int64_t to) {
    std::vector<uint32_t> words;
    for (int64_t job = from; job < to; ++job) {
      const int64_t begin = job % pieces * piece;
      drop_piece(batch, job / pieces, begin, std::min(begin + piece, count), words);
    }
  });
}

// One sample: `factor` has a value for each channel.
template <typename Value>
void scale_maps(const Batch<Value>& batch, int64_t row, const Real<Value>* factor,
                const uint32_t* word) {
  const DropoutValues& values = batch.values;
  const Value* in = batch.in + row * values.count;
  Value* out = batch.out + row * values.count;
  if (values.order == DropoutOrder::kPlanarMaps) {
    for (int64_t i = 0; i < values.channels; ++i) {
      by_one(in + i * values.pixels, out + i * values.pixels, values.pixels, factor[i]);
    }
    return;
  }
  for (int64_t i = 0; i < values.count; i += values.channels) {
    in_order_widest(word, in + i, out + i, values.channels, batch.rule);
  }
}

template <typename Value>
void drop_maps(const Batch<Value>& batch) {
  const DropoutValues& values = batch.values;
  const int64_t grain = std::max<int64_t>(1, kGrain / values.count);
  torch::stable::parallel_for(0, values.rows, grain, [&](int64_t from, int64_t to) {
    std::vector<uint32_t> words(static_cast<size_t>(values.channels));
    std::vector<Real<Value>> factor(words.size());
    for (int64_t row = from; row < to; ++row) {
      draw_run(batch.key_of(row), batch.samples[row % batch.share], 0, values.channels,
               [&](const uint32_t* word, int64_t first, int64_t count) {
                 std::copy_n(word, count, words.data() + first);
               });
      for (size_t i = 0; i < words.size(); ++i) {
        factor[i] = dropout_factor(words[i], batch.rule.limit, batch.rule.scale);
      }
      scale_maps(batch, row, factor.data(), words.data());
    }
  });
}

template <typename Value>
void run_all(const DropoutValues& values, Tensor& out, const RandomKey& key, const Tensor& samples,
             const DropoutRule& rule) {
  Real<Value> scale = rule.scale;
  if constexpr (std::is_same_v<Value, Bfloat16>) scale = to_float(to_bfloat16(rule.scale));
  const Batch<Value> batch{static_cast<const Value*>(values.tensor.const_data_ptr()),
                           static_cast<Value*>(out.mutable_data_ptr()),
                           values,
                           key,
                           samples.const_data_ptr<int64_t>(),
                           samples.size(0),
                           {rule.limit, scale}};
  const bool maps =
      values.order == DropoutOrder::kInterleavedMaps || values.order == DropoutOrder::kPlanarMaps;
  maps ? drop_maps(batch) : drop_values(batch);
}

Tensor dropout_cpu(const Tensor& values, const Tensor& step, const Tensor& samples, int64_t seed,
                   int64_t stream, double p, bool maps) {
  check_dropout(values, step, samples, stream, p, maps);
  const DropoutValues given = to_dropout_values(values, maps);
  Tensor out = torch::stable::empty_like(given.tensor);
  if (out.numel() == 0) return out;
  const RandomKey key = random_key(seed, stream, *step.const_data_ptr<int64_t>());
  const Tensor places = dense(samples);
  const DropoutRule rule = dropout_rule(p);
  if (values.scalar_type() == ScalarType::Float) {
    run_all<float>(given, out, key, places, rule);
  } else if (values.scalar_type() == ScalarType::Double) {
    run_all<double>(given, out, key, places, rule);
  } else {
    run_all<Bfloat16>(given, out, key, places, rule);
  }
  return out;
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CPU, library) {
  library.impl("dropout", TORCH_BOX(&pokegan::dropout_cpu));
}
