// SPDX-License-Identifier: Apache-2.0
// Q8_0: 32 weights of 8 bits with one scale.
//
//   34 bytes   | d f16 | qs[32] signed |     w[i] = d * qs[i]
//
// Quantisers write -127..127, but files may hold -128. Codes are biased to unsigned: qs + 128.
#pragma once

#include <cstdint>

#include "base/half.h"

namespace maestrale {

struct BlockQ8_0 {
  static constexpr int kItems = 32;
  static constexpr int kOffset = 128;
  uint16_t d;  // f16
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

inline void unpack_codes(const BlockQ8_0& block, uint8_t* codes) {
  for (int i = 0; i < BlockQ8_0::kItems; ++i) codes[i] = uint8_t(block.qs[i]) ^ 0x80;
}

inline void dequantize(const BlockQ8_0& block, float* out) {
  uint8_t codes[BlockQ8_0::kItems];
  unpack_codes(block, codes);
  const float d = f16_to_f32(block.d);
  for (int i = 0; i < BlockQ8_0::kItems; ++i) out[i] = d * float(codes[i] - BlockQ8_0::kOffset);
}

}  // namespace maestrale
