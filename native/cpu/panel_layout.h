// SPDX-License-Identifier: Apache-2.0
// How weights lie in memory on the CPU: panels of 16 output rows, cut along the input dimension into
// units. The byte that row r multiplies with element 4l + t sits at 64 l + 4 r + t of its unit, so one
// 64-byte line feeds 16 rows with 4 consecutive elements and no instruction set ever needs a
// horizontal sum. Narrow codes share bytes between neighbouring sub-blocks; sizes stay as in GGUF.
//
//   nibble plane, sub-block s, line j:   low (s even) or high (s odd) nibbles of line  (s / 2) * lines + j
//   2-bit plane:                         bits 2 (s % 4)                       of line  (s / 4) * lines + j
//   1-bit plane of Q3_K:                 bit s % 8                            of line  (s / 8) * lines + j
//   fifth bits (Q5), 8 lines a block:    bit 2 (j % 4) + s % 2                of line  (s / 2) * 2 + j / 4
//   6 bits and 2 (Q6_K), of four sub-blocks 4 g + k: line 12 g + 4 k + j holds that of sub-block 4 g + k, for
//                                        k < 3, and above it bits 2 k, 2 k + 1 of that of sub-block 4 g + 3
//   nibbles of NF4 and FP4:              element 8l + 2j + h at bits 16h + 4j of lane r of line l, so that a
//                                        shift leaves two neighbours in the low bits of the two halves
//
// Scales are stored per unit and row next to the codes. Integer scales and minima are lines too, of a 4-byte
// word for each row, from which shifts and masks take them to where dot products of 16-bit integers want
// them: a pair for two neighbouring sub-blocks, the first one in the low half. (Widening instructions compete
// with dot products for the processor, shifts do not.)
//
//   four bytes of 16-element sub-blocks: byte k of word g is that of sub-block 4 g + 0, 2, 1, 3
//   6-bit scales and minima, two pairs at bits 0 and 6 of the halves of a word: word 0 has the scales of
//   sub-blocks 0..3, word 1 the scales of 4..7, word 2 the minima of 0..3; the minima of 4..7 are in the bits
//   above, of pair 4, 5 four bits in word 0 and then two in word 1, of pair 6, 7 four in word 2 and two in
//   word 1, from bit 14 on.
//
// All offsets are in bytes; every unit is a multiple of 64 bytes.
#pragma once

#include <cstdint>

#include "base/integer.h"
#include "quant/blocks.h"

namespace maestrale {

inline constexpr int kPanelRows = 16;
// Every matrix on the CPU has a multiple of this many columns (input features).
inline constexpr int kColumnStep = 32;

// ---- 256-element units: one float scale and integer sub-block scales a row -----------------------
struct PanelQ4_K {
  using Block = BlockQ4_K;
  static constexpr int kItems = 256, kSubItems = 32, kOffset = 0;
  static constexpr bool kHasMins = true;
  static constexpr int kD = 0, kDmin = 32, kScales = 64, kCodes = 256, kBytes = 2304;
};

struct PanelQ5_K {
  using Block = BlockQ5_K;
  static constexpr int kItems = 256, kSubItems = 32, kOffset = 0;
  static constexpr bool kHasMins = true;
  static constexpr int kD = 0, kDmin = 32, kScales = 64, kHigh = 256, kCodes = 768, kBytes = 2816;
};

struct PanelQ6_K {
  using Block = BlockQ6_K;
  static constexpr int kItems = 256, kSubItems = 16, kOffset = 32;
  static constexpr bool kHasMins = false;
  static constexpr int kD = 0 /* f32 */, kScales = 64 /* int8 */, kCodes = 320, kBytes = 3392;
};

struct PanelQ3_K {
  using Block = BlockQ3_K;
  static constexpr int kItems = 256, kSubItems = 16, kOffset = 4;
  static constexpr bool kHasMins = false;
  static constexpr int kD = 0 /* f32 */, kScales = 64 /* int8 */, kHigh = 320 /* 1-bit plane */,
                       kCodes = 832 /* 2-bit plane */, kBytes = 1856;
};

struct PanelQ2_K {
  using Block = BlockQ2_K;
  static constexpr int kItems = 256, kSubItems = 16, kOffset = 0;
  static constexpr bool kHasMins = true;
  static constexpr int kD = 0, kDmin = 32, kScales = 64 /* scale | minimum << 4 */,
                       kCodes = 320 /* 2-bit plane */, kBytes = 1344;
};

struct PanelIQ4_XS {
  using Block = BlockIQ4_XS;
  static constexpr int kItems = 256, kSubItems = 32, kOffset = 128;
  static constexpr bool kHasMins = false;
  // Scales are int8: byte s % 4 of word s / 4, as each is wanted alone.
  static constexpr int kD = 0 /* f32 */, kScales = 64, kCodes = 192, kBytes = 2240;
};

// ---- 64-element units: two 32-element blocks, float scales (and minima) [block][row] in f16 ----------
struct PanelQ4_0 {
  using Block = BlockQ4_0;
  static constexpr int kItems = 64, kOffset = 8;
  static constexpr bool kHasMins = false;
  static constexpr int kD = 0, kCodes = 64, kBytes = 576;
};

struct PanelIQ4_NL {
  using Block = BlockIQ4_NL;
  static constexpr int kItems = 64, kOffset = 128;
  static constexpr bool kHasMins = false;
  static constexpr int kD = 0, kCodes = 64, kBytes = 576;
};

struct PanelQ4_1 {
  using Block = BlockQ4_1;
  static constexpr int kItems = 64, kOffset = 0;
  static constexpr bool kHasMins = true;
  static constexpr int kD = 0, kM = 64, kCodes = 128, kBytes = 640;
};

struct PanelQ5_0 {
  using Block = BlockQ5_0;
  static constexpr int kItems = 64, kOffset = 16;
  static constexpr bool kHasMins = false;
  static constexpr int kD = 0, kHigh = 64, kCodes = 192, kBytes = 704;
};

struct PanelQ5_1 {
  using Block = BlockQ5_1;
  static constexpr int kItems = 64, kOffset = 0;
  static constexpr bool kHasMins = true;
  static constexpr int kD = 0, kM = 64, kHigh = 128, kCodes = 256, kBytes = 768;
};

struct PanelQ8_0 {
  using Block = BlockQ8_0;
  static constexpr int kItems = 64, kOffset = 128;
  static constexpr bool kHasMins = false;
  static constexpr int kD = 0, kCodes = 64 /* bytes */, kBytes = 1088;
};

// ---- 128-element units: two blocks of 64 codes, scales [block][row], 256 absmax in f16 -------------------
// The factor keeps all scales of up to kLargestFourBitScale that matter clear of f16's subnormal numbers.
inline constexpr float kFourBitScaleFactor = 256.0f;
template <FourBitType kType>
struct PanelFourBit {
  using Block = BlockFourBit<kType>;
  static constexpr int kItems = 128;
  static constexpr int kD = 0, kCodes = 64, kBytes = 1088;
};
using PanelNF4 = PanelFourBit<FourBitType::kNF4>;
using PanelFP4 = PanelFourBit<FourBitType::kFP4>;

// ---- floating point: element e of row r; units are short since a LoRA matrix may have 16 columns --
struct PanelF32 {  // float 16 e + r
  static constexpr int kItems = 16, kBytes = 1024;
};
struct PanelF16 {  // half-word 16 e + r
  static constexpr int kItems = 16, kBytes = 512;
};
struct PanelBF16 {  // half-word 32 (e / 2) + 2 r + e % 2: pairs of elements, as dot-product instructions want
  static constexpr int kItems = 16, kBytes = 512;
};

// ---- quantised activations, one row of a batch ---------------------------------------------------
// For 256-element units: x[e] ~ d * q[e]. The quantiser keeps sums of |q| over 16 neighbours at most
// kMaxAbsSum16 and sums of the positive and of the negative q over 32 neighbours within kMaxSum32, so that a
// sub-block's dot product fits in 16 bits for Q2_K .. Q6_K:  31 * 1057 = 32767 (Q5_K),  32 * 1023 < 32768
// (Q6_K, codes - 32).
inline constexpr int kMaxAbsSum16 = 1023;
inline constexpr int kMaxSum32 = 1057;
struct alignas(64) Activation256 {
  int8_t q[256];
  uint16_t start16[16];  // 2^15 - 32 times the sums of 16 neighbouring q, pairs swapped: see Tile::two_starts
  int32_t start32[8];    // -128 times the sums of 32 neighbouring q
  int16_t sum16[16];     // sums of 16 neighbouring q
  int16_t sum32[8];      // sums of 32 neighbouring q
  float d;
};
static_assert(sizeof(Activation256) == 384);

// For 64-element units: x[e] ~ d[e / 32] * q[e].
struct alignas(16) Activation64 {
  int8_t q[64];
  float d[2];
  int32_t sum[2];
};
static_assert(sizeof(Activation64) == 80);

// For 128-element units: x[e] ~ d[e / 64] * q[e], with |q| <= kMaxQ16. 64 products with the table's integers,
// at most kMaxTable16, sum up to less than 2^31.
inline constexpr int kMaxQ16 = 8191;
inline constexpr int kMaxTable16 = 4095;
static_assert(int64_t{64} * kMaxQ16 * kMaxTable16 <= INT32_MAX);
struct alignas(16) Activation128 {
  int16_t q[128];
  float d[2];
};
static_assert(sizeof(Activation128) == 272);

// Which form of the activations a weight type multiplies with.
enum class ActivationForm { kFloat, kQ256, kQ64, kQ128 };

constexpr ActivationForm activation_form(QuantType type) {
  switch (type) {
    case QuantType::kF32:
    case QuantType::kF16:
    case QuantType::kBF16: return ActivationForm::kFloat;
    case QuantType::kQ2_K:
    case QuantType::kQ3_K:
    case QuantType::kQ4_K:
    case QuantType::kQ5_K:
    case QuantType::kQ6_K:
    case QuantType::kIQ4_XS: return ActivationForm::kQ256;
    case QuantType::kNF4:
    case QuantType::kFP4: return ActivationForm::kQ128;
    default: return ActivationForm::kQ64;
  }
}

// Calls visit.template operator()<PanelX>() with the layout of `type`.
template <class Visitor>
constexpr decltype(auto) visit_panel(QuantType type, Visitor&& visit) {
  switch (type) {
    case QuantType::kF16: return visit.template operator()<PanelF16>();
    case QuantType::kBF16: return visit.template operator()<PanelBF16>();
    case QuantType::kQ4_0: return visit.template operator()<PanelQ4_0>();
    case QuantType::kQ4_1: return visit.template operator()<PanelQ4_1>();
    case QuantType::kQ5_0: return visit.template operator()<PanelQ5_0>();
    case QuantType::kQ5_1: return visit.template operator()<PanelQ5_1>();
    case QuantType::kQ8_0: return visit.template operator()<PanelQ8_0>();
    case QuantType::kQ2_K: return visit.template operator()<PanelQ2_K>();
    case QuantType::kQ3_K: return visit.template operator()<PanelQ3_K>();
    case QuantType::kQ4_K: return visit.template operator()<PanelQ4_K>();
    case QuantType::kQ5_K: return visit.template operator()<PanelQ5_K>();
    case QuantType::kQ6_K: return visit.template operator()<PanelQ6_K>();
    case QuantType::kIQ4_NL: return visit.template operator()<PanelIQ4_NL>();
    case QuantType::kIQ4_XS: return visit.template operator()<PanelIQ4_XS>();
    case QuantType::kNF4: return visit.template operator()<PanelNF4>();
    case QuantType::kFP4: return visit.template operator()<PanelFP4>();
    case QuantType::kF32: break;
  }
  return visit.template operator()<PanelF32>();
}

// Panels of a matrix of `rows` rows.
constexpr int64_t panel_count(int64_t rows) { return ceil_div(rows, kPanelRows); }

// Units and bytes of one panel of `cols` columns; a last unit that is only half full is padded with zeros.
constexpr int64_t panel_units(QuantType type, int64_t cols) {
  return visit_panel(type, [&]<class P>() { return ceil_div(cols, P::kItems); });
}
constexpr uint64_t panel_bytes(QuantType type, int64_t cols) {
  return visit_panel(type,
                     [&]<class P>() { return uint64_t(ceil_div(cols, P::kItems)) * uint64_t(P::kBytes); });
}

}  // namespace maestrale
