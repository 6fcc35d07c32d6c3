// SPDX-License-Identifier: Apache-2.0
// Rows of binary32 to rows of any stored type: one loop over the blocks of a row.
#include "quant/quantize.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

#include "base/error.h"
#include "quant/quantize_block.h"

namespace maestrale {

namespace {

template <uint16_t (*convert)(float)>
void convert_row(const float* in, int64_t cols, std::byte* out) {
  for (int64_t i = 0; i < cols; ++i) {
    const uint16_t half = convert(in[i]);
    std::memcpy(out + 2 * i, &half, 2);
  }
}

template <class Block>
void quantize_blocks(const float* in, int64_t cols, std::byte* out) {
  for (int64_t i = 0; i < cols; i += Block::kItems, out += sizeof(Block)) {
    Block block;
    quantize(in + i, block);
    std::memcpy(out, &block, sizeof(block));
  }
}

void check_weights(const float* in, int64_t cols, float largest) {
  for (int64_t i = 0; i < cols; ++i)
    if (!(std::fabs(in[i]) <= largest))
      throw Error(ErrorCode::kModelFormat, "the weight in column " + std::to_string(i) + " is " +
                                               std::to_string(in[i]) + " and cannot be quantised");
}

}  // namespace

void quantize_row(QuantType type, const float* in, int64_t cols, std::byte* out) {
  if (!can_quantize(type))
    throw Error(ErrorCode::kInvalidArg,
                "cannot quantise to " + std::string(quant_traits(type).name) + ", which is only read");
  const bool wide = type == QuantType::kF32 || type == QuantType::kBF16;
  check_weights(in, cols,
                wide                 ? std::numeric_limits<float>::max()
                : is_gguf_type(type) ? kLargestWeight
                                     : kLargestFourBitScale);
  switch (type) {
    case QuantType::kF32: std::memcpy(out, in, size_t(cols) * 4); return;
    case QuantType::kF16: return convert_row<f32_to_f16>(in, cols, out);
    case QuantType::kBF16: return convert_row<f32_to_bf16>(in, cols, out);
    default: break;
  }
  visit_block(type, [&]<class Block>() {
    if constexpr (!std::is_same_v<Block, BlockIQ4_NL> && !std::is_same_v<Block, BlockIQ4_XS>)
      quantize_blocks<Block>(in, cols, out);
  });
}

}  // namespace maestrale
