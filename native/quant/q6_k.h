// SPDX-License-Identifier: Apache-2.0
// Q6_K: 256 weights of 6 bits in 16 sub-blocks of 16, each with a signed 8-bit scale.
//
//   210 bytes   | ql[128] | qh[64] | scales[16] signed | d f16 |
//
//   w[e] = d * scale[e / 16] * (q[e] - 32)
//   e = 128h + 32g + l                                                h = 0..1, g = 0..3, l = 0..31
//   q[e] = nibble (low for g < 2, high otherwise) of ql[64h + 32(g % 2) + l] | bits 2g of qh[32h + l] << 4
#pragma once

#include <cstdint>

#include "base/half.h"

namespace maestrale {

struct BlockQ6_K {
  static constexpr int kItems = 256;
  static constexpr int kSubItems = 16;
  static constexpr int kOffset = 32;
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d;  // f16
};
static_assert(sizeof(BlockQ6_K) == 210);

inline void unpack_codes(const BlockQ6_K& block, uint8_t* codes) {
  for (int h = 0; h < 2; ++h)
    for (int g = 0; g < 4; ++g) {
      const uint8_t* low = block.ql + 64 * h + 32 * (g % 2);
      const uint8_t* high = block.qh + 32 * h;
      for (int l = 0; l < 32; ++l)
        codes[128 * h + 32 * g + l] = uint8_t(((low[l] >> 4 * (g / 2)) & 15) | ((high[l] >> 2 * g) & 3) << 4);
    }
}

inline void unpack_scales(const BlockQ6_K& block, int16_t* scales) {
  for (int j = 0; j < 16; ++j) scales[j] = block.scales[j];
}

inline void dequantize(const BlockQ6_K& block, float* out) {
  uint8_t codes[BlockQ6_K::kItems];
  int16_t scales[16];
  unpack_codes(block, codes);
  unpack_scales(block, scales);
  const float d = f16_to_f32(block.d);
  for (int e = 0; e < BlockQ6_K::kItems; ++e)
    out[e] = d * float(scales[e / 16]) * float(codes[e] - BlockQ6_K::kOffset);
}

}  // namespace maestrale
