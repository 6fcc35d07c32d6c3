// SPDX-License-Identifier: Apache-2.0
// The steps of pack.cc the other way round, a row at a time: its words are gathered to an image, the
// image becomes a block.
#include "cpu/unpack.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>

#include "base/error.h"
#include "cpu/panel_image.h"

namespace maestrale {
namespace {

using namespace panel_image;

uint32_t word_at(const uint8_t* bytes, int index) { return load<uint32_t>(bytes + 4 * index); }

// ---- codes -----------------------------------------------------------------------------------------
void restore_crumbs(const uint8_t* plane, uint8_t* qs) {
  for (int h = 0; h < 2; ++h) {
    Bytes low{}, high{};
    for (int m = 0; m < 2; ++m) {
      const auto line = load<Bytes>(plane + 32 * h + 16 * m);
      low |= ((line & 3) | (line >> 2 & 12)) << (4 * m);
      high |= ((line >> 2 & 3) | (line >> 4 & 12)) << (4 * m);
    }
    store(qs + 32 * h, low);
    store(qs + 32 * h + 16, high);
  }
}

void restore_fifth_bits(const uint8_t* plane, uint8_t* qh) {
  for (int h = 0; h < 2; ++h)
    for (int k = 0; k < 4; ++k) {
      uint32_t bits = 0;
      for (int p = 0; p < 4; ++p) bits |= ((word_at(plane, 2 * p + h) >> (2 * k)) & 0x03030303u) << (2 * p);
      store(qh + 16 * h + 4 * k, bits);
    }
}

// The fifth bits of block s of the two of a unit.
void gather_fifth_bits(const uint8_t* plane, int s, uint8_t* qh) {
  uint32_t bits = 0;
  for (int h = 0; h < 2; ++h)
    for (int k = 0; k < 4; ++k) {
      const uint32_t spread = (word_at(plane, h) >> (2 * k + s)) & 0x01010101u;  // bit t in byte t
      bits |= ((spread * 0x01020408u) >> 24 & 15) << (16 * h + 4 * k);
    }
  store(qh, bits);
}

// ---- scales ----------------------------------------------------------------------------------------
// Four 6-bit values from bits 0 and 6 of the halves of a word, a byte each.
uint32_t unpair(uint32_t pairs) {
  const auto spread = [](uint32_t half) { return (half & 0x3fu) | (half & 0xfc0u) << 10; };
  return spread(pairs) | spread(pairs >> 16) << 8;
}

void join_scales_6bit(const uint8_t* words, uint8_t* packed) {
  const uint32_t a = word_at(words, 0), b = word_at(words, 1), c = word_at(words, 2);
  const uint32_t late_mins = unpair((a >> 12 & 0x000f000fu) | (b >> 12 & 0x00030003u) << 4 |
                                    (c >> 12 & 0x000f000fu) << 6 | (b >> 14 & 0x00030003u) << 10);
  const uint32_t late_scales = unpair(b);
  store(packed, unpair(a) | (late_scales & 0x30303030u) << 2);
  store(packed + 4, unpair(c) | (late_mins & 0x30303030u) << 2);
  store(packed + 8, (late_scales & 0x0f0f0f0fu) | (late_mins & 0x0f0f0f0fu) << 4);
}

void split_scales_q3(const uint8_t* words, uint8_t* packed) {
  uint8_t scales[16];
  store(scales, swap_inner_bytes(load<Bytes>(words)) + uint8_t{32});
  uint32_t high = 0;
  for (int i = 0; i < 4; ++i) high |= (word_at(scales, i) >> 4 & 0x03030303u) << (2 * i);
  for (int i = 0; i < 2; ++i)
    store(packed + 4 * i, (word_at(scales, i) & 0x0f0f0f0fu) | (word_at(scales, i + 2) & 0x0f0f0f0fu) << 4);
  store(packed + 8, high);
}

// ---- blocks ----------------------------------------------------------------------------------------
template <class P>
void from_image(const Image<P>& image, BlockQ4_K& block) {
  join_scales_6bit(image.words, block.scales);
  std::memcpy(block.qs, image.words + plane<P>(P::kCodes), 128);
}

template <class P>
void from_image(const Image<P>& image, BlockQ5_K& block) {
  join_scales_6bit(image.words, block.scales);
  restore_fifth_bits(image.words + plane<P>(P::kHigh), block.qh);
  std::memcpy(block.qs, image.words + plane<P>(P::kCodes), 128);
}

template <class P>
void from_image(const Image<P>& image, BlockQ6_K& block) {
  store(block.scales, swap_inner_bytes(load<Bytes>(image.words)));
  std::memset(block.ql, 0, sizeof block.ql);
  std::memset(block.qh, 0, sizeof block.qh);
  const auto add = [](uint8_t* to, Bytes bits) { store(to, load<Bytes>(to) | bits); };
  for (int g = 0; g < 4; ++g) {  // groups of 4 sub-blocks
    Bytes codes[4] = {};
    for (int k = 0; k < 3; ++k) {
      const auto line = load<Bytes>(image.words + plane<P>(P::kCodes) + 48 * g + 16 * k);
      codes[k] = line & 63;
      codes[3] |= line >> 6 << (2 * k);
    }
    const int shift = g % 2 * 4;
    for (int k = 0; k < 4; ++k) {
      add(block.ql + g / 2 * 64 + 16 * k, (codes[k] & 15) << shift);
      add(block.qh + g / 2 * 32 + 16 * (k % 2), codes[k] >> 4 << (shift + k / 2 * 2));
    }
  }
}

template <class P>
void from_image(const Image<P>& image, BlockQ3_K& block) {
  split_scales_q3(image.words, block.scales);
  restore_crumbs(image.words + plane<P>(P::kCodes), block.qs);
  Bytes even{}, odd{};
  for (int m = 0; m < 2; ++m) {
    const auto line = load<Bytes>(image.words + plane<P>(P::kHigh) + 16 * m);
    for (int k = 0; k < 8; ++k) (k % 2 == 0 ? even : odd) |= (line >> k & 1) << (4 * m + k / 2);
  }
  store(block.hmask, even);
  store(block.hmask + 16, odd);
}

template <class P>
void from_image(const Image<P>& image, BlockQ2_K& block) {
  store(block.scales, swap_inner_bytes(load<Bytes>(image.words)));
  restore_crumbs(image.words + plane<P>(P::kCodes), block.qs);
}

template <class P>
void from_image(const Image<P>& image, BlockIQ4_XS& block) {
  block.scales_h = 0;
  std::memset(block.scales_l, 0, sizeof block.scales_l);
  for (int s = 0; s < 8; ++s) {
    const auto scale = uint8_t(image.words[s] + 32);
    block.scales_l[s / 2] |= uint8_t((scale & 15) << (4 * (s % 2)));
    block.scales_h |= uint16_t(scale >> 4 << (2 * s));
  }
  const uint8_t* codes = image.words + plane<P>(P::kCodes);
  for (int p = 0; p < 4; ++p) pair_nibbles(codes + 32 * p, codes + 32 * p + 16, block.qs + 32 * p);
}

// The two blocks of a 64-element unit.
template <class P, class B>
void from_image(const Image<P>& image, B* blocks, int n_blocks) {
  const uint8_t* codes = image.words + plane<P>(P::kCodes);
  uint8_t nibbles[32];
  if constexpr (!std::is_same_v<B, BlockQ8_0>) pair_nibbles(codes, codes + 16, nibbles);
  for (int b = 0; b < n_blocks; ++b) {
    if constexpr (std::is_same_v<B, BlockQ8_0>)
      for (int i = 0; i < 32; ++i) blocks[b].qs[i] = int8_t(codes[32 * b + i] ^ 0x80);
    else
      std::memcpy(blocks[b].qs, nibbles + 16 * b, 16);
    if constexpr (requires { P::kHigh; })
      gather_fifth_bits(image.words + plane<P>(P::kHigh), b, blocks[b].qh);
  }
}

template <class P>
void take_header(const std::byte* unit, int b, int r, typename P::Block& block) {
  const auto half_at = [&](int field) { return load<uint16_t>(unit + field + 2 * (kPanelRows * b + r)); };
  if constexpr (P::kItems == 256 && !P::kHasMins) {
    block.d = f32_to_f16(load<float>(unit + P::kD + 4 * r));
  } else {
    block.d = half_at(P::kD);
    if constexpr (requires { P::kDmin; }) block.dmin = half_at(P::kDmin);
    if constexpr (requires { P::kM; }) block.m = half_at(P::kM);
  }
}

template <class P>
void unpack_quantised(const std::byte* panel, int first_row, int n_rows, int64_t cols, std::byte* rows) {
  using B = typename P::Block;
  using S = Shape<P>;
  constexpr int kBlocks = P::kItems / B::kItems;  // of a unit
  const int64_t blocks_per_row = cols / B::kItems;
  for (int64_t first = 0; first < blocks_per_row; first += kBlocks, panel += P::kBytes) {
    const int n_blocks = int(std::min<int64_t>(kBlocks, blocks_per_row - first));
    for (int i = 0; i < n_rows; ++i) {
      const int r = first_row + i;
      Image<P> image;
      for (int l = 0; l < S::kWords; ++l)
        std::memcpy(image.words + 4 * l, panel + S::kWordsAt + 64 * l + 4 * r, 4);
      B* blocks = reinterpret_cast<B*>(rows) + i * blocks_per_row + first;
      for (int b = 0; b < n_blocks; ++b) take_header<P>(panel, b, r, blocks[b]);
      if constexpr (kBlocks == 1)
        from_image(image, *blocks);
      else
        from_image(image, blocks, n_blocks);
    }
  }
}

// Rows of `n` elements, element e of row r at at(e, r) of the panel.
template <class T, class At>
void unpack_elements(const std::byte* panel, int first_row, int n_rows, int64_t n, std::byte* rows, At at) {
  for (int i = 0; i < n_rows; ++i)
    for (int64_t e = 0; e < n; ++e)
      std::memcpy(rows + size_t(i * n + e) * sizeof(T), panel + size_t(at(e, first_row + i)) * sizeof(T),
                  sizeof(T));
}

}  // namespace

void unpack_rows(QuantType type, const std::byte* panel, int first_row, int n_rows, int64_t cols,
                 std::byte* rows) {
  const auto line_of_16 = [](int64_t e, int r) { return kPanelRows * e + r; };
  visit_panel(type, [&]<class P>() {
    if constexpr (std::is_same_v<P, PanelF32>)
      unpack_elements<uint32_t>(panel, first_row, n_rows, cols, rows, line_of_16);
    else if constexpr (std::is_same_v<P, PanelBF16>)  // pairs of elements
      unpack_elements<uint32_t>(panel, first_row, n_rows, cols / 2, rows, line_of_16);
    else if constexpr (std::is_same_v<P, PanelF16>)
      unpack_elements<uint16_t>(panel, first_row, n_rows, cols, rows, line_of_16);
    else if constexpr (P::kItems == 128)
      throw Error(ErrorCode::kInternal,
                  "panels of " + std::string(quant_traits(type).name) + " do not become rows again");
    else
      unpack_quantised<P>(panel, first_row, n_rows, cols, rows);
  });
}

}  // namespace maestrale
