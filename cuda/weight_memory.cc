// SPDX-License-Identifier: Apache-2.0
#include "cuda/weight_memory.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/integer.h"
#include "cuda/low_rank_args.h"
#include "cuda/products.h"
#include "cuda/tile_layout.h"

namespace maestrale::cuda {
namespace {

constexpr uint64_t kAlignment = 256;
constexpr uint64_t kVectorAlignment = 64;  // see AdapterOps::reserve_adapter
constexpr uint64_t kStagingBytes = uint64_t{4} << 20;

uint64_t aligned(uint64_t bytes) { return round_up(bytes, kAlignment); }
uint64_t unit_bytes(QuantType type) {
  if (type == QuantType::kF16) return TileF16::kBytes;
  if (type == QuantType::kBF16) return TileBF16::kBytes;
  return kStripeRows * row_bytes(type, kUnitCols);
}
uint64_t stripe_bytes(QuantType type, int64_t cols) { return uint64_t(units_of(cols)) * unit_bytes(type); }

}  // namespace

uint64_t WeightMemory::table_bytes(QuantType type, int64_t rows, int64_t cols) {
  return aligned(uint64_t(rows) * row_bytes(type, uint64_t(cols)));
}

uint64_t WeightMemory::matrix_bytes(QuantType type, int64_t rows, int64_t cols) {
  if (!is_tiled(type)) return table_bytes(type, rows, cols);
  return aligned(uint64_t(ceil_div(rows, kStripeRows)) * stripe_bytes(type, cols));
}

DevicePointer WeightMemory::take(uint64_t bytes) {
  if (used_ + bytes > memory_.bytes())
    throw Error(ErrorCode::kInternal, "reserve_weights was given " + std::to_string(memory_.bytes()) +
                                          " bytes, at least " + std::to_string(used_ + bytes) +
                                          " are needed");
  const DevicePointer at = memory_.address() + used_;
  used_ += bytes;
  return at;
}

// Pinned memory that no copy reads.
std::byte* WeightMemory::stage(uint64_t bytes) {
  if (staging_.bytes() < bytes) {
    staging_ = {};
    staging_ = PinnedBuffer(device_, bytes);
  }
  return staging_.data();
}

void WeightMemory::copy(std::span<const std::byte> bytes, DevicePointer to) {
  std::memcpy(stage(bytes.size()), bytes.data(), bytes.size());
  MAESTRALE_CU(device_, cuMemcpyHtoDAsync_v2, to, staging_.data(), bytes.size(), launches_.stream());
  launches_.synchronize();
}

Tensor WeightMemory::load_vector(std::span<const float> values) {
  const DevicePointer at = take(round_up(values.size_bytes(), kVectorAlignment));
  copy(std::as_bytes(values), at);
  return {reinterpret_cast<float*>(uintptr_t(at)), int64_t(values.size())};
}

template <class Then>
void WeightMemory::copy_rows(const MatrixSource& source, int64_t rows_at_once, DevicePointer to, int64_t step,
                             Then then_do) {
  const uint64_t row = row_bytes(source.type, uint64_t(source.cols));
  std::byte* staging = stage(uint64_t(rows_at_once) * row);
  for (int64_t first = 0; first < source.rows; first += rows_at_once) {
    const int64_t n = std::min(rows_at_once, source.rows - first);
    source.read_rows(first, n, staging);
    MAESTRALE_CU(device_, cuMemcpyHtoDAsync_v2, to + uint64_t(first * step), staging,
                 size_t(uint64_t(n) * row), launches_.stream());
    then_do(first, n);
    launches_.synchronize();
  }
}

Matrix WeightMemory::load_table(const MatrixSource& source) {
  const int64_t row = int64_t(row_bytes(source.type, uint64_t(source.cols)));
  const DevicePointer at = take(table_bytes(source.type, source.rows, source.cols));
  const int64_t rows_at_once = std::clamp<int64_t>(int64_t(kStagingBytes) / row, 1, source.rows);
  copy_rows(source, rows_at_once, at, row, [](int64_t, int64_t) {});
  return {source.type, source.rows, source.cols, reinterpret_cast<const std::byte*>(uintptr_t(at))};
}

Matrix WeightMemory::load_pieces(const MatrixSource& source) {
  const uint64_t row = row_bytes(source.type, uint64_t(source.cols));
  const DevicePointer at = take(table_bytes(source.type, source.rows, source.cols));
  const int64_t rows_at_once = std::clamp<int64_t>(int64_t(kStagingBytes / row), 1, source.rows);
  std::vector<std::byte> rows(uint64_t(rows_at_once) * row);
  std::byte* staging = stage(rows.size());
  for (int64_t first = 0; first < source.rows; first += rows_at_once) {
    const uint64_t n = uint64_t(std::min(rows_at_once, source.rows - first));
    source.read_rows(first, int64_t(n), rows.data());
    for (uint64_t piece = 0; piece < row / kPieceBytes; ++piece) {
      std::byte* pieces = staging + piece * n * kPieceBytes;
      for (uint64_t r = 0; r < n; ++r)
        std::memcpy(pieces + r * kPieceBytes, rows.data() + r * row + piece * kPieceBytes, kPieceBytes);
      MAESTRALE_CU(device_, cuMemcpyHtoDAsync_v2,
                   at + (piece * uint64_t(source.rows) + uint64_t(first)) * kPieceBytes, pieces,
                   size_t(n * kPieceBytes), launches_.stream());
    }
    launches_.synchronize();
  }
  return {source.type, source.rows, source.cols, reinterpret_cast<const std::byte*>(uintptr_t(at))};
}

Matrix WeightMemory::load_matrix(const MatrixSource& source) {
  if (!is_tiled(source.type)) return load_table(source);
  const int64_t row = int64_t(row_bytes(source.type, uint64_t(source.cols)));
  const DevicePointer at = take(matrix_bytes(source.type, source.rows, source.cols));
  const int64_t stripes = std::max<int64_t>(1, int64_t(kStagingBytes) / (kStripeRows * row));
  const int64_t rows_at_once = std::min(kStripeRows * stripes, source.rows);
  const DeviceBuffer stored(device_, uint64_t(rows_at_once * row), "loading weights");
  copy_rows(source, rows_at_once, stored.address(), 0, [&](int64_t first, int64_t n) {
    const uint64_t to = at + uint64_t(first / kStripeRows) * stripe_bytes(source.type, source.cols);
    kernels_.repack[type_index(source.type)].in(launches_,
                                                {units_of(source.cols), ceil_div(n, kStripeRows), 128},
                                                stored.address(), to, int(n), int(source.cols), row);
  });
  return {source.type, source.rows, source.cols, reinterpret_cast<const std::byte*>(uintptr_t(at))};
}

}  // namespace maestrale::cuda
