// Dropout on the CPU: threads over pieces of samples, whose words live in the first cache.
#include <algorithm>
#include <tuple>
#include <vector>

#include "../dropout_check.h"
#include "dropout_rows.h"

namespace pokegan {
namespace {

constexpr int64_t kPiece = 8192;   // words
constexpr int64_t kGrain = 16384;  // values
constexpr int64_t kRun = 512;      // values that share a mask where whole maps go

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

template <typename Value>
struct Batch {
  const Value* in;
  Value* out;
  uint8_t* kept;  // [rows, ceil(count / 8)], or nothing
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
void drop_piece(const Batch<Value>& batch, int64_t row, int64_t begin, int64_t end) {
  const DropoutValues& values = batch.values;
  const Value* in = batch.in + row * values.count;
  Value* out = batch.out + row * values.count;
  const auto sample = static_cast<uint32_t>(batch.samples[row % batch.share]);
  const DropoutRun run{batch.key_of(row), sample, begin, end};
  if (values.order == DropoutOrder::kInOrder) {
    uint8_t* kept = batch.kept;
    if (kept != nullptr) kept += row * kept_bytes(values.count) + begin / 8;
    drop_in_order(run, in + begin, out + begin, kept, batch.rule);
    return;
  }
  thread_local std::vector<uint32_t> words;
  words.resize(static_cast<size_t>(end - begin));
  draw_run(run, [&](const uint32_t* word, int64_t first, int64_t count) {
    std::copy_n(word, count, words.data() + (first - begin));
  });
  const int64_t pixel = begin / values.channels;
  planes(words.data(), in + pixel, out + pixel, values.channels, values.pixels,
         (end - begin) / values.channels, batch.rule);
}

// Threads over the pieces of all rows: `work` takes (row, begin, end) one after the other.
template <typename Work>
void over_pieces(const DropoutValues& values, int64_t piece, const Work& work) {
  const int64_t pieces = (values.count + piece - 1) / piece;
  const int64_t grain = std::max<int64_t>(1, kGrain / std::min(piece, values.count));
  torch::stable::parallel_for(0, values.rows * pieces, grain, [&](int64_t from, int64_t to) {
    for (int64_t job = from; job < to; ++job) {
      const int64_t begin = job % pieces * piece;
      work(job / pieces, begin, std::min(begin + piece, values.count));
    }
  });
}

template <typename Value>
void drop_values(const Batch<Value>& batch) {
  over_pieces(batch.values, piece_of(batch),
              [&](int64_t row, int64_t begin, int64_t end) { drop_piece(batch, row, begin, end); });
}

// One sample, a plane for each channel or channels fastest; `words` are those of a run of pixels.
template <typename Value>
void scale_maps(const Batch<Value>& batch, int64_t row, const std::vector<uint32_t>& words,
                std::vector<uint8_t>& kept) {
  const DropoutValues& values = batch.values;
  const Value* in = batch.in + row * values.count;
  Value* out = batch.out + row * values.count;
  if (values.order == DropoutOrder::kPlanarMaps) {
    for (int64_t i = 0; i < values.channels; ++i) {
      const auto factor = dropout_factor(words[i], batch.rule.limit, batch.rule.scale);
      by_one(in + i * values.pixels, out + i * values.pixels, values.pixels, factor);
    }
    return;
  }
  const auto run = static_cast<int64_t>(words.size());
  write_bits(words.data(), kept.data(), run, batch.rule.limit);
  for (int64_t i = 0; i < values.count; i += run) {
    drop_again(in + i, kept.data(), out + i, std::min(run, values.count - i), batch.rule.scale);
  }
}

template <typename Value>
void drop_maps(const Batch<Value>& batch) {
  const DropoutValues& values = batch.values;
  const int64_t grain = std::max<int64_t>(1, kGrain / values.count);
  int64_t run = values.channels;
  if (values.order == DropoutOrder::kInterleavedMaps) {
    run *= std::min(values.pixels, std::max<int64_t>(1, kRun / values.channels));
  }
  torch::stable::parallel_for(0, values.rows, grain, [&](int64_t from, int64_t to) {
    std::vector<uint32_t> words(static_cast<size_t>(run));
    std::vector<uint8_t> kept(static_cast<size_t>(kept_bytes(run)));
    for (int64_t row = from; row < to; ++row) {
      const auto sample = static_cast<uint32_t>(batch.samples[row % batch.share]);
      draw_run({batch.key_of(row), sample, 0, values.channels},
               [&](const uint32_t* word, int64_t first, int64_t count) {
                 std::copy_n(word, count, words.data() + first);
               });
      for (int64_t i = values.channels; i < run; i += values.channels) {
        std::copy_n(words.data(), values.channels, words.data() + i);
      }
      scale_maps(batch, row, words, kept);
    }
  });
}

template <typename Value>
Real<Value> scale_of(const DropoutRule& rule) {
  if constexpr (std::is_same_v<Value, Bfloat16>) return to_float(to_bfloat16(rule.scale));
  return rule.scale;
}

// What a call works on; `kept` may be nothing.
struct Call {
  const DropoutValues& values;
  Tensor& out;
  uint8_t* kept;
  RandomKey key;
  Tensor samples;
  DropoutRule rule;
};

template <typename Value>
void drop_all(const Call& call) {
  const DropoutValues& values = call.values;
  const Batch<Value> batch{static_cast<const Value*>(values.tensor.const_data_ptr()),
                           static_cast<Value*>(call.out.mutable_data_ptr()),
                           call.kept,
                           values,
                           call.key,
                           call.samples.const_data_ptr<int64_t>(),
                           call.samples.size(0),
                           {call.rule.limit, scale_of<Value>(call.rule)}};
  const bool maps =
      values.order == DropoutOrder::kInterleavedMaps || values.order == DropoutOrder::kPlanarMaps;
  maps ? drop_maps(batch) : drop_values(batch);
}

template <typename Value>
void again_all(const DropoutValues& values, const Tensor& kept, Tensor& out, double p) {
  const auto* in = static_cast<const Value*>(values.tensor.const_data_ptr());
  auto* to = static_cast<Value*>(out.mutable_data_ptr());
  const uint8_t* bits = kept.const_data_ptr<uint8_t>();
  const Real<Value> scale = scale_of<Value>(dropout_rule(p));
  over_pieces(values, kPiece, [&](int64_t row, int64_t begin, int64_t end) {
    const int64_t at = row * values.count + begin;
    drop_again(in + at, bits + row * kept_bytes(values.count) + begin / 8, to + at, end - begin,
               scale);
  });
}

// Calls `take` with a zero of the type of the values.
template <typename Take>
void with_type(const Tensor& values, const Take& take) {
  if (values.scalar_type() == ScalarType::Float) {
    take(float{});
  } else if (values.scalar_type() == ScalarType::Double) {
    take(double{});
  } else {
    take(Bfloat16{});
  }
}

void drop_tensor(const DropoutValues& given, Tensor& out, uint8_t* kept, const Tensor& step,
                 const Tensor& samples, int64_t seed, int64_t stream, double p) {
  if (out.numel() == 0) return;
  const RandomKey key = random_key(seed, stream, *step.const_data_ptr<int64_t>());
  const Call call{given, out, kept, key, dense(samples), dropout_rule(p)};
  with_type(out, [&](auto zero) { drop_all<decltype(zero)>(call); });
}

Tensor dropout_cpu(const Tensor& values, const Tensor& step, const Tensor& samples, int64_t seed,
                   int64_t stream, double p, bool maps) {
  check_dropout(values, step, samples, stream, p, maps);
  const DropoutValues given = to_dropout_values(values, maps);
  Tensor out = torch::stable::empty_like(given.tensor);
  drop_tensor(given, out, nullptr, step, samples, seed, stream, p);
  return out;
}

std::tuple<Tensor, Tensor> dropout_kept_cpu(const Tensor& values, const Tensor& step,
                                            const Tensor& samples, int64_t seed, int64_t stream,
                                            double p) {
  check_dropout(values, step, samples, stream, p, false);
  const DropoutValues given = to_dropout_values(values, false);
  check_in_order(given);
  Tensor out = torch::stable::empty_like(given.tensor);
  Tensor kept = new_dense<2>(values, {given.rows, kept_bytes(given.count)}, ScalarType::Byte);
  drop_tensor(given, out, kept.mutable_data_ptr<uint8_t>(), step, samples, seed, stream, p);
  return {out, kept};
}

Tensor dropout_again_cpu(const Tensor& values, const Tensor& kept, double p) {
  check_dropout_values(values, p);
  const DropoutValues given = to_dropout_values(values, false);
  check_in_order(given);
  check_kept(given, kept);
  Tensor out = torch::stable::empty_like(given.tensor);
  if (out.numel() == 0) return out;
  const Tensor bits = dense(kept);
  with_type(out, [&](auto zero) { again_all<decltype(zero)>(given, bits, out, p); });
  return out;
}

}  // namespace
}  // namespace pokegan

STABLE_TORCH_LIBRARY_IMPL(pokegan, CPU, library) {
  library.impl("dropout", TORCH_BOX(&pokegan::dropout_cpu));
  library.impl("dropout_kept", TORCH_BOX(&pokegan::dropout_kept_cpu));
  library.impl("dropout_again", TORCH_BOX(&pokegan::dropout_again_cpu));
}
