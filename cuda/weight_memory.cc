// SPDX-License-Identifier: Apache-2.0
#include "cuda/weight_memory.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace maestrale::cuda {
namespace {

constexpr uint64_t kAlignment = 256;
constexpr uint64_t kStagingBytes = uint64_t{4} << 20;

}  // namespace

uint64_t WeightMemory::matrix_bytes(QuantType type, int64_t rows, int64_t cols) {
  const uint64_t bytes = uint64_t(rows) * row_bytes(type, uint64_t(cols));
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

Matrix WeightMemory::load(const MatrixSource& source) {
  const uint64_t row = row_bytes(source.type, uint64_t(source.cols));
  const uint64_t bytes = matrix_bytes(source.type, source.rows, source.cols);
  if (used_ + bytes > memory_.bytes())
    throw Error(ErrorCode::kInternal, "reserve_weights was given " + std::to_string(memory_.bytes()) +
                                          " bytes, at least " + std::to_string(used_ + bytes) +
                                          " are needed");
  const DevicePointer at = memory_.address() + used_;
  const int64_t rows_at_once = std::clamp<int64_t>(int64_t(kStagingBytes / row), 1, source.rows);
  const PinnedBuffer staging(device_, uint64_t(rows_at_once) * row);
  for (int64_t first = 0; first < source.rows; first += rows_at_once) {
    const int64_t n = std::min(rows_at_once, source.rows - first);
    source.read_rows(first, n, staging.data());
    MAESTRALE_CU(device_, cuMemcpyHtoDAsync_v2, at + uint64_t(first) * row, staging.data(),
                 size_t(uint64_t(n) * row), device_.stream());
    device_.synchronize();
  }
  used_ += bytes;
  return {source.type, source.rows, source.cols, reinterpret_cast<const std::byte*>(uintptr_t(at))};
}

}  // namespace maestrale::cuda
