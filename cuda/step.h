// SPDX-License-Identifier: Apache-2.0
// What a step's kernels know of its batch: tokens, RoPE angles, where keys and values go, what each row
// attends to. It goes to the device in one copy at the beginning of the step.
#pragma once

#include <span>
#include <vector>

#include "backend/backend.h"
#include "cuda/device.h"
#include "cuda/kernels.h"

namespace maestrale::cuda {

class Step {
 public:
  explicit Step(const Device& device) : upload_(device, "batch") {}

  void set_rope(std::span<const double> inv_freq) { inv_freq_.assign(inv_freq.begin(), inv_freq.end()); }

  // Sends `batch`, whose pages lie at distances of `page_elements` in the cache.
  void begin(const Batch& batch, const KvConfig& kv, int64_t page_elements);
  void landed() { upload_.landed(); }

  int32_t n_rows = 0;         // rows the operations work on
  DevicePointer tokens = 0;   // (rows) int
  DevicePointer angles = 0;   // (rows, head_dim / 2) cosine and sine
  DevicePointer slots = 0;    // (rows) int64: the element of the key of KV head 0 of layer 0
  DevicePointer queries = 0;  // (rows) Query
  DevicePointer pages = 0;    // page tables, one behind the other

 private:
  Upload upload_;
  std::vector<double> inv_freq_;  // (head_dim / 2)
};

}  // namespace maestrale::cuda
