// SPDX-License-Identifier: Apache-2.0
// What lies between a row of GGUF blocks and a panel. A panel is a transpose: the 4 bytes at 4l of a row's
// own image become 4 bytes of line l. An image has the codes combined as the planes of panel_layout.h share
// bytes, which the GGUF blocks nearly do by themselves.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "cpu/panel_layout.h"

namespace maestrale::panel_image {

// Vectors of the baseline instruction set of every 64-bit machine.
typedef uint32_t Words __attribute__((vector_size(16)));
typedef uint16_t Halves __attribute__((vector_size(16)));
typedef uint8_t Bytes __attribute__((vector_size(16)));

template <class V>
V load(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class V>
void store(void* p, V v) {
  std::memcpy(p, &v, sizeof v);
}

// A unit is a header of 16-bit scales (or one f32), lines of 16 bytes and lines of 16 words, in this order.
template <class P>
struct Shape {
  static constexpr int kWordsAt = [] {
    if constexpr (requires { P::kHigh; })
      return std::min<int>(P::kHigh, P::kCodes);
    else
      return P::kCodes;
  }();
  static constexpr int kWords = (P::kBytes - kWordsAt) / 64;
  static constexpr int kBytesAt = P::kItems == 256 ? 64 : kWordsAt;
  static constexpr int kByteLines = (kWordsAt - kBytesAt) / 16;
  static_assert(kWordsAt + 64 * kWords == P::kBytes && kBytesAt + 16 * kByteLines == kWordsAt);
};

template <class P>
struct Image {
  uint8_t words[4 * Shape<P>::kWords];
  uint8_t bytes[16];
};

// Where a plane begins in Image::words.
template <class P>
constexpr int plane(int offset) {
  return (offset - Shape<P>::kWordsAt) / 16;
}

// Two halves of 32 codes each, whose nibbles lie as Q4_0 stores them: the first becomes the low nibbles. Done
// to its own results it gives them back.
inline void pair_nibbles(const uint8_t* first, const uint8_t* second, uint8_t* out) {
  const auto a = load<Bytes>(first), b = load<Bytes>(second);
  store(out, (a & 15) | b << 4);
  store(out + 16, a >> 4 | (b & 0xf0));
}

}  // namespace maestrale::panel_image
