// SPDX-License-Identifier: Apache-2.0
// Where the rows of a weight matrix come from while a model loads. A source may read a file, permute
// rows, or quantise on the fly; backends only see rows of blocks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/types.h"

namespace maestrale {

class MatrixSource {
 public:
  MatrixSource(QuantType quant_type, int64_t n_rows, int64_t n_cols)
      : type(quant_type), rows(n_rows), cols(n_cols) {}
  virtual ~MatrixSource() = default;

  // Writes rows [first_row, first_row + n_rows) as n_rows * row_bytes(type, cols) bytes to `out`.
  // Called from several threads at once. Throws Error on a read failure.
  virtual void read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const = 0;

  const QuantType type;
  const int64_t rows;  // output features
  const int64_t cols;  // input features, contiguous
};

}  // namespace maestrale
