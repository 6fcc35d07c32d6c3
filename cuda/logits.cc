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
  records_ = DeviceBuffer(device_, uint64_t(max_rows) * sizeof(TopRecord), "activations");
  tokens_ = {};
  tokens_ = DeviceBuffer(device_, uint64_t(max_rows) * sizeof(int32_t), "activations");
  grow(device_, host_records_, records_.bytes());
  grow(device_, host_tokens_, tokens_.bytes());
}

// The kernels behind the model's.
void Logits::launch(Tensor logits, std::span<const RowRequest> requests) {
  if (std::ranges::all_of(requests, &RowRequest::whole)) return;
  const int64_t n = int64_t(requests.size());
  kernels_.top_logits({.x = n, .block = 1024}, DevicePointer(uintptr_t(logits.data)), records_.address(),
                      int(logits.cols));
  if (std::ranges::none_of(requests, [](const RowRequest& r) { return r.draw.has_value(); })) return;
  // All rows draw, so that steps of as many rows share a graph; some of them for nobody.
  const uint64_t bytes = requests.size() * sizeof(DrawRequest);
  auto* draws = reinterpret_cast<DrawRequest*>(draws_.prepare(bytes));
  for (size_t i = 0; i < requests.size(); ++i) draws[i] = requests[i].draw.value_or(DrawRequest{});
  kernels_.draw_token({.x = n, .block = kTopLogits}, records_.address(), draws_.send(bytes),
                      tokens_.address());
}

void Logits::copy(Tensor logits, std::span<const RowRequest> requests) {
  const uint64_t row_bytes = uint64_t(logits.cols) * sizeof(float);
  const size_t n = requests.size();
  cols_ = size_t(logits.cols);
  forms_.clear();
  for (const RowRequest& r : requests)
    forms_.push_back(r.whole ? Form::kWhole : r.draw ? Form::kToken : Form::kHighest);
  if (std::ranges::count(forms_, Form::kWhole) > 0) grow(device_, host_rows_, n * row_bytes);
  launch(logits, requests);
  device_.launches().flush();

  const auto bring = [&](const PinnedBuffer& to, DevicePointer from, uint64_t item, size_t begin,
                         size_t end) {
    MAESTRALE_CU(device_, cuMemcpyDtoHAsync_v2, to.data() + begin * item, from + begin * item,
                 (end - begin) * item, device_.stream());
  };
  for (size_t begin = 0, end; begin < n; begin = end) {  // runs of rows of a form
    for (end = begin + 1; end < n && forms_[end] == forms_[begin];) ++end;
    switch (forms_[begin]) {
      case Form::kWhole: bring(host_rows_, row_at(logits, 0), row_bytes, begin, end); break;
      case Form::kHighest: bring(host_records_, records_.address(), sizeof(TopRecord), begin, end); break;
      case Form::kToken: bring(host_tokens_, tokens_.address(), sizeof(int32_t), begin, end); break;
    }
  }
}

// A step that was interrupted leaves anything here, which nobody looks at.
std::vector<LogitRow> Logits::rows() const {
  const auto* all = reinterpret_cast<const float*>(host_rows_.data());
  const auto* records = reinterpret_cast<const TopRecord*>(host_records_.data());
  const auto* tokens = reinterpret_cast<const int32_t*>(host_tokens_.data());
  std::vector<LogitRow> rows(forms_.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    if (forms_[i] == Form::kWhole) {
      rows[i].all = {all + i * cols_, cols_};
    } else if (forms_[i] == Form::kToken) {
      rows[i].token = tokens[i];
    } else {
      const TopRecord& record = records[i];
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
