// SPDX-License-Identifier: Apache-2.0
// How the matmul tile reads each packed format: one struct a format, written once for every
// instruction set V. panel_layout.h has the layouts.
//
// A unit of 256 elements is read in groups of kGroup sub-blocks, after which the positions of bits repeat:
//
//   operand<b, l>(unit, g)  line l of sub-block b of group g as unsigned bytes (16 rows x 4 elements)
//   scale<b>(unit, g)       the integer scales of that sub-block, of 32 elements, int32 per row
//   scales<p>(unit, g)      the integer scales of pair p of sub-blocks of group g, of 16 elements, as int16
//   pairs minima<p>(unit)         the integer minima of pair p of the unit's sub-blocks, likewise (kHasMins)
//
// The group is a loop, not a template parameter, so that the code of a tile stays small: see Tile.
#pragma once

#include <cstdint>

#include "cpu/panel_layout.h"

namespace maestrale {

// 4-bit plane: line l of sub-block b, `lines` lines a sub-block.
template <class V, int b, int l, int lines>
typename V::I nibbles(const std::byte* plane) {
  const auto x = V::line(plane + 64 * ((b / 2) * lines + l));
  const auto mask = V::set1_i(0x0f0f0f0f);
  if constexpr (b % 2)
    return V::and_i(V::template shr<4>(x), mask);
  else
    return V::and_i(x, mask);
}

// (x << to) >> from for constants of either sign, masked.
template <class V, int from, int to>
typename V::I move_bits(typename V::I x, int32_t mask) {
  if constexpr (from > to)
    return V::and_i(V::template shr<from - to>(x), V::set1_i(mask));
  else if constexpr (from < to)
    return V::and_i(V::template shl<to - from>(x), V::set1_i(mask));
  else
    return V::and_i(x, V::set1_i(mask));
}

template <class V, int b, int l>
typename V::I fifth_bits(const std::byte* plane) {
  return move_bits<V, 2 * (l % 4) + b % 2, 4>(V::line(plane + 64 * ((b / 2) * 2 + l / 4)), 0x10101010);
}

// The 6-bit scales and minima shared by Q4_K and Q5_K.
template <class V, class P>
struct SixBitScales : P {
  static constexpr int kGroup = 2;
  template <int b>
  static typename V::I scale(const std::byte* unit, int64_t g) {
    return V::and_i(V::shr(word(unit, g / 2), int(6 * (g % 2)) + 16 * b), V::set1_i(63));
  }
  template <int p>
  static typename V::I minima(const std::byte* unit) {
    if constexpr (p < 2)
      return move_bits<V, 6 * p, 0>(word(unit, 2), 0x003f003f);
    else
      return V::or_i(move_bits<V, 12, 0>(word(unit, p == 2 ? 0 : 2), 0x000f000f),
                     move_bits<V, 2 * p + 8, 4>(word(unit, 1), 0x00300030));
  }

 private:
  static typename V::I word(const std::byte* unit, int64_t i) { return V::line(unit + P::kScales + 64 * i); }
};

// The int8 scales of Q6_K and Q3_K.
template <class V, class P, int kSubBlocks>
struct ByteScales : P {
  static constexpr int kGroup = kSubBlocks;
  template <int p>
  static typename V::I scales(const std::byte* unit, int64_t g) {
    const auto word = V::line(unit + P::kScales + 16 * kGroup * g + 64 * (p / 2));
    if constexpr (p % 2)
      return V::template sar_halves<8>(word);
    else
      return V::template sar_halves<8>(V::template shl<8>(word));
  }
};

template <class V>
struct FormatQ4_K : SixBitScales<V, PanelQ4_K> {
  static constexpr bool kWide = false;
  template <int b, int l>
  static typename V::I operand(const std::byte* unit, int64_t g) {
    return nibbles<V, b, l, 8>(unit + PanelQ4_K::kCodes + 512 * g);
  }
};

template <class V>
struct FormatQ5_K : SixBitScales<V, PanelQ5_K> {
  static constexpr bool kWide = false;
  template <int b, int l>
  static typename V::I operand(const std::byte* unit, int64_t g) {
    return V::or_i(nibbles<V, b, l, 8>(unit + PanelQ5_K::kCodes + 512 * g),
                   fifth_bits<V, b, l>(unit + PanelQ5_K::kHigh + 128 * g));
  }
};

template <class V>
struct FormatQ6_K : ByteScales<V, PanelQ6_K, 4> {
  static constexpr bool kWide = false;
  template <int b, int l>
  static typename V::I operand(const std::byte* unit, int64_t g) {
    const std::byte* lines = unit + PanelQ6_K::kCodes + 768 * g + 64 * l;
    if constexpr (b < 3)
      return V::and_i(V::line(lines + 256 * b), V::set1_i(0x3f3f3f3f));
    else
      return V::or_i(V::or_i(move_bits<V, 6, 0>(V::line(lines), 0x03030303),
                             move_bits<V, 6, 2>(V::line(lines + 256), 0x0c0c0c0c)),
                     move_bits<V, 6, 4>(V::line(lines + 512), 0x30303030));
  }
};

template <class V>
struct FormatQ3_K : ByteScales<V, PanelQ3_K, 8> {
  static constexpr bool kWide = false;
  template <int b, int l>
  static typename V::I operand(const std::byte* unit, int64_t g) {
    const auto low = V::line(unit + PanelQ3_K::kCodes + 512 * g + 64 * ((b / 4) * 4 + l));
    const auto high = V::line(unit + PanelQ3_K::kHigh + 256 * g + 64 * l);
    return V::or_i(move_bits<V, 2 * (b % 4), 0>(low, 0x03030303), move_bits<V, b, 2>(high, 0x04040404));
  }
};

template <class V>
struct FormatQ2_K : PanelQ2_K {
  static constexpr bool kWide = false;
  static constexpr int kGroup = 4;
  template <int b, int l>
  static typename V::I operand(const std::byte* unit, int64_t g) {
    return move_bits<V, 2 * b, 0>(V::line(unit + kCodes + 256 * g + 64 * l), 0x03030303);
  }
  template <int p>
  static typename V::I scales(const std::byte* unit, int64_t g) {
    return move_bits<V, 8 * p, 0>(V::line(unit + kScales + 64 * g), 0x000f000f);
  }
  template <int p>
  static typename V::I minima(const std::byte* unit) {
    return move_bits<V, 8 * (p % 2) + 4, 0>(V::line(unit + kScales + 64 * (p / 2)), 0x000f000f);
  }
};

// kIq4Table + 128.
inline constexpr uint8_t kIq4Codes[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                          129, 141, 153, 166, 181, 197, 217, 241};

template <class V>
struct FormatIQ4_XS : PanelIQ4_XS {
  static constexpr bool kWide = true;
  static constexpr int kGroup = 2;
  template <int b, int l>
  static typename V::I operand(const std::byte* unit, int64_t g) {
    return V::lookup16(V::table16(kIq4Codes), nibbles<V, b, l, 8>(unit + kCodes + 512 * g));
  }
  template <int b>
  static typename V::I scale(const std::byte* unit, int64_t g) {
    const auto word = V::shr(V::line(unit + kScales + 64 * (g / 2)), int(16 * (g % 2)));
    return V::template sar<24>(V::template shl<24 - 8 * b>(word));
  }
};

// Units of two blocks: operand<b, l>(unit) is line l of block b.
template <class V>
struct FormatQ4_0 : PanelQ4_0 {
  static constexpr bool kWide = false;
  template <int b, int l>
  static typename V::I operand(const std::byte* unit) {
    return nibbles<V, b, l, 8>(unit + kCodes);
  }
};

template <class V>
struct FormatQ4_1 : PanelQ4_1 {
  static constexpr bool kWide = false;
  template <int b, int l>
  static typename V::I operand(const std::byte* unit) {
    return nibbles<V, b, l, 8>(unit + kCodes);
  }
};

template <class V, class P>
struct FormatQ5 : P {
  static constexpr bool kWide = false;
  template <int b, int l>
  static typename V::I operand(const std::byte* unit) {
    return V::or_i(nibbles<V, b, l, 8>(unit + P::kCodes), fifth_bits<V, b, l>(unit + P::kHigh));
  }
};
template <class V>
using FormatQ5_0 = FormatQ5<V, PanelQ5_0>;
template <class V>
using FormatQ5_1 = FormatQ5<V, PanelQ5_1>;

template <class V>
struct FormatQ8_0 : PanelQ8_0 {
  static constexpr bool kWide = true;
  template <int b, int l>
  static typename V::I operand(const std::byte* unit) {
    return V::line(unit + kCodes + 64 * (8 * b + l));
  }
};

template <class V>
struct FormatIQ4_NL : PanelIQ4_NL {
  static constexpr bool kWide = true;
  template <int b, int l>
  static typename V::I operand(const std::byte* unit) {
    return V::lookup16(V::table16(kIq4Codes), nibbles<V, b, l, 8>(unit + kCodes));
  }
};

// 16-bit table values. A weight is table()[code] * kStep * stored scale.
//
//   pairs<j>(table, line)   elements 8l + 2j and 8l + 2j + 1 of line l: 16 rows x 2 values of 16 bits
//
// The largest integers differ since these represent the tables best: FP4 is exact with multiples of 192, NF4
// to a relative error of 8e-5.
template <FourBitType kType>
inline constexpr int kLargest16 = kType == FourBitType::kNF4 ? 4075 : 4032;

struct Table16 {
  int16_t values[16];
};

template <FourBitType kType>
constexpr Table16 table_of_16_bits() {
  Table16 table{};
  for (size_t i = 0; i < 16; ++i) {
    const float value = four_bit_table(kType)[i] * float(kLargest16<kType>);
    table.values[i] = int16_t(value < 0 ? value - 0.5f : value + 0.5f);
  }
  return table;
}

template <class V, FourBitType kType>
struct FormatFourBit : PanelFourBit<kType> {
  static_assert(kLargest16<kType> <= kMaxTable16);
  static constexpr float kStep = 1.0f / (float(kLargest16<kType>) * kFourBitScaleFactor);
  static constexpr Table16 kTable = table_of_16_bits<kType>();

  static typename V::Halves table() { return V::halves16(kTable.values); }
  template <int j>
  static typename V::I pairs(typename V::Halves table, typename V::I line) {
    if constexpr (j == 0)
      return V::lookup_halves(table, line);
    else
      return V::lookup_halves(table, V::template shr<4 * j>(line));
  }
};
template <class V>
using FormatNF4 = FormatFourBit<V, FourBitType::kNF4>;
template <class V>
using FormatFP4 = FormatFourBit<V, FourBitType::kFP4>;

// Floating point: element<e>(unit) is one element of 16 rows.
template <class V>
struct FormatF32 : PanelF32 {
  template <int e>
  static typename V::F element(const std::byte* unit) {
    return V::load(reinterpret_cast<const float*>(unit) + 16 * e);
  }
};

template <class V>
struct FormatF16 : PanelF16 {
  template <int e>
  static typename V::F element(const std::byte* unit) {
    return V::load_f16(unit + 32 * e);
  }
};

template <class V>
struct FormatBF16 : PanelBF16 {
  template <int e>
  static typename V::F element(const std::byte* unit) {
    const auto pair = V::line(unit + 64 * (e / 2));
    if constexpr (e % 2)
      return V::as_float(V::and_i(pair, V::set1_i(int32_t(0xffff0000u))));
    else
      return V::as_float(V::template shl<16>(pair));
  }
};

// The same panels for V::dot_bf16: line p of a unit is a pair of elements of 16 rows.
struct FormatBF16Pairs : PanelBF16 {
  static constexpr bool kPairs = true;
};

}  // namespace maestrale
