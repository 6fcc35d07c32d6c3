// SPDX-License-Identifier: Apache-2.0
// IQ4_NL and IQ4_XS: 4-bit indices into a fixed non-linear table of 16 signed 8-bit values.
//
//   IQ4_NL, 18 bytes, 32 weights     | d f16 | qs[16] |                          w[i] = d * table[q[i]]
//   IQ4_XS, 136 bytes, 256 weights   | d f16 | scales_h u16 | scales_l[4] | qs[128] |
//                                    w[e] = d * scale[s] * table[q[e]]           s = e / 32
//
//   nibbles of each 32 weights as in Q4_0
//   scale[s] + 32 = nibble (s % 2) of scales_l[s / 2] | bits 2s of scales_h << 4
//
// unpack_codes() yields the table's values biased to unsigned (table + 128), so that both types look
// like Q8_0 to whoever multiplies; unpack_indices() yields the 4-bit indices themselves.
#pragma once

#include <cstdint>

#include "base/half.h"
#include "quant/q4_0.h"

namespace maestrale {

inline constexpr int8_t kIq4Table[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};

struct BlockIQ4_NL {
  static constexpr int kItems = 32;
  static constexpr int kOffset = 128;
  uint16_t d;  // f16
  uint8_t qs[16];
};
static_assert(sizeof(BlockIQ4_NL) == 18);

struct BlockIQ4_XS {
  static constexpr int kItems = 256;
  static constexpr int kSubItems = 32;
  static constexpr int kOffset = 128;
  uint16_t d;  // f16
  uint16_t scales_h;
  uint8_t scales_l[4];
  uint8_t qs[128];
};
static_assert(sizeof(BlockIQ4_XS) == 136);

inline void unpack_indices(const BlockIQ4_NL& block, uint8_t* indices) { unpack_nibbles(block.qs, indices); }

inline void unpack_indices(const BlockIQ4_XS& block, uint8_t* indices) {
  for (int s = 0; s < 8; ++s) unpack_nibbles(block.qs + 16 * s, indices + 32 * s);
}

template <class Block>
void unpack_codes_iq4(const Block& block, uint8_t* codes) {
  unpack_indices(block, codes);
  for (int i = 0; i < Block::kItems; ++i) codes[i] = uint8_t(kIq4Table[codes[i]] + Block::kOffset);
}

inline void unpack_codes(const BlockIQ4_NL& block, uint8_t* codes) { unpack_codes_iq4(block, codes); }
inline void unpack_codes(const BlockIQ4_XS& block, uint8_t* codes) { unpack_codes_iq4(block, codes); }

inline void unpack_scales(const BlockIQ4_XS& block, int16_t* scales) {
  for (int s = 0; s < 8; ++s) {
    const int low = (block.scales_l[s / 2] >> 4 * (s % 2)) & 15;
    const int high = (block.scales_h >> 2 * s) & 3;
    scales[s] = int16_t((low | high << 4) - 32);
  }
}

inline void dequantize(const BlockIQ4_NL& block, float* out) {
  uint8_t codes[BlockIQ4_NL::kItems];
  unpack_codes(block, codes);
  const float d = f16_to_f32(block.d);
  for (int i = 0; i < BlockIQ4_NL::kItems; ++i) out[i] = d * float(codes[i] - BlockIQ4_NL::kOffset);
}

inline void dequantize(const BlockIQ4_XS& block, float* out) {
  uint8_t codes[BlockIQ4_XS::kItems];
  int16_t scales[8];
  unpack_codes(block, codes);
  unpack_scales(block, scales);
  const float d = f16_to_f32(block.d);
  for (int e = 0; e < BlockIQ4_XS::kItems; ++e)
    out[e] = d * float(scales[e / 32]) * float(codes[e] - BlockIQ4_XS::kOffset);
}

}  // namespace maestrale
