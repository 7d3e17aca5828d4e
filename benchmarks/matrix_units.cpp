// How many bfloat16 operations a second the matrix units (AMX) do, by where their operands lie.
//
//     g++ -O2 -std=c++17 -march=sapphirerapids -pthread benchmarks/matrix_units.cpp -o matrix_units
//     ./matrix_units 2          # threads
//
// As in the convolutions' kernels, four products are made of two left and two right tiles of 1 KB:
// as many loads as products. Operands are random numbers, or zeros, which need less power. Best of
// 20 rounds, each of all threads together.
#include <immintrin.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

namespace {

constexpr int64_t kTile = 1024;
constexpr int64_t kStep = 2 * kTile;
constexpr int64_t kSteps = 100'000;
constexpr int kRounds = 20;
constexpr double kOperations = 4 * 2.0 * 16 * 16 * 32;  // of a step

struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

class Operand {
 public:
  Operand(int64_t bytes, bool zeros) : bytes_(bytes) {
    constexpr int64_t kPage = 2 << 20;
    const int64_t whole = (std::max(bytes, kStep) + kPage - 1) / kPage * kPage;
    values_ = static_cast<uint16_t*>(std::aligned_alloc(kPage, static_cast<size_t>(whole)));
    madvise(values_, static_cast<size_t>(whole), MADV_HUGEPAGE);
    std::mt19937 random(1);
    for (int64_t i = 0; i < whole / 2; ++i) {
      values_[i] = zeros ? 0 : static_cast<uint16_t>(0x3C00 + (random() & 0x83FF));  // +- 2^-7 to 2
    }
  }
  ~Operand() { std::free(values_); }
  Operand(const Operand&) = delete;
  Operand& operator=(const Operand&) = delete;

  const char* next() {
    const char* tile = reinterpret_cast<const char*>(values_) + place_;
    place_ = place_ + kStep < bytes_ ? place_ + kStep : 0;
    return tile;
  }

 private:
  uint16_t* values_;
  int64_t bytes_;
  int64_t place_ = 0;
};

inline void load_tiles(Operand& left, Operand& right) {
  const char* a = left.next();
  const char* b = right.next();
  _tile_loadd(4, a, 64);
  _tile_loadd(5, a + kTile, 64);
  _tile_loadd(6, b, 64);
  _tile_loadd(7, b + kTile, 64);
}

template <bool kLoads>
void products(Operand& left, Operand& right) {
  for (int64_t i = 0; i < kSteps; ++i) {
    if constexpr (kLoads) load_tiles(left, right);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

struct Case {
  const char* name;
  int64_t left;  // bytes; 0: nothing is loaded
  int64_t right;
};

// Operations a second of `threads` threads that begin together.
double rate(const Case& wanted, bool zeros, int threads) {
  std::atomic<int> ready{0};
  std::vector<std::thread> running;
  std::vector<std::vector<double>> seconds(static_cast<size_t>(threads));
  for (int number = 0; number < threads; ++number) {
    running.emplace_back([&, number] {
      Operand left(wanted.left, zeros);
      Operand right(wanted.right, zeros);
      const TileShapes shapes;
      _tile_loadconfig(&shapes);
      for (int round = 0; round < kRounds; ++round) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        load_tiles(left, right);
        ++ready;
        while (ready < (round + 1) * threads) _mm_pause();
        const auto begin = std::chrono::steady_clock::now();
        wanted.left > 0 ? products<true>(left, right) : products<false>(left, right);
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
        seconds[static_cast<size_t>(number)].push_back(took.count());
      }
      _tile_release();
    });
  }
  for (std::thread& thread : running) thread.join();
  double best = 0;
  for (size_t round = 0; round < kRounds; ++round) {
    double slowest = 0;
    for (const auto& own : seconds) slowest = std::max(slowest, own[round]);
    best = std::max(best, threads * kSteps * kOperations / slowest);
  }
  return best;
}

}  // namespace

int main(int count, char** arguments) {
  const int most = count > 1 ? std::atoi(arguments[1]) : 1;
  if (most < 1) {
    std::fprintf(stderr, "usage: matrix_units [THREADS]\n");
    return 2;
  }
  if (syscall(SYS_arch_prctl, 0x1023, 18) != 0) {  // ask the system for the tiles
    std::fprintf(stderr, "no AMX here\n");
    return 2;
  }
  const Case cases[] = {{"in registers", 0, 0},
                        {"both in the first cache", 8 << 10, 8 << 10},
                        {"left 512 KB, right 16 KB", 512 << 10, 16 << 10},
                        {"left 512 KB, right 128 KB", 512 << 10, 128 << 10},
                        {"left 1 MB, right 512 KB", 1 << 20, 512 << 10}};
  std::printf("| operands | threads | random, TFLOP/s | zeros, TFLOP/s |\n|---|---:|---:|---:|\n");
  for (const Case& one : cases) {
    for (int threads = 1; threads <= most; ++threads) {
      std::printf("| %s | %d | %.2f | %.2f |\n", one.name, threads,
                  rate(one, false, threads) / 1e12, rate(one, true, threads) / 1e12);
    }
  }
}
