// SPDX-License-Identifier: Apache-2.0
// Q4_K and Q5_K: 256 weights of 4 or 5 bits in 8 sub-blocks of 32, each with a 6-bit scale and minimum.
//
//   Q4_K, 144 bytes   | d f16 | dmin f16 | scales[12] | qs[128] |
//   Q5_K, 176 bytes   | d f16 | dmin f16 | scales[12] | qh[32] | qs[128] |
//
//   w[e] = d * scale[s] * q[e] - dmin * min[s]                        s = e / 32
//   qs[32p + l]:  low nibble of q[64p + l]   high nibble: of q[64p + 32 + l]     p = 0..3, l = 0..31
//   qh[l]:        bit s is the fifth bit of q[32s + l]
//
//   scales, 12 bytes = 8 x (scale, min):
//     [0..3]   scale[i]           in bits 0..5,  top two bits of scale[i + 4] in bits 6..7
//     [4..7]   min[i]             in bits 0..5,  top two bits of min[i + 4]   in bits 6..7
//     [8..11]  scale[i + 4] & 15  in bits 0..3,  min[i + 4] & 15              in bits 4..7
#pragma once

#include <cstdint>

#include "base/half.h"

namespace maestrale {

struct BlockQ4_K {
  static constexpr int kItems = 256;
  static constexpr int kSubItems = 32;
  static constexpr int kOffset = 0;
  uint16_t d, dmin;  // f16
  uint8_t scales[12];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ4_K) == 144);

struct BlockQ5_K {
  static constexpr int kItems = 256;
  static constexpr int kSubItems = 32;
  static constexpr int kOffset = 0;
  uint16_t d, dmin;  // f16
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

inline void unpack_nibbles_k(const uint8_t* qs, uint8_t* codes) {
  for (int p = 0; p < 4; ++p)
    for (int l = 0; l < 32; ++l) {
      codes[64 * p + l] = qs[32 * p + l] & 15;
      codes[64 * p + 32 + l] = qs[32 * p + l] >> 4;
    }
}

inline void unpack_codes(const BlockQ4_K& block, uint8_t* codes) { unpack_nibbles_k(block.qs, codes); }

inline void unpack_codes(const BlockQ5_K& block, uint8_t* codes) {
  unpack_nibbles_k(block.qs, codes);
  for (int s = 0; s < 8; ++s)
    for (int l = 0; l < 32; ++l) codes[32 * s + l] |= uint8_t(((block.qh[l] >> s) & 1) << 4);
}

// `packed` is the 12-byte field; scales and minima are 0..63.
inline void unpack_scales_6bit(const uint8_t* packed, int16_t* scales) {
  for (int i = 0; i < 4; ++i) {
    scales[i] = packed[i] & 63;
    scales[i + 4] = int16_t((packed[i + 8] & 15) | (packed[i] >> 6) << 4);
  }
}

inline void unpack_mins_6bit(const uint8_t* packed, int16_t* mins) {
  for (int i = 0; i < 4; ++i) {
    mins[i] = packed[i + 4] & 63;
    mins[i + 4] = int16_t((packed[i + 8] >> 4) | (packed[i + 4] >> 6) << 4);
  }
}

inline void unpack_scales(const BlockQ4_K& block, int16_t* scales) {
  unpack_scales_6bit(block.scales, scales);
}
inline void unpack_scales(const BlockQ5_K& block, int16_t* scales) {
  unpack_scales_6bit(block.scales, scales);
}
inline void unpack_mins(const BlockQ4_K& block, int16_t* mins) { unpack_mins_6bit(block.scales, mins); }
inline void unpack_mins(const BlockQ5_K& block, int16_t* mins) { unpack_mins_6bit(block.scales, mins); }

template <class Block>
void dequantize_scale_min(const Block& block, float* out) {
  uint8_t codes[Block::kItems];
  int16_t scales[8], mins[8];
  unpack_codes(block, codes);
  unpack_scales(block, scales);
  unpack_mins(block, mins);
  const float d = f16_to_f32(block.d), dmin = f16_to_f32(block.dmin);
  for (int e = 0; e < Block::kItems; ++e)
    out[e] = d * float(scales[e / 32]) * float(codes[e]) - dmin * float(mins[e / 32]);
}

inline void dequantize(const BlockQ4_K& block, float* out) { dequantize_scale_min(block, out); }
inline void dequantize(const BlockQ5_K& block, float* out) { dequantize_scale_min(block, out); }

}  // namespace maestrale
