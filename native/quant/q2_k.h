// SPDX-License-Identifier: Apache-2.0
// Q2_K: 256 weights of 2 bits in 16 sub-blocks of 16, each with a 4-bit scale and a 4-bit minimum.
//
//   84 bytes   | scales[16] | qs[64] | d f16 | dmin f16 |
//
//   w[e] = d * scale[j] * q[e] - dmin * min[j]                        j = e / 16
//   scales[j]:  low nibble scale[j]   high nibble min[j]
//   qs[32h + l] holds q[128h + l + 32g] at bits 2g, g = 0..3          h = 0..1, l = 0..31
#pragma once

#include <cstdint>

#include "base/half.h"

namespace maestrale {

struct BlockQ2_K {
  static constexpr int kItems = 256;
  static constexpr int kSubItems = 16;
  static constexpr int kOffset = 0;
  uint8_t scales[16];
  uint8_t qs[64];
  uint16_t d, dmin;  // f16
};
static_assert(sizeof(BlockQ2_K) == 84);

// 64 bytes of 2-bit codes to 256 codes in element order; Q3_K stores its low bits the same way.
inline void unpack_crumbs(const uint8_t* qs, uint8_t* codes) {
  for (int h = 0; h < 2; ++h)
    for (int g = 0; g < 4; ++g)
      for (int l = 0; l < 32; ++l) codes[128 * h + 32 * g + l] = (qs[32 * h + l] >> 2 * g) & 3;
}

inline void unpack_codes(const BlockQ2_K& block, uint8_t* codes) { unpack_crumbs(block.qs, codes); }

inline void unpack_scales(const BlockQ2_K& block, int16_t* scales) {
  for (int j = 0; j < 16; ++j) scales[j] = block.scales[j] & 15;
}

inline void unpack_mins(const BlockQ2_K& block, int16_t* mins) {
  for (int j = 0; j < 16; ++j) mins[j] = block.scales[j] >> 4;
}

inline void dequantize(const BlockQ2_K& block, float* out) {
  uint8_t codes[BlockQ2_K::kItems];
  int16_t scales[16], mins[16];
  unpack_codes(block, codes);
  unpack_scales(block, scales);
  unpack_mins(block, mins);
  const float d = f16_to_f32(block.d), dmin = f16_to_f32(block.dmin);
  for (int e = 0; e < BlockQ2_K::kItems; ++e)
    out[e] = d * float(scales[e / 16]) * float(codes[e]) - dmin * float(mins[e / 16]);
}

}  // namespace maestrale
