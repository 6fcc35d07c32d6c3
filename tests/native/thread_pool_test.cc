// SPDX-License-Identifier: Apache-2.0
// What the threads of the CPU backend promise: every piece once, no CPU when idle, and no collapse when there
// are more of them than CPUs.
#include "base/thread_pool.h"

#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "check.h"

using namespace maestrale;

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Seconds of CPU that all threads of this process have used.
double cpu_seconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
}

// About 20 microseconds of arithmetic.
uint64_t piece_of_work(uint64_t seed) {
  for (int i = 0; i < 20000; ++i) seed = seed * 6364136223846793005u + 1442695040888963407u;
  return seed;
}

// Seconds for regions as a step of a model has them: a loop, a barrier, a loop.
double time_regions(ThreadPool& pool) {
  std::atomic<uint64_t> sink{0};
  const double start = now();
  for (int region = 0; region < 40; ++region)
    pool.run([&](int worker) {
      for (int loop = 0; loop < 2; ++loop) {
        pool.share(loop, worker, 64, 1, [&](int64_t begin, int64_t) {
          sink.fetch_add(piece_of_work(uint64_t(begin)), std::memory_order_relaxed);
        });
        pool.barrier();
      }
    });
  return now() - start;
}

}  // namespace

TEST("thread pool: a shared loop calls every index once, whatever the grain and the threads") {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    for (const int64_t n : {0, 1, 7, 64, 1000})
      for (const int64_t grain : {1, 3, 8, 2000}) {
        std::vector<std::atomic<int>> calls(static_cast<size_t>(n));
        pool.run([&](int worker) {
          pool.share(1, worker, n, grain, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) calls[size_t(i)].fetch_add(1);
          });
        });
        for (const std::atomic<int>& count : calls) CHECK_EQ(count.load(), 1);
      }
  }
}

TEST("thread pool: a loop that looks ahead calls every index once and knows where each thread goes on") {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    for (const int64_t n : {0, 1, 7, 64, 1000})
      for (const int64_t grain : {1, 3, 8, 2000}) {
        std::vector<std::atomic<int>> calls(static_cast<size_t>(n));
        std::atomic<int> wrong{0};
        pool.run([&](int worker) {
          int64_t expected = -1;  // what the call before said
          pool.share_ahead(1, worker, n, grain, [&](int64_t begin, int64_t end, int64_t next) {
            if (expected >= 0 && begin != expected) wrong.fetch_add(1);
            if (next <= begin || next > n || (next < n && next % grain != 0)) wrong.fetch_add(1);
            for (int64_t i = begin; i < end; ++i) calls[size_t(i)].fetch_add(1);
            expected = next;
          });
          if (expected >= 0 && expected != n) wrong.fetch_add(1);
        });
        CHECK_EQ(wrong.load(), 0);
        for (const std::atomic<int>& count : calls) CHECK_EQ(count.load(), 1);
      }
  }
}

TEST("thread pool: 100 ms after the last region no thread uses the CPU") {
  ThreadPool pool(available_cpus());
  time_regions(pool);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const double before = cpu_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  CHECK(cpu_seconds() - before < 0.003);
}

TEST("thread pool: with four threads a CPU at least half the speed is left") {
  ThreadPool fitting(available_cpus()), crowded(4 * available_cpus());
  double fitting_time = 1e9, crowded_time = 1e9;
  // The best of several, alternating: other processes only ever make either slower, the crowded pool more
  // often as its regions need more processors at once. So it gets more chances, which a pool that loses its
  // speed cannot use.
  for (int repeat = 0; repeat < 10 || (repeat < 40 && crowded_time > 2 * fitting_time); ++repeat) {
    fitting_time = std::min(fitting_time, time_regions(fitting));
    crowded_time = std::min(crowded_time, time_regions(crowded));
  }
  if (crowded_time > 2 * fitting_time)
    test::fail(__FILE__, __LINE__,
               std::to_string(crowded_time) + " s against " + std::to_string(fitting_time));
}
