// SPDX-License-Identifier: Apache-2.0
#include "cpu/pack.h"

#include <cstring>
#include <type_traits>

#include "cpu/panel_layout.h"

namespace maestrale {
namespace {

// Codes of one unit, [row][element].
template <class P>
using Codes = uint8_t[kPanelRows][P::kItems];

uint32_t load_u32(const uint8_t* p) {
  uint32_t x;
  std::memcpy(&x, p, 4);
  return x;
}

void or_u32(std::byte* p, uint32_t x) {
  uint32_t old;
  std::memcpy(&old, p, 4);
  old |= x;
  std::memcpy(p, &old, 4);
}

// Places (code >> Shift) & mask of every element into a plane of Bits-wide fields that sub-blocks share
// as described in panel_layout.h; the plane is zero before.
template <class P, int kSub, int kBits, int kShift>
void put_plane(const Codes<P>& codes, std::byte* plane) {
  constexpr int kLines = kSub / 4, kShared = 8 / kBits;
  constexpr uint32_t kMask = 0x01010101u * ((1u << kBits) - 1);
  for (int s = 0; s < P::kItems / kSub; ++s)
    for (int j = 0; j < kLines; ++j) {
      std::byte* line = plane + 64 * ((s / kShared) * kLines + j);
      for (int r = 0; r < kPanelRows; ++r)
        or_u32(line + 4 * r, ((load_u32(codes[r] + s * kSub + 4 * j) >> kShift) & kMask)
                                 << (kBits * (s % kShared)));
    }
}

// The fifth bits of 5-bit codes, blocks of 32.
template <class P>
void put_fifth_bits(const Codes<P>& codes, std::byte* plane) {
  for (int s = 0; s < P::kItems / 32; ++s)
    for (int j = 0; j < 8; ++j) {
      std::byte* line = plane + 64 * ((s / 2) * 2 + j / 4);
      for (int r = 0; r < kPanelRows; ++r)
        or_u32(line + 4 * r, ((load_u32(codes[r] + s * 32 + 4 * j) >> 4) & 0x01010101u)
                                 << (2 * (j % 4) + s % 2));
    }
}

template <class Block>
void codes_as_stored(const Block& block, uint8_t* codes) {
  if constexpr (std::is_same_v<Block, BlockIQ4_NL> || std::is_same_v<Block, BlockIQ4_XS>)
    unpack_indices(block, codes);  // 4 bits; the kernels look the table up
  else
    unpack_codes(block, codes);
}

template <class P>
void put_codes(const Codes<P>& codes, std::byte* unit) {
  using B = typename P::Block;
  if constexpr (std::is_same_v<B, BlockQ8_0>) {
    put_plane<P, 4, 8, 0>(codes, unit + P::kCodes);
  } else if constexpr (std::is_same_v<B, BlockQ6_K>) {
    put_plane<P, 16, 4, 0>(codes, unit + P::kCodes);
    put_plane<P, 16, 2, 4>(codes, unit + P::kHigh);
  } else if constexpr (std::is_same_v<B, BlockQ3_K>) {
    put_plane<P, 16, 2, 0>(codes, unit + P::kCodes);
    put_plane<P, 16, 1, 2>(codes, unit + P::kHigh);
  } else if constexpr (std::is_same_v<B, BlockQ2_K>) {
    put_plane<P, 16, 2, 0>(codes, unit + P::kCodes);
  } else {
    put_plane<P, 32, 4, 0>(codes, unit + P::kCodes);
    if constexpr (std::is_same_v<B, BlockQ5_K> || std::is_same_v<B, BlockQ5_0> ||
                  std::is_same_v<B, BlockQ5_1>)
      put_fifth_bits<P>(codes, unit + P::kHigh);
  }
}

void put_f16(std::byte* field, int index, uint16_t half) { std::memcpy(field + 2 * index, &half, 2); }

// Scales of one row of a 256-element unit.
template <class P>
void put_scales(const typename P::Block& block, int r, std::byte* unit) {
  using B = typename P::Block;
  constexpr int kSubs = P::kItems / P::kSubItems;
  int16_t scales[kSubs];
  unpack_scales(block, scales);
  if constexpr (P::kHasMins) {
    int16_t mins[kSubs];
    unpack_mins(block, mins);
    put_f16(unit + P::kD, r, block.d);
    put_f16(unit + P::kDmin, r, block.dmin);
    for (int s = 0; s < kSubs; ++s) {
      if constexpr (std::is_same_v<B, BlockQ2_K>) {
        unit[P::kScales + 16 * s + r] = std::byte(scales[s] | mins[s] << 4);
      } else {
        unit[P::kScalesLo + 16 * s + r] = std::byte((scales[s] & 15) | (mins[s] & 15) << 4);
        unit[P::kScalesHi + 16 * (s / 2) + r] |=
            std::byte(((scales[s] >> 4) | (mins[s] >> 4) << 2) << (4 * (s % 2)));
      }
    }
  } else {
    const float d = f16_to_f32(block.d);
    std::memcpy(unit + P::kD + 4 * r, &d, 4);
    for (int s = 0; s < kSubs; ++s) unit[P::kScales + 16 * s + r] = std::byte(int8_t(scales[s]));
  }
}

template <class P>
void pack_quantised(const std::byte* rows, int n_rows, int64_t cols, std::byte* panel) {
  using B = typename P::Block;
  constexpr int kBlocks = P::kItems / B::kItems;  // of a unit
  const int64_t blocks_per_row = cols / B::kItems;
  const int64_t units = (cols + P::kItems - 1) / P::kItems;
  for (int64_t u = 0; u < units; ++u, panel += P::kBytes) {
    std::memset(panel, 0, P::kBytes);
    Codes<P> codes;
    if (n_rows < kPanelRows || (u + 1) * kBlocks > blocks_per_row) std::memset(codes, 0, sizeof codes);
    for (int r = 0; r < n_rows; ++r)
      for (int b = 0; b < kBlocks && u * kBlocks + b < blocks_per_row; ++b) {
        const std::byte* bytes = rows + (r * blocks_per_row + u * kBlocks + b) * int64_t(sizeof(B));
        B block;
        std::memcpy(&block, bytes, sizeof(B));
        codes_as_stored(block, codes[r] + b * B::kItems);
        if constexpr (P::kItems == 256) {
          put_scales<P>(block, r, panel);
        } else {
          put_f16(panel + P::kD, kPanelRows * b + r, block.d);
          if constexpr (P::kHasMins) put_f16(panel + P::kM, kPanelRows * b + r, block.m);
        }
      }
    put_codes<P>(codes, panel);
  }
}

// Element e of row r goes to index(e, r); T is the storage type.
template <class T, class Index>
void pack_float(const std::byte* rows, int n_rows, int64_t cols, std::byte* panel, Index index) {
  T* out = reinterpret_cast<T*>(panel);  // panels are 64-byte aligned
  if (n_rows < kPanelRows) std::memset(panel, 0, size_t(cols) * kPanelRows * sizeof(T));
  for (int r = 0; r < n_rows; ++r)
    for (int64_t e = 0; e < cols; ++e) {
      T x;
      std::memcpy(&x, rows + (r * cols + e) * int64_t(sizeof(T)), sizeof(T));
      out[index(e, r)] = x;
    }
}

}  // namespace

void pack_panel(QuantType type, const std::byte* rows, int n_rows, int64_t cols, std::byte* panel) {
  visit_panel(type, [&]<class P>() {
    if constexpr (std::is_same_v<P, PanelF32>)
      pack_float<uint32_t>(rows, n_rows, cols, panel, [](int64_t e, int r) { return 16 * e + r; });
    else if constexpr (std::is_same_v<P, PanelF16>)
      pack_float<uint16_t>(rows, n_rows, cols, panel, [](int64_t e, int r) { return 16 * e + r; });
    else if constexpr (std::is_same_v<P, PanelBF16>)
      pack_float<uint16_t>(rows, n_rows, cols, panel,
                           [](int64_t e, int r) { return 32 * (e / 2) + 2 * r + e % 2; });
    else
      pack_quantised<P>(rows, n_rows, cols, panel);
  });
}

}  // namespace maestrale
