// SPDX-License-Identifier: Apache-2.0
// From stored rows of any type to binary32, in the arithmetic that defines each format.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/types.h"

namespace maestrale {

// Writes the `cols` weights of one stored row to `out`. `row` needs no alignment and holds
// row_bytes(type, cols) bytes; `cols` is a multiple of the type's items_per_block.
void dequantize_row(QuantType type, const std::byte* row, int64_t cols, float* out);

}  // namespace maestrale
