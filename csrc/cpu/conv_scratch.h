// Memory that a thread keeps from call to call, and jobs for threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "conv_units.h"

namespace pokegan {

// Grows and never shrinks; aligned to a huge page.
class Scratch {
 public:
  char* bytes(int64_t count) {
    if (count > size_) {
      memory_.reset();
      size_ = (count + kPage - 1) / kPage * kPage;
      memory_.reset(static_cast<char*>(std::aligned_alloc(kPage, static_cast<size_t>(size_))));
      if (memory_ == nullptr) {
        size_ = 0;
        throw std::bad_alloc();
      }
#if defined(MADV_HUGEPAGE)
      madvise(memory_.get(), static_cast<size_t>(size_), MADV_HUGEPAGE);  // fewer misses; a wish
#endif
    }
    return memory_.get();
  }

 private:
  static constexpr int64_t kPage = 2 << 20;
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  std::unique_ptr<char, Free> memory_;
  int64_t size_ = 0;
};

// Jobs 0, ..., count - 1, each on whichever thread is free. A job's result may not depend on that.
// `around(work)` is called once a thread.
template <typename Around, typename Job>
void share_jobs(int64_t count, const Around& around, const Job& job) {
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), count);
  if (threads <= 1) {
    around([&] {
      for (int64_t i = 0; i < count; ++i) job(i);
    });
    return;
  }
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    around([&] {
      for (int64_t i = next++; i < count; i = next++) job(i);
    });
  });
}

// The same for jobs that multiply.
template <typename Job>
void share_products(const Kernels& kernels, int64_t count, const Job& job) {
  const auto around = [&](const auto& work) {
    kernels.begin();
    work();
    kernels.end();
  };
  share_jobs(count, around, job);
}

}  // namespace pokegan
