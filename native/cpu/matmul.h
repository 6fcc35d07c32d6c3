// SPDX-License-Identifier: Apache-2.0
// Matrix multiplication over the thread pool: quantises the activations once per form that the weights
// need, then shares the weight panels among the threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "backend/backend.h"
#include "base/memory.h"
#include "base/thread_pool.h"
#include "cpu/kernels.h"
#include "cpu/panel_layout.h"

namespace maestrale {

class CpuMatmul {
 public:
  CpuMatmul(ThreadPool& pool, const Kernels& kernels) : pool_(pool), kernels_(kernels) {}

  void set_interrupt(const std::atomic<bool>* flag) { interrupt_ = flag; }

  // out = x * weight^T for every projection, or out += with `accumulate`; x is (n_rows, x.cols).
  void run(Tensor x, int32_t n_rows, std::span<const Projection> projections, bool accumulate);
  // out = silu(x * w_gate^T) .* (x * w_up^T)
  void run_swiglu(Tensor x, int32_t n_rows, const Matrix& w_gate, const Matrix& w_up, Tensor out);

 private:
  struct Activations {  // x in one form
    const std::byte* data = nullptr;
    int64_t stride = 0;
  };
  // Grows the buffers for the forms that `weights` need; before the region that fills them.
  void reserve(Tensor x, int32_t n_rows, std::span<const Matrix* const> weights);
  // Quantises all rows; called by every thread of a region, ends with a barrier.
  void quantise(Tensor x, int32_t n_rows, int worker);
  Activations activations(Tensor x, QuantType type) const;
  GemmJob job(const Matrix& weight, int64_t panel, int64_t n_panels, Tensor x, int32_t n_rows,
              int worker) const;
  template <class Body>
  void share_panels(int worker, int64_t n_panels, int64_t grain, int32_t n_rows, Body&& body);
  bool interrupted() const { return interrupt_ != nullptr && interrupt_->load(std::memory_order_relaxed); }

  ThreadPool& pool_;
  const Kernels& kernels_;
  const std::atomic<bool>* interrupt_ = nullptr;
  bool use_q256_ = false, use_q64_ = false, use_q128_ = false;
  Buffer q256_, q64_, q128_;
  Buffer partial_;         // per thread: the sums of one job, see GemmJob
  Buffer swiglu_scratch_;  // per thread: gate and up of one piece
};

}  // namespace maestrale
