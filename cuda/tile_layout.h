// SPDX-License-Identifier: Apache-2.0
// How quantised weights lie on the device (T16x64), for the host that repacks and the kernels that multiply.
//
// A stripe is 16 output rows, cut along the input dimension into units of 256 columns; stripes follow each
// other, and so do the units of a stripe. A unit is a head (scales) and planes of codes of four tiles of 16
// x 64. In a tile lane l of a warp owns 32 codes, in registers (s, q), s = 0..1, q = 0..3, of four bytes
// each:
//
//   byte i of register (s, q):   row l / 4 + 8 (q % 2),   column 32 s + 16 (q / 2) + 4 (l % 4) + i
//
// Registers (s, 0..3) are fragment A of mma.m16n8k32 for columns 32 s .., and operands of dp4a. Planes hold
//
//   8 bits:  512 s + 16 l + 4 q + i of the tile's 1024 bytes
//   4 bits:  byte 16 l + 4 q + i of the tile's 512, low nibble s = 0, high s = 1;
//            "serial", for tables: nibble 4 s + i of the word 16 l + 4 q
//   2 bits:  byte 8 l + 4 s + i of the tile's 256, bits 2 q
//   1 bit:   byte 4 l + i of the tile's 128, bit 4 s + q
//
// Signed codes are stored in two's complement; the kernels keep them in the upper bits of a byte, times a
// power of two that the scale takes back. A unit takes as many bytes as its 16 x 256 weights in GGUF.
#pragma once

namespace maestrale::cuda {

inline constexpr int kStripeRows = 16, kUnitCols = 256, kTilesPerUnit = 4;

// Byte offsets within a unit. A head holds what the blocks of GGUF hold beside codes, row by row.
struct TileQ4_K {  // kHead: 16 bytes a row, as GGUF has them: d, dmin, 12 bytes of scales and minima
  static constexpr int kHead = 0, kNibbles = 256, kBytes = 2304;
  static constexpr bool kSerial = false;
};
struct TileQ5_K {
  static constexpr int kHead = 0, kBits = 256, kNibbles = 768, kBytes = 2816;
  static constexpr bool kSerial = false;
};
struct TileQ6_K {  // kScales: 16 signed bytes a row; kD: a half a row; codes - 32
  static constexpr int kScales = 0, kD = 256, kCrumbs = 288, kNibbles = 1312, kBytes = 3360;
  static constexpr bool kSerial = false;
};
struct TileQ3_K {  // kScales: the first of the three words of scales in GGUF of every row, the second, the
                   // third; kD: a half a row; codes - 4
  static constexpr int kScales = 0, kD = 192, kBits = 224, kCrumbs = 736, kBytes = 1760;
};
struct TileQ2_K {  // kScales: 16 bytes a row, scale and minimum; kD: d and dmin of a row
  static constexpr int kScales = 0, kD = 256, kCrumbs = 320, kBytes = 1344;
};
// kHead: 8 bytes a row. The half d; 16 bits h; the word low. Of scale s + 32 byte s % 4 of `low` has the low
// nibble in its half s / 4, and h the upper bits at 4 (s / 4) + 8 (s % 2) + 2 (s / 2 % 2).
struct TileIQ4_XS {
  static constexpr int kHead = 0, kNibbles = 128, kBytes = 2176;
  static constexpr bool kSerial = true;
};
// Types of 32 weights; kD and kM: eight halves a row, one for each block.
struct TileQ4_0 {  // codes - 8
  static constexpr int kD = 0, kNibbles = 256, kBytes = 2304;
  static constexpr bool kSerial = false;
};
struct TileQ4_1 {
  static constexpr int kD = 0, kM = 256, kNibbles = 512, kBytes = 2560;
  static constexpr bool kSerial = false;
};
struct TileQ5_0 {  // codes - 16
  static constexpr int kD = 0, kBits = 256, kNibbles = 768, kBytes = 2816;
  static constexpr bool kSerial = false;
};
struct TileQ5_1 {
  static constexpr int kD = 0, kM = 256, kBits = 512, kNibbles = 1024, kBytes = 3072;
  static constexpr bool kSerial = false;
};
struct TileQ8_0 {
  static constexpr int kD = 0, kCodes = 256, kBytes = 4352;
};
struct TileIQ4_NL {
  static constexpr int kD = 0, kNibbles = 256, kBytes = 2304;
  static constexpr bool kSerial = true;
};

// NF4 and FP4: kAbsmax: of four blocks of 64, binary32, 16 bytes a row.
struct TileFourBit {
  static constexpr int kAbsmax = 0, kNibbles = 256, kBytes = 2304;
  static constexpr bool kSerial = true;
};

// F16 and BF16, as halves for mma.m16n8k16: of columns 32 j .. lane l has 8 l % 4 .. of row l / 4 at byte
// 1024 j + 16 l, and of row l / 4 + 8 at 512 more. BF16 is scaled by a power of two for each row, binary32,
// so that the greatest is below 2^15: the others keep all their bits but those below 2^-24 of it.
struct TileF16 {
  static constexpr int kHalves = 0, kBytes = 8192;
};
struct TileBF16 {
  static constexpr int kScales = 0, kHalves = 64, kBytes = 8256;
};

// Activations: a record for each 256 columns of a row. Byte 64 t + 16 c + 4 g + i is the code of column
// 64 t + 16 g + 4 c + i, so that a lane finds its operands for a tile in 16 bytes. The tail is four times 16
// bytes:
//
//                    0, 1                          2                         3
//   kQ256   sums of 16 codes, 16 bits    sums of 32 codes, 16 bits    the scale, binary32
//   kQ32    eight scales, binary32       sums of 32 codes, 16 bits    -
//
// kQ32Wide, for NF4 and FP4, has codes of 14 bits, 128 * high + low, in two records of the form kQ32: of the
// high codes, and of the low ones with the scale.
inline constexpr int kRecordBytes = 320, kTail = 256;
// In front of the records of all rows, of kQ256: the scales of the first eight rows once more, those of unit
// u this often u + 1 bytes before, so that one sector has them. What is behind the last row stands for
// nothing.
inline constexpr int kScalesBytes = 32;

// For F16 and BF16: the upper halves of 256 columns, their lower halves, and the scale, a power of two in
// binary32. A column is (upper + lower) * scale to 22 bits below the greatest of the unit. A record is 33
// sectors of memory, so that its pieces begin where sectors do.
inline constexpr int kHalfRecordBytes = 1056, kLowerHalves = 512, kHalfScale = 1024;

}  // namespace maestrale::cuda
