// SPDX-License-Identifier: Apache-2.0
#include "model/adapted_rows.h"

#include <cmath>

#include "quant/dequantize.h"

namespace maestrale {

AdaptedRows::AdaptedRows(const MatrixSource& base, std::span<const float> lora_a,
                         std::span<const float> lora_b, float scaling)
    : base_(base),
      lora_a_(lora_a),
      lora_b_(lora_b),
      scaling_(scaling),
      stored_(row_bytes(base.type, uint64_t(base.cols))),
      row_(size_t(base.cols)) {}

std::span<float> AdaptedRows::read(int64_t r) {
  base_.read_rows(r, 1, stored_.data());
  dequantize_row(base_.type, stored_.data(), base_.cols, row_.data());
  const size_t cols = row_.size(), rank = lora_a_.size() / cols;
  for (size_t k = 0; k < rank; ++k) {
    const float factor = scaling_ * lora_b_[size_t(r) * rank + k];
    for (size_t c = 0; c < cols; ++c) row_[c] += factor * lora_a_[k * cols + c];
  }
  return row_;
}

float row_length(std::span<const float> row) {
  double squares = 0.0;
  for (const float x : row) squares += double(x) * x;
  return float(std::sqrt(squares));
}

}  // namespace maestrale
