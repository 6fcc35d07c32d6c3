// SPDX-License-Identifier: Apache-2.0
// What a step's kernels know of its rows: tokens, RoPE angles, where keys and values go. It goes to the
// device in one copy at the beginning of the step.
#pragma once

#include <span>
#include <vector>

#include "backend/backend.h"
#include "cuda/device.h"

namespace maestrale::cuda {

class Step {
 public:
  explicit Step(const Device& device) : upload_(device, "batch") {}

  void set_rope(std::span<const double> inv_freq) { inv_freq_.assign(inv_freq.begin(), inv_freq.end()); }

  void begin(const Batch& batch);
  void landed() { upload_.landed(); }

  bool decodes = false;      // no sequence has more than one row
  int32_t n_rows = 0;        // rows the operations work on
  DevicePointer tokens = 0;  // (rows) int
  DevicePointer angles = 0;  // (rows, head_dim / 2) cosine and sine
  DevicePointer slots = 0;   // (rows) int64: page * kPagePositions + position within the page

 private:
  Upload upload_;
  std::vector<double> inv_freq_;  // (head_dim / 2)
};

}  // namespace maestrale::cuda
