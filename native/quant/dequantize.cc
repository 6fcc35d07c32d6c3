// SPDX-License-Identifier: Apache-2.0
// Rows of blocks to binary32: one loop over the blocks of a row for every type.
#include "quant/dequantize.h"

#include <cstring>

#include "base/half.h"
#include "quant/blocks.h"

namespace maestrale {

namespace {

template <float (*convert)(uint16_t)>
void convert_row(const std::byte* row, int64_t cols, float* out) {
  for (int64_t i = 0; i < cols; ++i) {
    uint16_t half;
    std::memcpy(&half, row + 2 * i, 2);
    out[i] = convert(half);
  }
}

template <class Block>
void dequantize_blocks(const std::byte* row, int64_t cols, float* out) {
  for (int64_t i = 0; i < cols; i += Block::kItems, row += sizeof(Block)) {
    Block block;  // a copy: rows of a file are not aligned
    std::memcpy(&block, row, sizeof(block));
    dequantize(block, out + i);
  }
}

}  // namespace

void dequantize_row(QuantType type, const std::byte* row, int64_t cols, float* out) {
  switch (type) {
    case QuantType::kF32: std::memcpy(out, row, size_t(cols) * 4); return;
    case QuantType::kF16: return convert_row<f16_to_f32>(row, cols, out);
    case QuantType::kBF16: return convert_row<bf16_to_f32>(row, cols, out);
    default: return visit_block(type, [&]<class Block>() { dequantize_blocks<Block>(row, cols, out); });
  }
}

}  // namespace maestrale
