// SPDX-License-Identifier: Apache-2.0
// The weights of a model on the device: one allocation, filled matrix by matrix. Rows lie there as they are
// stored.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "cuda/device.h"

namespace maestrale::cuda {

class WeightMemory {
 public:
  explicit WeightMemory(const Device& device) : device_(device) {}

  // What load() will take of the reserved bytes.
  static uint64_t matrix_bytes(QuantType type, int64_t rows, int64_t cols);
  static int64_t row_stride(const Matrix& m) { return int64_t(row_bytes(m.type, uint64_t(m.cols))); }

  void reserve(uint64_t bytes) { memory_ = DeviceBuffer(device_, bytes, "weights"); }
  Matrix load(const MatrixSource& source);

 private:
  const Device& device_;
  DeviceBuffer memory_;
  uint64_t used_ = 0;  // bytes of memory_ handed out
};

}  // namespace maestrale::cuda
