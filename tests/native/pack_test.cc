// SPDX-License-Identifier: Apache-2.0
// Packed panels against a bit-by-bit packing that follows the formulas of panel_layout.h, on random
// blocks of every type, with missing rows and a half-full last unit; and the way back.
#include "cpu/pack.h"

#include <cstring>
#include <random>
#include <type_traits>
#include <vector>

#include "check.h"
#include "cpu/panel_layout.h"
#include "cpu/unpack.h"

using namespace maestrale;

namespace {

using Bytes = std::vector<std::byte>;

template <class B>
constexpr bool is_table = std::is_same_v<B, BlockIQ4_NL> || std::is_same_v<B, BlockIQ4_XS>;

// The `n_bits` low bits of `value` at bit `bit` of the byte that row r multiplies with element t of `line`.
void put(Bytes& panel, uint64_t plane, int line, int r, int t, int bit, int value) {
  panel.at(plane + uint64_t(64 * line + 4 * r + t)) |= std::byte(value << bit);
}

template <class P>
void put_code(Bytes& panel, uint64_t unit, int r, int e, int code) {
  using B = typename P::Block;
  constexpr bool kSixteens = std::is_same_v<B, BlockQ6_K> || std::is_same_v<B, BlockQ3_K> ||
                             std::is_same_v<B, BlockQ2_K>;  // sub-blocks of 16 elements, else 32
  const int sub = kSixteens ? 16 : 32, lines = sub / 4;
  const int s = e / sub, j = e % sub / 4, t = e % 4;
  if constexpr (P::kItems == 128) {  // element 8l + 2j + h at bits 16h + 4j of lane r of line l
    const int bit = 16 * (e % 2) + 4 * (e % 8 / 2);
    put(panel, unit + P::kCodes, e / 8, r, bit / 8, bit % 8, code);
    return;
  }
  const auto nibble = [&] { put(panel, unit + P::kCodes, s / 2 * lines + j, r, t, 4 * (s % 2), code & 15); };
  const auto crumb = [&](int plane, int value) {
    put(panel, unit + uint64_t(plane), s / 4 * lines + j, r, t, 2 * (s % 4), value & 3);
  };
  if constexpr (std::is_same_v<B, BlockQ8_0>) {
    put(panel, unit + P::kCodes, e / 4, r, t, 0, code);
  } else if constexpr (std::is_same_v<B, BlockQ6_K>) {
    const int g = s / 4, k = s % 4;
    if (k < 3) {
      put(panel, unit + P::kCodes, 12 * g + 4 * k + j, r, t, 0, code);
    } else {  // two bits above each of the three others
      for (int i = 0; i < 3; ++i)
        put(panel, unit + P::kCodes, 12 * g + 4 * i + j, r, t, 6, code >> (2 * i) & 3);
    }
  } else if constexpr (std::is_same_v<B, BlockQ3_K>) {
    crumb(P::kCodes, code);
    put(panel, unit + P::kHigh, s / 8 * lines + j, r, t, s % 8, code >> 2);
  } else if constexpr (std::is_same_v<B, BlockQ2_K>) {
    crumb(P::kCodes, code);
  } else {
    nibble();
    if constexpr (requires { P::kHigh; })
      put(panel, unit + P::kHigh, s / 2 * 2 + j / 4, r, t, 2 * (j % 4) + s % 2, code >> 4);
  }
}

template <class P>
void put_scales(const typename P::Block& block, Bytes& panel, uint64_t unit, int r, int b) {
  if constexpr (P::kItems == 128) {
    const uint16_t absmax = f32_to_f16(block.absmax * kFourBitScaleFactor);
    std::memcpy(&panel.at(unit + P::kD + uint64_t(2 * (16 * b + r))), &absmax, 2);
  } else if constexpr (P::kItems == 64) {
    std::memcpy(&panel.at(unit + P::kD + uint64_t(2 * (16 * b + r))), &block.d, 2);
    if constexpr (P::kHasMins) std::memcpy(&panel.at(unit + P::kM + uint64_t(2 * (16 * b + r))), &block.m, 2);
  } else {
    constexpr int kSubs = P::kItems / P::kSubItems;
    int16_t scales[kSubs], mins[kSubs] = {};
    unpack_scales(block, scales);
    if constexpr (P::kHasMins) {
      unpack_mins(block, mins);
      std::memcpy(&panel.at(unit + P::kD + uint64_t(2 * r)), &block.d, 2);
      std::memcpy(&panel.at(unit + P::kDmin + uint64_t(2 * r)), &block.dmin, 2);
    } else {
      const float d = f16_to_f32(block.d);
      std::memcpy(&panel.at(unit + P::kD + uint64_t(4 * r)), &d, 4);
    }
    // `bits` of word `word` of row r, from bit `shift` on.
    const auto put_bits = [&](int word, int shift, uint32_t bits) {
      std::byte* at = &panel.at(unit + uint64_t(P::kScales + 64 * word + 4 * r));
      uint32_t value;
      std::memcpy(&value, at, 4);
      value |= bits << shift;
      std::memcpy(at, &value, 4);
    };
    for (int s = 0; s < kSubs; ++s) {
      if constexpr (P::kSubItems == 16) {
        constexpr int kByte[] = {0, 2, 1, 3};
        put_bits(s / 4, 8 * kByte[s % 4], uint8_t(scales[s] | mins[s] << 4));
      } else if constexpr (P::kHasMins) {
        const int half = 16 * (s % 2), pair = s / 2;
        const auto low = uint32_t(mins[s] & 15), high = uint32_t(mins[s] >> 4);
        put_bits(pair / 2, half + 6 * (pair % 2), uint32_t(scales[s]));
        if (pair < 2) {
          put_bits(2, half + 6 * pair, uint32_t(mins[s]));
        } else {
          put_bits(pair == 2 ? 0 : 2, half + 12, low);
          put_bits(1, half + (pair == 2 ? 12 : 14), high);
        }
      } else {
        put_bits(s / 4, 8 * (s % 4), uint8_t(scales[s]));
      }
    }
  }
}

template <class P>
Bytes naive(QuantType type, const Bytes& rows, int n_rows, int64_t cols) {
  Bytes panel(panel_bytes(type, cols));
  if constexpr (requires { typename P::Block; }) {
    using B = typename P::Block;
    const int64_t blocks = cols / B::kItems;
    for (int r = 0; r < n_rows; ++r)
      for (int64_t i = 0; i < blocks; ++i) {
        B block;
        std::memcpy(&block, rows.data() + (r * blocks + i) * int64_t(sizeof(B)), sizeof(B));
        uint8_t codes[B::kItems];
        if constexpr (is_table<B>)
          unpack_indices(block, codes);
        else
          unpack_codes(block, codes);
        const int64_t first = i * B::kItems;  // element of the row
        const uint64_t unit = uint64_t(first / P::kItems * P::kBytes);
        for (int e = 0; e < B::kItems; ++e) put_code<P>(panel, unit, r, int(first % P::kItems) + e, codes[e]);
        put_scales<P>(block, panel, unit, r, int(first % P::kItems / B::kItems));
      }
  } else {
    const int64_t size = type == QuantType::kF32 ? 4 : 2;
    for (int64_t r = 0; r < n_rows; ++r)
      for (int64_t e = 0; e < cols; ++e) {
        const int64_t at = type == QuantType::kBF16 ? 32 * (e / 2) + 2 * r + e % 2 : 16 * e + r;
        std::memcpy(&panel.at(uint64_t(at * size)), &rows.at(uint64_t((r * cols + e) * size)), size_t(size));
      }
  }
  return panel;
}

struct alignas(64) Line {
  std::byte bytes[64];
};

Bytes random_rows(std::mt19937_64& random, QuantType type, int n_rows, int64_t cols) {
  Bytes rows(uint64_t(n_rows) * row_bytes(type, uint64_t(cols)));
  for (std::byte& b : rows) b = std::byte(random());
  return rows;
}

}  // namespace

TEST("pack: panels are the formulas' bit for bit, for every type, row count and last unit") {
  std::mt19937_64 random(7);
  for (const QuantTraits& traits : kQuantTraits)
    for (const int n_rows : {1, 2, 5, 15, 16})
      for (const int64_t units : {1, 2, 3}) {
        const int64_t cols = units * std::max<int64_t>(traits.items_per_block, kColumnStep);
        const Bytes rows = random_rows(random, traits.type, n_rows, cols);
        const uint64_t bytes = panel_bytes(traits.type, cols);
        std::vector<Line> packed(bytes / 64 + 1);
        std::memset(packed.data(), 0xa5, packed.size() * 64);  // what was there must not show through
        pack_panel(traits.type, rows.data(), n_rows, cols, packed.front().bytes);
        const Bytes expected =
            visit_panel(traits.type, [&]<class P>() { return naive<P>(traits.type, rows, n_rows, cols); });
        CHECK_EQ(expected.size(), bytes);
        for (uint64_t i = 0; i < bytes; ++i)
          if (packed[i / 64].bytes[i % 64] != expected[i])
            maestrale::test::fail(__FILE__, __LINE__,
                                  std::string(traits.name) + ", " + std::to_string(n_rows) + " rows, " +
                                      std::to_string(cols) + " columns: byte " + std::to_string(i));
        for (uint64_t i = bytes; i < packed.size() * 64; ++i)
          CHECK(packed[i / 64].bytes[i % 64] == std::byte(0xa5));
      }
}

TEST("pack: rows come back from their panel bit for bit, any of them") {
  std::mt19937_64 random(8);
  for (const QuantTraits& traits : kQuantTraits) {
    if (!is_gguf_type(traits.type)) {
      CHECK_THROWS(unpack_rows(traits.type, nullptr, 0, 1, 128, nullptr), ErrorCode::kInternal);
      continue;
    }
    for (const int64_t units : {1, 2, 3}) {
      const int64_t cols = units * std::max<int64_t>(traits.items_per_block, kColumnStep);
      const uint64_t row = row_bytes(traits.type, uint64_t(cols));
      Bytes rows = random_rows(random, traits.type, kPanelRows, cols);
      if (traits.items_per_block > 1)
        visit_block(traits.type, [&]<class B>() {
          if constexpr (requires(B block) { block.d; })  // a scale that is a number
            for (size_t at = 0; at < rows.size(); at += sizeof(B))
              reinterpret_cast<B*>(rows.data() + at)->d &= 0xbfff;
        });
      std::vector<Line> panel(panel_bytes(traits.type, cols) / 64);
      pack_panel(traits.type, rows.data(), kPanelRows, cols, panel.front().bytes);
      for (const auto& [first, n] : {std::pair(0, 16), std::pair(0, 1), std::pair(5, 7), std::pair(15, 1)}) {
        Bytes back(uint64_t(n) * row + 1, std::byte(0xa5));
        unpack_rows(traits.type, panel.front().bytes, first, n, cols, back.data());
        CHECK(back.back() == std::byte(0xa5));
        for (uint64_t i = 0; i + 1 < back.size(); ++i)
          if (back[i] != rows[uint64_t(first) * row + i])
            maestrale::test::fail(__FILE__, __LINE__,
                                  std::string(traits.name) + ", " + std::to_string(cols) +
                                      " columns, from row " + std::to_string(first) + ": byte " +
                                      std::to_string(i));
      }
    }
  }
}
