// SPDX-License-Identifier: Apache-2.0
#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <system_error>

#include "base/error.h"

namespace maestrale {
namespace {

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// CPUs the cgroup v2 quota allows, or a large number where there is none.
int cgroup_cpus() {
  FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "re");
  if (file == nullptr) return 1 << 20;
  long long quota = 0, period = 0;
  const int fields = std::fscanf(file, "%lld %lld", &quota, &period);  // "max 100000" has no quota
  std::fclose(file);
  if (fields != 2 || quota <= 0 || period <= 0) return 1 << 20;
  return int(std::max(1LL, (quota + period - 1) / period));
}

}  // namespace

int available_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cpus = 0;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cpus = CPU_COUNT(&set);
  if (cpus <= 0) cpus = int(std::thread::hardware_concurrency());
  return std::max(1, std::min(cpus, cgroup_cpus()));
}

ThreadPool::ThreadPool(int threads) : size_(threads) {
  // Spinning helps only while every thread has a CPU of its own; about 50 microseconds.
  spin_ = threads <= available_cpus() ? 1500 : 0;
  try {
    for (int worker = 1; worker < size_; ++worker) threads_.emplace_back([this, worker] { work(worker); });
  } catch (const std::system_error& error) {
    stop_ = true;
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    throw Error(ErrorCode::kOutOfMemory, "cannot start thread " + std::to_string(threads_.size() + 1) +
                                             " of " + std::to_string(size_) + ": " + error.what());
  }
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::await_change(const std::atomic<uint32_t>& word, uint32_t old) const {
  for (int i = 0; i < spin_; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    pause_cpu();
  }
  while (word.load(std::memory_order_acquire) == old) word.wait(old, std::memory_order_acquire);
}

void ThreadPool::run_erased(Entry entry, void* context) {
  entry_ = entry;
  context_ = context;
  for (Ticket& ticket : tickets_) ticket.next.store(0, std::memory_order_relaxed);
  const uint32_t before = finished_.load(std::memory_order_relaxed);
  const uint32_t target = before + uint32_t(size_ - 1);
  if (size_ > 1) {
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
  }
  entry(context, 0);
  for (uint32_t done = finished_.load(std::memory_order_acquire); done != target;
       done = finished_.load(std::memory_order_acquire))
    await_change(finished_, done);
}

void ThreadPool::work(int worker) {
  uint32_t seen = 0;
  for (;;) {
    await_change(epoch_, seen);
    ++seen;
    if (stop_) return;
    entry_(context_, worker);
    finished_.fetch_add(1, std::memory_order_release);
    finished_.notify_one();
  }
}

void ThreadPool::barrier() {
  const uint32_t generation = generation_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
  } else {
    await_change(generation_, generation);
  }
}

}  // namespace maestrale
