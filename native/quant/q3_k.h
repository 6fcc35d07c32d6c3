// SPDX-License-Identifier: Apache-2.0
// Q3_K: 256 weights of 3 bits in 16 sub-blocks of 16, each with a signed 6-bit scale.
//
//   110 bytes   | hmask[32] | qs[64] | scales[12] | d f16 |
//
//   w[e] = d * scale[j] * (q[e] - 4)                                  j = e / 16
//   q[e] = two low bits from qs, packed as in Q2_K | bit (e / 32) of hmask[e % 32] << 2
//   scale[j] + 32 = four low bits | two high bits << 4:
//     scales[j],     j = 0..7:   low nibble: low bits of scale[j]    high nibble: of scale[j + 8]
//     scales[8 + i], i = 0..3:   bits 2t: high bits of scale[i + 4t], t = 0..3
#pragma once

#include <cstdint>

#include "base/half.h"
#include "quant/q2_k.h"

namespace maestrale {

struct BlockQ3_K {
  static constexpr int kItems = 256;
  static constexpr int kSubItems = 16;
  static constexpr int kOffset = 4;
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  uint16_t d;  // f16
};
static_assert(sizeof(BlockQ3_K) == 110);

inline void unpack_codes(const BlockQ3_K& block, uint8_t* codes) {
  unpack_crumbs(block.qs, codes);
  for (int g = 0; g < 8; ++g)
    for (int l = 0; l < 32; ++l) codes[32 * g + l] |= uint8_t(((block.hmask[l] >> g) & 1) << 2);
}

inline void unpack_scales(const BlockQ3_K& block, int16_t* scales) {
  for (int j = 0; j < 16; ++j) {
    const int low = j < 8 ? block.scales[j] & 15 : block.scales[j - 8] >> 4;
    const int high = (block.scales[8 + j % 4] >> 2 * (j / 4)) & 3;
    scales[j] = int16_t((low | high << 4) - 32);
  }
}

inline void dequantize(const BlockQ3_K& block, float* out) {
  uint8_t codes[BlockQ3_K::kItems];
  int16_t scales[16];
  unpack_codes(block, codes);
  unpack_scales(block, scales);
  const float d = f16_to_f32(block.d);
  for (int e = 0; e < BlockQ3_K::kItems; ++e)
    out[e] = d * float(scales[e / 16]) * float(codes[e] - BlockQ3_K::kOffset);
}

}  // namespace maestrale
