// SPDX-License-Identifier: Apache-2.0
#include "cuda/logits.h"

#include <algorithm>

namespace maestrale::cuda {
namespace {

// At least `bytes`, which the stream must not be copying to.
void grow(const Device& device, PinnedBuffer& buffer, uint64_t bytes) {
  if (buffer.bytes() >= bytes) return;
  buffer = {};
  buffer = PinnedBuffer(device, bytes);
}

DevicePointer row_at(Tensor logits, int64_t i) {
  return DevicePointer(uintptr_t(logits.data)) + uint64_t(i * logits.cols) * sizeof(float);
}

}  // namespace

void Logits::prepare(int64_t max_rows) {
  records_ = {};
  records_ = DeviceBuffer(device_, device_bytes(max_rows), "activations");
  grow(device_, host_records_, records_.bytes());
}

void Logits::copy(Tensor logits, const std::vector<bool>& whole) {
  const uint64_t row_bytes = uint64_t(logits.cols) * sizeof(float);
  const size_t n = whole.size(), n_whole = size_t(std::count(whole.begin(), whole.end(), true));
  whole_ = whole;
  cols_ = size_t(logits.cols);
  if (n_whole > 0) grow(device_, host_rows_, n * row_bytes);
  if (n_whole < n)
    kernels_.top_logits({.x = int64_t(n), .block = 1024}, DevicePointer(uintptr_t(logits.data)),
                        records_.address(), int(logits.cols));
  device_.launches().flush();
  if (n_whole < n)
    MAESTRALE_CU(device_, cuMemcpyDtoHAsync_v2, host_records_.data(), records_.address(),
                 n * sizeof(TopRecord), device_.stream());
  for (size_t begin = 0, end; begin < n; begin = end) {  // runs of rows of a kind
    for (end = begin + 1; end < n && whole[end] == whole[begin];) ++end;
    if (whole[begin])
      MAESTRALE_CU(device_, cuMemcpyDtoHAsync_v2, host_rows_.data() + begin * row_bytes,
                   row_at(logits, int64_t(begin)), (end - begin) * row_bytes, device_.stream());
  }
}

std::vector<LogitRow> Logits::rows() const {
  const auto* all = reinterpret_cast<const float*>(host_rows_.data());
  const auto* records = reinterpret_cast<const TopRecord*>(host_records_.data());
  std::vector<LogitRow> rows(whole_.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    if (whole_[i]) {
      rows[i].all = {all + i * cols_, cols_};
    } else {
      const TopRecord& record = records[i];
      // A step that was interrupted leaves anything here, which nobody looks at.
      const size_t count = size_t(std::clamp(record.count, 0, kTopLogits));
      rows[i].top = {{record.tokens, count}, {record.logits, count}, record.rest};
    }
  }
  return rows;
}

std::span<const float> Logits::row(Tensor logits, int64_t i) {
  const uint64_t bytes = uint64_t(logits.cols) * sizeof(float);
  grow(device_, host_row_, bytes);
  MAESTRALE_CU(device_, cuMemcpyDtoHAsync_v2, host_row_.data(), row_at(logits, i), bytes, device_.stream());
  device_.synchronize();
  return {reinterpret_cast<const float*>(host_row_.data()), size_t(logits.cols)};
}

}  // namespace maestrale::cuda
