// SPDX-License-Identifier: Apache-2.0
#include "cpu/bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "base/memory.h"
#include "base/thread_pool.h"

namespace maestrale {
namespace {

// One word of each cache line: the whole line comes from memory, and whatever instructions the compiler may
// use, none of them is the limit.
uint64_t sum_lines(const std::byte* data, int64_t bytes) {
  uint64_t sum = 0;
  for (int64_t at = 0; at < bytes; at += 64) {
    uint64_t word;
    std::memcpy(&word, data + at, sizeof word);
    sum += word;
  }
  return sum;
}

}  // namespace

double read_bandwidth(int threads, uint64_t bytes) {
  constexpr int kPasses = 20;
  constexpr int64_t kGrain = 1 << 20;
  const Buffer buffer(bytes, "the bandwidth probe");
  std::memset(buffer.data(), 1, bytes);  // pages that were never written are all the same one
  ThreadPool pool(threads);
  std::atomic<uint64_t> total{0};  // keeps the reads alive
  double best = 0.0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    pool.run([&](int worker) {
      pool.share(0, worker, int64_t(bytes), kGrain, [&](int64_t begin, int64_t end) {
        total.fetch_add(sum_lines(buffer.data() + begin, end - begin), std::memory_order_relaxed);
      });
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, double(bytes) / seconds.count());
  }
  return total.load() == 0 ? 0.0 : best;
}

}  // namespace maestrale
