// SPDX-License-Identifier: Apache-2.0
// Weights on the device: one allocation, filled matrix by matrix. Tables and matrices of F32 lie there as
// they are stored, others in the stripes of tile_layout.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "backend/backend.h"
#include "cuda/device.h"
#include "cuda/kernels.h"

namespace maestrale::cuda {

class WeightMemory {
 public:
  // Filled by the thread that may use `launches`.
  WeightMemory(const Device& device, const Kernels& kernels, Launches& launches)
      : device_(device), kernels_(kernels), launches_(launches) {}

  // What load_matrix() and load_table() will take of the reserved bytes.
  static uint64_t matrix_bytes(QuantType type, int64_t rows, int64_t cols);
  static uint64_t table_bytes(QuantType type, int64_t rows, int64_t cols);
  static int64_t row_stride(const Matrix& m) { return int64_t(row_bytes(m.type, uint64_t(m.cols))); }

  void reserve(uint64_t bytes, const char* purpose = "weights") {
    memory_ = DeviceBuffer(device_, bytes, purpose);
  }
  Matrix load_matrix(const MatrixSource& source);
  Matrix load_table(const MatrixSource& source);
  // Rows of multiples of kPieceBytes: the first pieces of all rows, their second, ...
  Matrix load_pieces(const MatrixSource& source);
  Tensor load_vector(std::span<const float> values);
  // Copies to any place on the device.
  void copy(std::span<const std::byte> bytes, DevicePointer to);
  // After the last one: gives back what loading needed.
  void finish() { staging_ = {}; }
  uint64_t bytes() const { return used_; }

 private:
  DevicePointer take(uint64_t bytes);
  std::byte* stage(uint64_t bytes);
  // Copies the rows of `source` to `to`, some at a time; then_do(first, n) follows each copy in the stream.
  template <class Then>
  void copy_rows(const MatrixSource& source, int64_t rows_at_once, DevicePointer to, int64_t step,
                 Then then_do);

  const Device& device_;
  const Kernels& kernels_;
  Launches& launches_;
  DeviceBuffer memory_;
  PinnedBuffer staging_;
  uint64_t used_ = 0;  // bytes of memory_ handed out
};

}  // namespace maestrale::cuda
