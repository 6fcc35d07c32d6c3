// SPDX-License-Identifier: Apache-2.0
// The end of a step: logits on their way to the host, whole rows, their highest ones or what is drawn from
// these. The second is a sixtieth of the first for a vocabulary of 32,000, the third four bytes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "base/draw_request.h"
#include "cuda/device.h"
#include "cuda/kernels.h"
#include "cuda/top_record.h"

namespace maestrale::cuda {

class Logits {
 public:
  Logits(const Device& device, const Kernels& kernels)
      : device_(device), kernels_(kernels), draws_(device, "batch") {}

  // Makes room for steps of up to `max_rows` rows.
  void prepare(int64_t max_rows);
  static uint64_t device_bytes(int64_t max_rows) {
    return uint64_t(max_rows) * (sizeof(TopRecord) + sizeof(int32_t)) +
           Upload::capacity(uint64_t(max_rows) * sizeof(DrawRequest));
  }

  // Gives the stream all that brings what is asked of each row of `logits` to the host: rows() when the
  // stream has been waited for, valid until the next copy().
  void copy(Tensor logits, std::span<const RowRequest> requests);
  void landed() { draws_.landed(); }  // told when it has been
  std::vector<LogitRow> rows() const;
  // All of row i, until the next call. Waits for the stream.
  std::span<const float> row(Tensor logits, int64_t i);

 private:
  void launch(Tensor logits, std::span<const RowRequest> requests);

  const Device& device_;
  const Kernels& kernels_;
  DeviceBuffer records_, tokens_;
  PinnedBuffer host_records_, host_tokens_, host_rows_, host_row_;
  Upload draws_;
  // Of the latest copy().
  enum class Form { kWhole, kHighest, kToken };
  std::vector<Form> forms_;
  size_t cols_ = 0;
};

}  // namespace maestrale::cuda
