// SPDX-License-Identifier: Apache-2.0
// Q4_0 and Q4_1: 32 weights of 4 bits with one scale (and, for Q4_1, one minimum).
//
//   Q4_0, 18 bytes   | d f16 | qs[16]         |     w[i] = d * (q[i] - 8)
//   Q4_1, 20 bytes   | d f16 | m f16 | qs[16] |     w[i] = d * q[i] + m
//
//   qs[k], k = 0..15:   low nibble q[k]   high nibble q[k + 16]
#pragma once

#include <cstdint>

#include "base/half.h"

namespace maestrale {

struct BlockQ4_0 {
  static constexpr int kItems = 32;
  static constexpr int kOffset = 8;  // what unpack_codes() adds to the signed weight
  uint16_t d;                        // f16
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

struct BlockQ4_1 {
  static constexpr int kItems = 32;
  static constexpr int kOffset = 0;
  uint16_t d, m;  // f16
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

// 16 bytes of nibbles to 32 codes in element order; Q5_0, Q5_1 and IQ4_NL store them the same way.
inline void unpack_nibbles(const uint8_t* qs, uint8_t* codes) {
  for (int k = 0; k < 16; ++k) {
    codes[k] = qs[k] & 15;
    codes[k + 16] = qs[k] >> 4;
  }
}

inline void unpack_codes(const BlockQ4_0& block, uint8_t* codes) { unpack_nibbles(block.qs, codes); }
inline void unpack_codes(const BlockQ4_1& block, uint8_t* codes) { unpack_nibbles(block.qs, codes); }

inline void dequantize(const BlockQ4_0& block, float* out) {
  uint8_t codes[BlockQ4_0::kItems];
  unpack_codes(block, codes);
  const float d = f16_to_f32(block.d);
  for (int i = 0; i < BlockQ4_0::kItems; ++i) out[i] = d * float(codes[i] - BlockQ4_0::kOffset);
}

inline void dequantize(const BlockQ4_1& block, float* out) {
  uint8_t codes[BlockQ4_1::kItems];
  unpack_codes(block, codes);
  const float d = f16_to_f32(block.d), m = f16_to_f32(block.m);
  for (int i = 0; i < BlockQ4_1::kItems; ++i) out[i] = d * float(codes[i]) + m;
}

}  // namespace maestrale
