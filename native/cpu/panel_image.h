// SPDX-License-Identifier: Apache-2.0
// What lies between a row of GGUF blocks and a panel. A panel is a transpose: the 4 bytes at 4l of a row's
// own image become 4 bytes of line l. An image has the codes combined as the planes of panel_layout.h share
// bytes, which the GGUF blocks nearly do by themselves.
#pragma once

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

// A unit is a header of 16-bit scales (or one f32) and lines of 16 words, in this order.
template <class P>
struct Shape {
  static constexpr int kWordsAt = [] {
    if constexpr (requires { P::kScales; })
      return P::kScales;
    else if constexpr (requires { P::kHigh; })
      return P::kHigh;
    else
      return P::kCodes;
  }();
  static constexpr int kWords = (P::kBytes - kWordsAt) / 64;
  static_assert(kWordsAt + 64 * kWords == P::kBytes);
};

template <class P>
struct Image {
  uint8_t words[4 * Shape<P>::kWords];
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

// Bytes 1 and 2 of each of 4 words change places.
inline Bytes swap_inner_bytes(Bytes x) {
  return __builtin_shufflevector(x, x, 0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
}

}  // namespace maestrale::panel_image
