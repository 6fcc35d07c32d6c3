// SPDX-License-Identifier: Apache-2.0
// Every row is first written as an image (panel_image.h), then 16 images are transposed in vectors of 16
// bytes.
#include "cpu/pack.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "cpu/panel_image.h"

namespace maestrale {
namespace {

using namespace panel_image;

// ---- images ----------------------------------------------------------------------------------------
// 256 codes of 2 bits: byte 16m + l takes those of elements 64m + 16k + l to bits 2k (panel_layout.h); blocks
// hold element 128h + 32g + l at bits 2g of byte 32h + l.
void regroup_crumbs(const uint8_t* qs, uint8_t* out) {
  for (int h = 0; h < 2; ++h)
    for (int m = 0; m < 2; ++m) {
      const auto low = load<Bytes>(qs + 32 * h), high = load<Bytes>(qs + 32 * h + 16);
      const Bytes a = low >> (4 * m), b = high >> (4 * m);
      store(out + 32 * h + 16 * m, (a & 3) | (b & 3) << 2 | (a & 12) << 2 | (b & 12) << 4);
    }
}

// Lines of 4-byte words, two per pair of sub-blocks: bits 2p, 2p + 1 of word 4h + k of qh are the fifth bits
// of sub-blocks 2p, 2p + 1 and go to bits 2k, 2k + 1 of word 2p + h.
void regroup_fifth_bits(const uint8_t* qh, uint8_t* out) {
  for (int p = 0; p < 4; ++p)
    for (int h = 0; h < 2; ++h) {
      uint32_t word = 0;
      for (int k = 0; k < 4; ++k) {
        uint32_t bits;
        std::memcpy(&bits, qh + 16 * h + 4 * k, 4);
        word |= ((bits >> (2 * p)) & 0x03030303u) << (2 * k);
      }
      std::memcpy(out + 4 * (2 * p + h), &word, 4);
    }
}

// The 32 fifth bits of a block of Q5_0 or Q5_1, to bits 2k + s: bit t of each nibble goes to byte t.
void spread_fifth_bits(const uint8_t* qh, int s, uint8_t* out) {
  uint32_t bits;
  std::memcpy(&bits, qh, 4);
  for (int h = 0; h < 2; ++h) {
    uint32_t word;
    std::memcpy(&word, out + 4 * h, 4);
    for (int k = 0; k < 4; ++k) {
      const uint32_t nibble = (bits >> (16 * h + 4 * k)) & 15;
      word |= ((nibble * 0x00204081u) & 0x01010101u) << (2 * k + s);
    }
    std::memcpy(out + 4 * h, &word, 4);
  }
}

// Four 6-bit values, a byte each, to bits 0 and 6 of two halves: the first and the second in the low bits.
uint32_t pair_up(uint32_t bytes) {
  const uint32_t even = bytes & 0x003f003fu, odd = bytes >> 8 & 0x003f003fu;
  return ((even | even >> 10) & 0xfffu) | (odd | odd >> 10) << 16;
}

// 6-bit scales and minima of Q4_K and Q5_K to the three words of panel_layout.h.
void pair_scales(const uint8_t* packed, uint8_t* out) {
  uint32_t scales, mins, low;  // of sub-blocks 0..3, their top bits belong to 4..7
  std::memcpy(&scales, packed, 4);
  std::memcpy(&mins, packed + 4, 4);
  std::memcpy(&low, packed + 8, 4);
  const uint32_t late_mins = pair_up((low >> 4 & 0x0f0f0f0fu) | (mins >> 2 & 0x30303030u));
  const uint32_t words[] = {pair_up(scales) | (late_mins & 0x000f000fu) << 12,
                            pair_up((low & 0x0f0f0f0fu) | (scales >> 2 & 0x30303030u)) |
                                (late_mins >> 4 & 0x00030003u) << 12 | (late_mins >> 10 & 0x00030003u) << 14,
                            pair_up(mins) | (late_mins >> 6 & 0x000f000fu) << 12};
  std::memcpy(out, words, sizeof words);
}

// 6-bit scales of Q3_K, four at a time, to words of signed bytes.
void join_scales(const uint8_t* packed, uint8_t* out) {
  uint32_t low[2], high, joined[4];
  std::memcpy(low, packed, 8);
  std::memcpy(&high, packed + 8, 4);
  for (int i = 0; i < 4; ++i)
    joined[i] = ((low[i % 2] >> (4 * (i / 2))) & 0x0f0f0f0fu) | ((high >> (2 * i)) & 0x03030303u) << 4;
  store(out, swap_inner_bytes(load<Bytes>(joined) - uint8_t{32}));
}

template <class P>
void to_image(const BlockQ4_K& block, Image<P>& image) {
  pair_scales(block.scales, image.words);
  std::memcpy(image.words + plane<P>(P::kCodes), block.qs, 128);
}

template <class P>
void to_image(const BlockQ5_K& block, Image<P>& image) {
  pair_scales(block.scales, image.words);
  regroup_fifth_bits(block.qh, image.words + plane<P>(P::kHigh));
  std::memcpy(image.words + plane<P>(P::kCodes), block.qs, 128);
}

template <class P>
void to_image(const BlockQ6_K& block, Image<P>& image) {
  store(image.words, swap_inner_bytes(load<Bytes>(block.scales)));
  for (int g = 0; g < 4; ++g) {  // groups of 4 sub-blocks
    const uint8_t *ql = block.ql + g / 2 * 64, *qh = block.qh + g / 2 * 32;
    const int shift = g % 2 * 4;
    Bytes codes[4];
    for (int k = 0; k < 4; ++k)
      codes[k] = (load<Bytes>(ql + 16 * k) >> shift & 15) |
                 (load<Bytes>(qh + 16 * (k % 2)) >> (shift + k / 2 * 2) & 3) << 4;
    for (int k = 0; k < 3; ++k)
      store(image.words + plane<P>(P::kCodes) + 48 * g + 16 * k, codes[k] | codes[3] >> (2 * k) << 6);
  }
}

template <class P>
void to_image(const BlockQ3_K& block, Image<P>& image) {
  join_scales(block.scales, image.words);
  regroup_crumbs(block.qs, image.words + plane<P>(P::kCodes));
  uint8_t* out = image.words + plane<P>(P::kHigh);
  const auto even = load<Bytes>(block.hmask), odd = load<Bytes>(block.hmask + 16);
  for (int m = 0; m < 2; ++m) {
    Bytes bits{};
    for (int k = 0; k < 8; ++k) bits |= (((k % 2 == 0 ? even : odd) >> (4 * m + k / 2)) & 1) << k;
    store(out + 16 * m, bits);
  }
}

template <class P>
void to_image(const BlockQ2_K& block, Image<P>& image) {
  store(image.words, swap_inner_bytes(load<Bytes>(block.scales)));
  regroup_crumbs(block.qs, image.words + plane<P>(P::kCodes));
}

template <class P>
void to_image(const BlockIQ4_XS& block, Image<P>& image) {
  int16_t scales[8];
  unpack_scales(block, scales);
  for (int s = 0; s < 8; ++s) image.words[s] = uint8_t(scales[s]);
  for (int p = 0; p < 4; ++p)
    pair_nibbles(block.qs + 32 * p, block.qs + 32 * p + 16, image.words + plane<P>(P::kCodes) + 32 * p);
}

// The two blocks of a 128-element unit: bytes of two codes, the first one in the high nibble, four to a word
// whose halves collect the first and the second codes.
template <class P, FourBitType kType>
void to_image(const BlockFourBit<kType>& first, const BlockFourBit<kType>& second, Image<P>& image) {
  const auto gather_nibbles = [](uint32_t bytes) {  // the low nibbles of 4 bytes
    const uint32_t pairs = (bytes | bytes >> 4) & 0x00ff00ffu;
    return (pairs | pairs >> 8) & 0xffffu;
  };
  for (int l = 0; l < 16; ++l) {
    uint32_t bytes;
    std::memcpy(&bytes, (l < 8 ? first : second).codes + 4 * (l % 8), 4);
    const uint32_t word = gather_nibbles((bytes >> 4) & 0x0f0f0f0fu) | gather_nibbles(bytes & 0x0f0f0f0fu)
                                                                           << 16;
    std::memcpy(image.words + 4 * l, &word, 4);
  }
}

// The two blocks of a 64-element unit.
template <class P, class B>
void to_image(const B& first, const B& second, Image<P>& image) {
  uint8_t* codes = image.words + plane<P>(P::kCodes);
  if constexpr (std::is_same_v<B, BlockQ8_0>) {
    unpack_codes(first, codes);
    unpack_codes(second, codes + 32);
  } else {
    pair_nibbles(first.qs, second.qs, codes);
    if constexpr (requires { P::kHigh; }) {
      uint8_t* high = image.words + plane<P>(P::kHigh);
      std::memset(high, 0, 8);
      spread_fifth_bits(first.qh, 0, high);
      spread_fifth_bits(second.qh, 1, high);
    }
  }
}

// ---- transposes ------------------------------------------------------------------------------------
// 4 rows of 4 words each, `stride` bytes apart, to columns of 4 lines of 16 words.
void transpose_4x4(const void* rows, size_t stride, std::byte* line) {
  const auto* p = static_cast<const std::byte*>(rows);
  const auto a = load<Words>(p), b = load<Words>(p + stride), c = load<Words>(p + 2 * stride),
             d = load<Words>(p + 3 * stride);
  const Words ab0 = __builtin_shufflevector(a, b, 0, 4, 1, 5),
              ab1 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Words cd0 = __builtin_shufflevector(c, d, 0, 4, 1, 5),
              cd1 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  store(line, __builtin_shufflevector(ab0, cd0, 0, 1, 4, 5));
  store(line + 64, __builtin_shufflevector(ab0, cd0, 2, 3, 6, 7));
  store(line + 128, __builtin_shufflevector(ab1, cd1, 0, 1, 4, 5));
  store(line + 192, __builtin_shufflevector(ab1, cd1, 2, 3, 6, 7));
}

// Word l of row r, rows `stride` bytes apart, to word r of line l. What is left of 4 goes word by word.
void transpose_words(const void* rows, size_t stride, int64_t n, std::byte* lines) {
  const auto* p = static_cast<const std::byte*>(rows);
  const int64_t whole = n / 4 * 4;
  for (int64_t l = 0; l < whole; l += 4)
    for (int r = 0; r < kPanelRows; r += 4)
      transpose_4x4(p + 4 * l + size_t(r) * stride, stride, lines + 64 * l + 4 * r);
  for (int64_t l = whole; l < n; ++l)
    for (int r = 0; r < kPanelRows; ++r)
      std::memcpy(lines + 64 * l + 4 * r, p + size_t(r) * stride + 4 * l, 4);
}

// ---- panels ----------------------------------------------------------------------------------------
template <class P>
void put_header(const typename P::Block& block, int b, int r, std::byte* unit) {
  const auto put_half = [&](int field, uint16_t half) {
    std::memcpy(unit + field + 2 * (kPanelRows * b + r), &half, 2);
  };
  if constexpr (P::kItems == 128) {
    put_half(P::kD, f32_to_f16(block.absmax * kFourBitScaleFactor));
  } else if constexpr (P::kItems == 64) {
    put_half(P::kD, block.d);
    if constexpr (P::kHasMins) put_half(P::kM, block.m);
  } else if constexpr (P::kHasMins) {
    put_half(P::kD, block.d);
    put_half(P::kDmin, block.dmin);
  } else {
    const float d = f16_to_f32(block.d);
    std::memcpy(unit + P::kD + 4 * r, &d, 4);
  }
}

template <class P>
void pack_quantised(const std::byte* rows, int n_rows, int64_t cols, std::byte* panel) {
  using B = typename P::Block;
  using S = Shape<P>;
  constexpr int kBlocks = P::kItems / B::kItems;  // of a unit
  const int64_t blocks_per_row = cols / B::kItems;
  const int64_t units = (cols + P::kItems - 1) / P::kItems;
  Image<P> images[kPanelRows];
  std::memset(images, 0, sizeof images);  // rows that are missing stay zero
  for (int64_t u = 0; u < units; ++u, panel += P::kBytes) {
    const int64_t first = u * kBlocks;
    const int n_blocks = int(std::min<int64_t>(kBlocks, blocks_per_row - first));
    if (n_rows < kPanelRows || n_blocks < kBlocks) std::memset(panel, 0, S::kWordsAt);
    for (int r = 0; r < n_rows; ++r) {
      const auto* blocks = reinterpret_cast<const B*>(rows) + r * blocks_per_row + first;
      for (int b = 0; b < n_blocks; ++b) put_header<P>(blocks[b], b, r, panel);
      if constexpr (kBlocks == 1) {
        to_image(blocks[0], images[r]);
      } else {
        static constexpr B kNone{};
        to_image(blocks[0], n_blocks == kBlocks ? blocks[1] : kNone, images[r]);
        // The codes of a missing block are zeros, which is not what Q8_0 stores for zero.
        if constexpr (std::is_same_v<B, BlockQ8_0>)
          if (n_blocks < kBlocks) std::memset(images[r].words + 32, 0, 32);
      }
    }
    transpose_words(images[0].words, sizeof images[0], S::kWords, panel + S::kWordsAt);
  }
}

// Pairs of 16-bit elements to two lines of 16 halves, in place of a line of 16 pairs.
void unzip_pairs(int64_t n, std::byte* lines) {
  for (std::byte* line = lines; line < lines + 64 * n; line += 64) {
    Halves v[4];
    std::memcpy(v, line, sizeof v);
    for (int i = 0; i < 2; ++i) {
      store(line + 16 * i, __builtin_shufflevector(v[2 * i], v[2 * i + 1], 0, 2, 4, 6, 8, 10, 12, 14));
      store(line + 32 + 16 * i, __builtin_shufflevector(v[2 * i], v[2 * i + 1], 1, 3, 5, 7, 9, 11, 13, 15));
    }
  }
}

// Rows of `words` 4-byte words each: an F32 element or a pair of 16-bit ones.
void pack_words(const std::byte* rows, int n_rows, int64_t words, std::byte* panel) {
  if (n_rows == kPanelRows) return transpose_words(rows, size_t(words) * 4, words, panel);
  std::memset(panel, 0, size_t(words) * 64);
  for (int r = 0; r < n_rows; ++r)
    for (int64_t l = 0; l < words; ++l) std::memcpy(panel + 64 * l + 4 * r, rows + 4 * (r * words + l), 4);
}

}  // namespace

void pack_panel(QuantType type, const std::byte* rows, int n_rows, int64_t cols, std::byte* panel) {
  visit_panel(type, [&]<class P>() {
    if constexpr (std::is_same_v<P, PanelF32>) {
      pack_words(rows, n_rows, cols, panel);
    } else if constexpr (std::is_same_v<P, PanelBF16>) {
      pack_words(rows, n_rows, cols / 2, panel);
    } else if constexpr (std::is_same_v<P, PanelF16>) {
      pack_words(rows, n_rows, cols / 2, panel);
      unzip_pairs(cols / 2, panel);
    } else {
      pack_quantised<P>(rows, n_rows, cols, panel);
    }
  });
}

}  // namespace maestrale
