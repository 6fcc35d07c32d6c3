// SPDX-License-Identifier: Apache-2.0
// The rows of base + scaling * lora_b * lora_a (LoRA, Hu 2021) in binary32: what merging writes, and what
// DoRA (Liu 2024) takes lengths of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "quant/matrix_source.h"

namespace maestrale {

// For one thread. `base` and the matrices, lora_a (rank, cols) and lora_b (rows, rank), must outlive it.
class AdaptedRows {
 public:
  AdaptedRows(const MatrixSource& base, std::span<const float> lora_a, std::span<const float> lora_b,
              float scaling);

  // Row `r`, (cols), valid until the next call.
  std::span<float> read(int64_t r);

 private:
  const MatrixSource& base_;
  const std::span<const float> lora_a_, lora_b_;
  const float scaling_;
  std::vector<std::byte> stored_;
  std::vector<float> row_;
};

// The square root of the sum of squares.
float row_length(std::span<const float> row);

}  // namespace maestrale
