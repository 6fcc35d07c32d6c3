// SPDX-License-Identifier: Apache-2.0
// Grouped-query attention over the paged cache, shared among the threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "base/memory.h"
#include "base/thread_pool.h"
#include "cpu/kernels.h"
#include "cpu/kv_cache.h"

namespace maestrale {

class CpuAttention {
 public:
  CpuAttention(ThreadPool& pool, const Kernels& kernels) : pool_(pool), kernels_(kernels) {}

  void set_interrupt(const std::atomic<bool>* flag) { interrupt_ = flag; }

  // q: (rows of the batch, n_heads * head_dim), rotated. out: the same shape.
  void run(const CpuKvCache& cache, const Batch& batch, int32_t layer, Tensor q, Tensor out);

 private:
  struct Task;    // some rows of one sequence and one KV head
  struct Thread;  // scratch of one thread
  // `next`: what the thread does afterwards, or null.
  void attend(const CpuKvCache& cache, const Task& task, const Task* next, int32_t layer, Tensor q,
              Tensor out, Thread& thread);

  ThreadPool& pool_;
  const Kernels& kernels_;
  const std::atomic<bool>* interrupt_ = nullptr;
  Buffer scratch_;
};

}  // namespace maestrale
