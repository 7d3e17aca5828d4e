// The threads of a block as fibers of one thread, each run to where it must wait for others.
//
// POKEGAN_HOST_CUDA_ORDER=backwards runs threads and blocks from the last to the first: a kernel
// that races gives other results then.
#include <ucontext.h>

#include <cstdlib>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace host_cuda {

Index now;

namespace {

constexpr size_t kStack = 128 << 10;

enum class State { kReady, kAtBlock, kAtWarp, kDone };

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  Index index;
  State state = State::kDone;
  const char* file = nullptr;  // where it waits
  int line = 0;
  int turns = 0;
  alignas(16) char slots[2][16];
  void* fake_stack = nullptr;
};

std::mutex one_at_a_time;
std::vector<Fiber> fibers;
ucontext_t scheduler;
int current = 0;
const std::function<void()>* body = nullptr;
std::string failure;
void* scheduler_fake_stack = nullptr;
const void* scheduler_stack = nullptr;
size_t scheduler_stack_size = 0;

void to_scheduler() {
  Fiber& fiber = fibers[current];
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(fiber.state == State::kDone ? nullptr : &fiber.fake_stack,
                                 scheduler_stack, scheduler_stack_size);
#endif
  swapcontext(&fiber.context, &scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &scheduler_stack, &scheduler_stack_size);
#endif
}

void live() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
#endif
  (*body)();
  fibers[current].state = State::kDone;
  to_scheduler();
}

void resume(int number) {
  current = number;
  Fiber& fiber = fibers[number];
  now = fiber.index;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&scheduler_fake_stack, fiber.stack.get(), kStack);
#endif
  swapcontext(&scheduler, &fiber.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

void wait(State state, const char* file, int line) {
  Fiber& fiber = fibers[current];
  fiber.state = state;
  fiber.file = file;
  fiber.line = line;
  to_scheduler();
}

std::string place(const Fiber& fiber) {
  return std::string(fiber.file) + ":" + std::to_string(fiber.line);
}

// Lets fibers [begin, end) go on if all of them, but those that are done, wait at one place.
// `all`: none may be done. Returns whether it did; throws where they wait at two.
bool release(int begin, int end, State state, bool all) {
  const Fiber* first = nullptr;
  bool complete = true;
  for (int i = begin; i < end; ++i) {
    const Fiber& fiber = fibers[i];
    if (fiber.state != state) {
      complete = complete && fiber.state == State::kDone && !all;
      continue;
    }
    if (first != nullptr && (first->line != fiber.line || first->file != fiber.file)) {
      throw std::runtime_error("threads wait at " + place(*first) + " and at " + place(fiber));
    }
    first = &fiber;
  }
  if (!complete || first == nullptr) return false;
  for (int i = begin; i < end; ++i) {
    if (fibers[i].state == state) fibers[i].state = State::kReady;
  }
  return true;
}

// Runs the threads of a warp as far as they come without the other warps.
void run_warp(int begin, int end, bool backwards) {
  do {
    for (int i = begin; i < end; ++i) {
      const int number = backwards ? begin + end - 1 - i : i;
      if (fibers[number].state == State::kReady) resume(number);
      if (!failure.empty()) throw std::runtime_error(failure);
    }
  } while (release(begin, end, State::kAtWarp, true));
}

void run_block(int threads, bool backwards) {
  for (int i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, live, 0);
    fiber.state = State::kReady;
    fiber.turns = 0;
  }
  do {
    for (int i = 0; i < threads; i += kWarp) {
      const int begin = backwards ? threads - kWarp - i : i;
      run_warp(begin, begin + kWarp, backwards);
    }
  } while (release(0, threads, State::kAtBlock, false));
  for (int i = 0; i < threads; ++i) {
    if (fibers[i].state != State::kDone) {
      throw std::runtime_error("the thread at " + place(fibers[i]) + " waits for others in vain");
    }
  }
}

}  // namespace

void fail(const char* reason) {
  failure = reason;
  to_scheduler();
  std::abort();  // nobody comes back here
}

void sync_block(const char* file, int line) { wait(State::kAtBlock, file, line); }

void sync_warp(unsigned mask, const char* file, int line) {
  if (mask != 0xFFFFFFFFU) fail("a shuffle must name all lanes");
  wait(State::kAtWarp, file, line);
}

void* slot(int lane, int turn) { return fibers[current / kWarp * kWarp + lane].slots[turn % 2]; }
int next_turn() { return fibers[current].turns++; }
int lane() { return current % kWarp; }
int below(unsigned distance) {
  const int from = lane() + static_cast<int>(distance);
  return from < kWarp ? from : lane();
}

void run(dim3 grid, dim3 block, const std::function<void()>& own_body) {
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  const char* order = std::getenv("POKEGAN_HOST_CUDA_ORDER");
  const bool backwards = order != nullptr && std::string(order) == "backwards";
  const int threads = static_cast<int>(block.x);
  if (block.y != 1 || block.z != 1 || threads < 1 || threads > 1024 || threads % kWarp != 0) {
    throw std::runtime_error("a block must have 32 to 1,024 threads in one row, whole warps");
  }
  if (grid.x == 0 || grid.y == 0 || grid.z != 1 || grid.y > 65535) {
    throw std::runtime_error("a grid must have at least one block, and 65,535 rows at most");
  }
  if (fibers.size() < 1024) fibers = std::vector<Fiber>(1024);
  body = &own_body;
  failure.clear();
  const uint64_t blocks = static_cast<uint64_t>(grid.x) * grid.y;
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t number = backwards ? blocks - 1 - i : i;
    const dim3 place(static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x),
                     0);
    for (int thread = 0; thread < threads; ++thread) {
      fibers[thread].index = {dim3(static_cast<unsigned>(thread), 0, 0), place, block, grid};
    }
    run_block(threads, backwards);
  }
}

}  // namespace host_cuda
