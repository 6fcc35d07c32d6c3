// SPDX-License-Identifier: Apache-2.0
// Quantisers of the 32-weight blocks. Their scale follows directly from the extreme values of the block:
//
//   Q4_0, Q5_0   d = m / -2^(bits-1), m the weight of largest magnitude with its sign: it gets the lowest
//                code, which reaches one step further than the highest
//   Q4_1, Q5_1   d = (max - min) / (2^bits - 1), m = min
//   Q8_0         d = max |w| / 127
//
// Codes are computed with the unrounded d; only the stored d is rounded to binary16.
#include <algorithm>
#include <cstring>
#include <utility>

#include "quant/quantize_block.h"

namespace maestrale {

namespace {

constexpr int kItems = 32;

// 0 for a block of zeros, and for one so small that d becomes 0 in binary16 anyway.
float inverse(float d) { return std::fabs(d) > 0x1p-100f ? 1.0f / d : 0.0f; }

void pack_nibbles(const uint8_t* codes, uint8_t* qs) {
  for (int k = 0; k < 16; ++k) qs[k] = uint8_t((codes[k] & 15) | (codes[k + 16] & 15) << 4);
}

void pack_fifth_bits(const uint8_t* codes, uint8_t* qh) {
  uint32_t high = 0;
  for (int i = 0; i < kItems; ++i) high |= uint32_t(codes[i] >> 4) << i;
  std::memcpy(qh, &high, 4);
}

// Codes w / d + offset rounded half up, of codes 0 .. 2 * offset - 1; returns the unrounded d.
float quantize_symmetric(const float* in, int offset, uint8_t* codes) {
  float extreme = 0.0f;
  for (int i = 0; i < kItems; ++i)
    if (std::fabs(in[i]) > std::fabs(extreme)) extreme = in[i];
  const float d = extreme / float(-offset), id = inverse(d);
  for (int i = 0; i < kItems; ++i)
    codes[i] = uint8_t(std::clamp(int(in[i] * id + (float(offset) + 0.5f)), 0, 2 * offset - 1));
  return d;
}

// Codes (w - min) / d rounded half up, of codes 0 .. top; returns {unrounded d, min}.
std::pair<float, float> quantize_from_min(const float* in, int top, uint8_t* codes) {
  const auto [min, max] = std::minmax_element(in, in + kItems);
  const float d = (*max - *min) / float(top), id = inverse(d);
  for (int i = 0; i < kItems; ++i) codes[i] = uint8_t(std::clamp(int((in[i] - *min) * id + 0.5f), 0, top));
  return {d, *min};
}

}  // namespace

void quantize(const float* in, BlockQ4_0& block) {
  uint8_t codes[kItems];
  block.d = f32_to_f16(quantize_symmetric(in, BlockQ4_0::kOffset, codes));
  pack_nibbles(codes, block.qs);
}

void quantize(const float* in, BlockQ4_1& block) {
  uint8_t codes[kItems];
  const auto [d, m] = quantize_from_min(in, 15, codes);
  block.d = f32_to_f16(d);
  block.m = f32_to_f16(m);
  pack_nibbles(codes, block.qs);
}

void quantize(const float* in, BlockQ5_0& block) {
  uint8_t codes[kItems];
  block.d = f32_to_f16(quantize_symmetric(in, BlockQ5_0::kOffset, codes));
  pack_nibbles(codes, block.qs);
  pack_fifth_bits(codes, block.qh);
}

void quantize(const float* in, BlockQ5_1& block) {
  uint8_t codes[kItems];
  const auto [d, m] = quantize_from_min(in, 31, codes);
  block.d = f32_to_f16(d);
  block.m = f32_to_f16(m);
  pack_nibbles(codes, block.qs);
  pack_fifth_bits(codes, block.qh);
}

void quantize(const float* in, BlockQ8_0& block) {
  float amax = 0.0f;
  for (int i = 0; i < kItems; ++i) amax = std::max(amax, std::fabs(in[i]));
  const float d = amax / 127.0f, id = inverse(d);
  block.d = f32_to_f16(d);
  for (int i = 0; i < kItems; ++i) block.qs[i] = int8_t(std::clamp(std::round(in[i] * id), -127.0f, 127.0f));
}

}  // namespace maestrale
