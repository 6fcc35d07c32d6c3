// SPDX-License-Identifier: Apache-2.0
// The products of LoRA adapters on the thread pool: t = scaling * x * lora_a^T, then out += t * lora_b^T.
//
// Both use the kernels of matmul on panels of floats. The first product is long and narrow, so it is cut
// along the input dimension into pieces of kPieceColumns, whose sums are added in ascending order: where the
// cuts are depends on the width alone, so the bits depend neither on the threads nor on the batch.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "backend/adapter_ops.h"
#include "base/memory.h"
#include "base/thread_pool.h"
#include "cpu/kernels.h"

namespace maestrale {

struct LowRankProduct {
  const LowRank* delta;
  Tensor out;  // holds x * w^T, cols = rows of w
};

class CpuLowRank {
 public:
  CpuLowRank(ThreadPool& pool, const Kernels& kernels) : pool_(pool), kernels_(kernels) {}

  void set_interrupt(const std::atomic<bool>* flag) { interrupt_ = flag; }

  // For the rows of one adapter, see AdapterOps::add_low_rank. At most kMostProducts of them.
  void run(Tensor x, RowRange rows, std::span<const LowRankProduct> products);

  static constexpr size_t kMostProducts = 3;  // Q, K and V share x

 private:
  // Where the sums of one product lie, in floats.
  struct Part {
    int64_t rank = 0;    // padded: columns of lora_b
    int64_t pieces = 0;  // along the input
    int64_t sums = 0;    // offset in sums_ of (pieces, rows, rank)
    int64_t down = 0;    // offset in a worker's part of down_ of (rows, rank)
  };
  void sum_piece(Tensor x, RowRange rows, RowRange block, const LowRankProduct& product, const Part& part,
                 int64_t piece);
  void add_sums(RowRange rows, const LowRankProduct& product, const Part& part, float* down) const;
  void expand(RowRange rows, const LowRankProduct& product, const float* down, int64_t from,
              int64_t to) const;
  bool interrupted() const { return interrupt_ != nullptr && interrupt_->load(std::memory_order_relaxed); }

  ThreadPool& pool_;
  const Kernels& kernels_;
  const std::atomic<bool>* interrupt_ = nullptr;
  Buffer sums_;  // of the pieces
  Buffer down_;  // per worker: t of every product
};

// The storage of one adapter: filled by one thread, without the pool, which may be computing.
std::unique_ptr<AdapterStorage> make_cpu_adapter_storage(uint64_t bytes);

}  // namespace maestrale
