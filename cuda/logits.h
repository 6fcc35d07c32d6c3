// SPDX-License-Identifier: Apache-2.0
// The end of a step: logits on their way to the host, whole rows or their highest ones. The second is a
// sixtieth of the first for a vocabulary of 32,000.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "cuda/device.h"
#include "cuda/kernels.h"
#include "cuda/top_record.h"

namespace maestrale::cuda {

class Logits {
 public:
  Logits(const Device& device, const Kernels& kernels) : device_(device), kernels_(kernels) {}

  // Makes room for steps of up to `max_rows` rows.
  void prepare(int64_t max_rows);
  static uint64_t device_bytes(int64_t max_rows) { return uint64_t(max_rows) * sizeof(TopRecord); }

  // Gives the stream all that brings row i of `logits` to the host, for i < whole.size(): rows() when the
  // stream has been waited for, valid until the next copy().
  void copy(Tensor logits, const std::vector<bool>& whole);
  std::vector<LogitRow> rows() const;
  // All of row i, until the next call. Waits for the stream.
  std::span<const float> row(Tensor logits, int64_t i);

 private:
  const Device& device_;
  const Kernels& kernels_;
  DeviceBuffer records_;
  PinnedBuffer host_records_, host_rows_, host_row_;
  // Of the latest copy().
  std::vector<bool> whole_;
  size_t cols_ = 0;
};

}  // namespace maestrale::cuda
