// SPDX-License-Identifier: Apache-2.0
// The 4-bit formats of bitsandbytes, NF4 (QLoRA, arXiv 2305.14314) and FP4: blocks of consecutive weights
// share the scale absmax = max |w|, and every weight is an index into a table of 16 values in [-1, 1].
//
//   w[i] = table[code[i]] * absmax[i / block_size]
//   byte k of the codes:   high nibble code[2k]   low nibble code[2k + 1]
//
// Double quantisation stores the scales in 8 bits, themselves in blocks of 256:
//
//   absmax[b] = map[code8[b]] * nested_absmax[b / 256] + offset            offset = mean of all absmax
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace maestrale {

enum class FourBitType { kNF4, kFP4 };

inline constexpr int kFourBitBlock = 64;  // weights under one absmax, as bitsandbytes writes them
inline constexpr int kNestedBlock = 256;  // absmax under one nested_absmax

using FourBitTable = std::array<float, 16>;

// NF4: 16 quantiles of the normal distribution, with an exact zero.
inline constexpr FourBitTable kNf4Table = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

// FP4: sign in bit 3, two bits of exponent, one of mantissa, scaled so that the largest value is 1.
inline constexpr FourBitTable kFp4Table = {
    0.0f, 0.0625f / 12,  8.0f / 12,  1.0f,  4.0f / 12,  6.0f / 12,  2.0f / 12,  3.0f / 12,
    0.0f, -0.0625f / 12, -8.0f / 12, -1.0f, -4.0f / 12, -6.0f / 12, -2.0f / 12, -3.0f / 12,
};

constexpr const FourBitTable& four_bit_table(FourBitType type) {
  return type == FourBitType::kNF4 ? kNf4Table : kFp4Table;
}

// Quantises one block of `n` finite weights (n even): n / 2 bytes to `codes`; returns its absmax.
float quantize_four_bit(FourBitType type, const float* in, int n, uint8_t* codes);

// The `n` weights (n even) of one block.
void dequantize_four_bit(const FourBitTable& table, float absmax, const uint8_t* codes, int n, float* out);

// Weights and scales above this are not stored in blocks: those of real models are below 10.
inline constexpr float kLargestFourBitScale = 255.0f;

// A block as the engine stores rows of QuantType::kNF4 and kFP4, with the table above and the scale undone of
// double quantisation.
template <FourBitType kType>
struct BlockFourBit {
  static constexpr int kItems = kFourBitBlock;
  float absmax;
  uint8_t codes[kFourBitBlock / 2];
};
using BlockNF4 = BlockFourBit<FourBitType::kNF4>;
using BlockFP4 = BlockFourBit<FourBitType::kFP4>;
static_assert(sizeof(BlockNF4) == 36);

template <FourBitType kType>
void unpack_codes(const BlockFourBit<kType>& block, uint8_t* codes) {
  for (int k = 0; k < kFourBitBlock / 2; ++k) {
    codes[2 * k] = block.codes[k] >> 4;
    codes[2 * k + 1] = block.codes[k] & 15;
  }
}

template <FourBitType kType>
void dequantize(const BlockFourBit<kType>& block, float* out) {
  dequantize_four_bit(four_bit_table(kType), block.absmax, block.codes, kFourBitBlock, out);
}

template <FourBitType kType>
void quantize(const float* in, BlockFourBit<kType>& block) {
  block.absmax = quantize_four_bit(kType, in, kFourBitBlock, block.codes);
}

// The signed 8-bit map of double quantisation, ascending: 0, 1, and 127 values of either sign that are evenly
// spaced within each of seven decades, the more the higher the decade ("dynamic tree quantisation", arXiv
// 2110.02861).
std::array<float, 256> dynamic_map();

struct NestedScales {
  std::vector<uint8_t> codes;        // one for each absmax
  std::vector<float> nested_absmax;  // one for every kNestedBlock of them, the last may be partial
  float offset = 0;
};

NestedScales quantize_scales(std::span<const float> absmax);

// One absmax for each code. `nested_absmax` has an entry for every `nested_block` codes.
std::vector<float> dequantize_scales(std::span<const float, 256> map, std::span<const uint8_t> codes,
                                     std::span<const float> nested_absmax, size_t nested_block, float offset);

}  // namespace maestrale
