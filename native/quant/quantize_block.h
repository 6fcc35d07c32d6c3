// SPDX-License-Identifier: Apache-2.0
// The quantisers of single blocks, the counterpart of dequantize(block, out), and the rounding they
// share. All arithmetic is binary32 without contraction, so the blocks are the same on every machine.
// The weights `in` are finite and no larger than binary16 holds (kLargestWeight), so no sum overflows.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base/half.h"
#include "quant/blocks.h"

namespace maestrale {

inline constexpr float kLargestWeight = 65504.0f;

void quantize(const float* in, BlockQ4_0& block);
void quantize(const float* in, BlockQ4_1& block);
void quantize(const float* in, BlockQ5_0& block);
void quantize(const float* in, BlockQ5_1& block);
void quantize(const float* in, BlockQ8_0& block);
void quantize(const float* in, BlockQ2_K& block);
void quantize(const float* in, BlockQ3_K& block);
void quantize(const float* in, BlockQ4_K& block);
void quantize(const float* in, BlockQ5_K& block);
void quantize(const float* in, BlockQ6_K& block);

// To the nearest integer, ties to even, for |x| < 2^22: beyond 2^23 binary32 has no fraction bits.
inline float round_even(float x) { return (x + 0x1.8p23f) - 0x1.8p23f; }

// round_even(x) in [low, high], for any x.
inline float round_clamped(float x, float low, float high) {
  return round_even(std::min(std::max(x, low), high));
}

}  // namespace maestrale
