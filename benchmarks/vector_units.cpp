// How many operations a second the vector units do in registers: products of bfloat16 pairs
// (AVX512-BF16), and of float32.
//
//     g++ -O2 -std=c++17 -pthread benchmarks/vector_units.cpp -o vector_units
//     ./vector_units 2          # threads
//
// Sixteen sums that do not wait for each other, best of 5 rounds, each of all threads together.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

constexpr int64_t kSteps = 10'000'000;
constexpr int kRounds = 5;
constexpr int kSums = 16;

// Written out, because a compiler that runs out of registers would measure memory.
// clang-format off: it changes a row of macros anew each time
#define EACH(OPERATION)                                                                   \
  OPERATION(0) OPERATION(1) OPERATION(2) OPERATION(3) OPERATION(4) OPERATION(5)           \
  OPERATION(6) OPERATION(7) OPERATION(8) OPERATION(9) OPERATION(10) OPERATION(11)         \
  OPERATION(12) OPERATION(13) OPERATION(14) OPERATION(15)
// clang-format on
#define BFLOAT16(SUM) "vdpbf16ps %%zmm16, %%zmm17, %%zmm" #SUM "\n"
#define FLOAT32(SUM) "vfmadd231ps %%zmm16, %%zmm17, %%zmm" #SUM "\n"
#define ZERO(SUM) "vpxorq %%zmm" #SUM ", %%zmm" #SUM ", %%zmm" #SUM "\n"
#define TOUCHED                                                                            \
  "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10", \
      "zmm11", "zmm12", "zmm13", "zmm14", "zmm15", "zmm16", "zmm17"

__attribute__((target("avx512f"))) void products(bool narrow) {
  asm volatile(EACH(ZERO) ZERO(16) ZERO(17)::: TOUCHED);
  for (int64_t i = 0; i < kSteps; ++i) {
    if (narrow) {
      asm volatile(EACH(BFLOAT16)::: TOUCHED);
    } else {
      asm volatile(EACH(FLOAT32)::: TOUCHED);
    }
  }
}

// Operations a second of `threads` threads that begin together.
double rate(bool narrow, int threads) {
  const double operations = 2.0 * kSums * (narrow ? 32 : 16);
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::atomic<int> ready{0};
    std::vector<double> seconds(static_cast<size_t>(threads));
    std::vector<std::thread> running;
    for (int number = 0; number < threads; ++number) {
      running.emplace_back([&, number] {
        ++ready;
        while (ready < threads) std::this_thread::yield();
        const auto begin = std::chrono::steady_clock::now();
        products(narrow);
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
        seconds[static_cast<size_t>(number)] = took.count();
      });
    }
    for (std::thread& thread : running) thread.join();
    const double slowest = *std::max_element(seconds.begin(), seconds.end());
    best = std::max(best, threads * kSteps * operations / slowest);
  }
  return best;
}

}  // namespace

int main(int count, char** arguments) {
  const int most = count > 1 ? std::atoi(arguments[1]) : 1;
  if (most < 1) {
    std::fprintf(stderr, "usage: vector_units [THREADS]\n");
    return 2;
  }
  if (!__builtin_cpu_supports("avx512bf16")) {
    std::fprintf(stderr, "no AVX512-BF16 here\n");
    return 2;
  }
  std::printf("| threads | bfloat16, GFLOP/s | float32, GFLOP/s |\n|---:|---:|---:|\n");
  for (int threads = 1; threads <= most; ++threads) {
    std::printf("| %d | %.0f | %.0f |\n", threads, rate(true, threads) / 1e9,
                rate(false, threads) / 1e9);
  }
}
