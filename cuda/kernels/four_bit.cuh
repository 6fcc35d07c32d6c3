// SPDX-License-Identifier: Apache-2.0
// The tables of NF4 and FP4 (native/quant/nf4.h) in integers: their values times kLargest, rounded, which
// represents FP4 exactly and NF4 to 8e-5, as on the CPU. They take two bytes, of which each is looked up by
// itself: value = 64 * high + low.
#pragma once

namespace maestrale::device {

struct NF4Table {
  static constexpr int kLargest = 4075;
  static constexpr short kValues[16] = {-4075, -2837, -2140, -1609, -1159, -753, -371, 0,
                                        324,   656,   1003,  1377,  1796,  2293, 2946, 4075};
};
struct FP4Table {
  static constexpr int kLargest = 4032;
  static constexpr short kValues[16] = {0, 21,  2688,  4032,  1344,  2016,  672,  1008,
                                        0, -21, -2688, -4032, -1344, -2016, -672, -1008};
};

// Four bytes of a table from entry 4 `word` on.
template <class Table>
__host__ __device__ constexpr unsigned high_bytes(int word) {
  unsigned bytes = 0;
  for (int i = 0; i < 4; ++i) bytes |= unsigned(Table::kValues[4 * word + i] >> 6 & 255) << 8 * i;
  return bytes;
}
template <class Table>
__host__ __device__ constexpr unsigned low_bytes(int word) {
  unsigned bytes = 0;
  for (int i = 0; i < 4; ++i) bytes |= unsigned(Table::kValues[4 * word + i] & 63) << 8 * i;
  return bytes;
}

}  // namespace maestrale::device
