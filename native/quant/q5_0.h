// SPDX-License-Identifier: Apache-2.0
// Q5_0 and Q5_1: 32 weights of 5 bits; the fifth bits lie together in one 32-bit word.
//
//   Q5_0, 22 bytes   | d f16 | qh[4] | qs[16]         |     w[i] = d * (q[i] - 16)
//   Q5_1, 24 bytes   | d f16 | m f16 | qh[4] | qs[16] |     w[i] = d * q[i] + m
//
//   q[i] = nibble[i] | bit i of qh << 4     (qh little-endian, nibbles as in Q4_0)
#pragma once

#include <cstdint>
#include <cstring>

#include "base/half.h"
#include "quant/q4_0.h"

namespace maestrale {

struct BlockQ5_0 {
  static constexpr int kItems = 32;
  static constexpr int kOffset = 16;
  uint16_t d;  // f16
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

struct BlockQ5_1 {
  static constexpr int kItems = 32;
  static constexpr int kOffset = 0;
  uint16_t d, m;  // f16
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

template <class Block>
void unpack_codes_5bit(const Block& block, uint8_t* codes) {
  uint32_t high;
  std::memcpy(&high, block.qh, 4);
  unpack_nibbles(block.qs, codes);
  for (int i = 0; i < Block::kItems; ++i) codes[i] |= uint8_t(((high >> i) & 1) << 4);
}

inline void unpack_codes(const BlockQ5_0& block, uint8_t* codes) { unpack_codes_5bit(block, codes); }
inline void unpack_codes(const BlockQ5_1& block, uint8_t* codes) { unpack_codes_5bit(block, codes); }

inline void dequantize(const BlockQ5_0& block, float* out) {
  uint8_t codes[BlockQ5_0::kItems];
  unpack_codes(block, codes);
  const float d = f16_to_f32(block.d);
  for (int i = 0; i < BlockQ5_0::kItems; ++i) out[i] = d * float(codes[i] - BlockQ5_0::kOffset);
}

inline void dequantize(const BlockQ5_1& block, float* out) {
  uint8_t codes[BlockQ5_1::kItems];
  unpack_codes(block, codes);
  const float d = f16_to_f32(block.d), m = f16_to_f32(block.m);
  for (int i = 0; i < BlockQ5_1::kItems; ++i) out[i] = d * float(codes[i]) + m;
}

}  // namespace maestrale
