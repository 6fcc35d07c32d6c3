// SPDX-License-Identifier: Apache-2.0
// Reading the tiles of tile_layout.h. For every storage type:
//
//   Head(unit, row)              scales of rows `row` and row + 8 of the stripe
//   codes(unit, lane, t, a)      registers (s, q) of tile t: signed bytes, 2^kShift times the codes; of a
//   type
//                                with a Table codes(unit, lane, t, a, low), for codes of 64 * a + low
//
// Types of 256 weights have integer scales for kSub columns, head.scale(half, j), minima in words of four
// bytes, and head.d[half], head.dmin[half]; those of 32 and 64 have head.d(half, block) and head.m(half,
// block). d takes 2^kShift back.
#pragma once

#include "cuda/tile_layout.h"
#include "four_bit.cuh"
#include "warp.cuh"

namespace maestrale::device {

using namespace cuda;
using Codes = unsigned[2][4];

__device__ inline unsigned load4(const Byte* p) { return __ldg(reinterpret_cast<const unsigned*>(p)); }
__device__ inline uint2 load8(const Byte* p) { return __ldg(reinterpret_cast<const uint2*>(p)); }
__device__ inline uint4 load16(const Byte* p) { return __ldg(reinterpret_cast<const uint4*>(p)); }
__device__ inline float load_half(const Byte* p) {
  return half_bits(__ldg(reinterpret_cast<const unsigned short*>(p)));
}
template <int shift>
__device__ inline unsigned shifted(unsigned word) {
  return shift >= 0 ? word << (shift & 31) : word >> (-shift & 31);
}

// a = the nibbles, at bit `at` of each byte
template <int at>
__device__ inline void nibbles(const Byte* plane, int lane, int t, Codes& a) {
  const uint4 w = load16(plane + 512 * t + 16 * lane);
  const unsigned words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    a[0][q] = shifted<at>(words[q]) & 0x0f0f0f0fu << at;
    a[1][q] = shifted<at - 4>(words[q]) & 0x0f0f0f0fu << at;
  }
}
// a |= the pairs of bits, at bit `at`
template <int at>
__device__ inline void crumbs(const Byte* plane, int lane, int t, Codes& a) {
  const uint2 w = load8(plane + 256 * t + 8 * lane);
#pragma unroll
  for (int s = 0; s < 2; ++s) {
    const unsigned word = s == 0 ? w.x : w.y;
    a[s][0] |= shifted<at>(word) & 0x03030303u << at;
    a[s][1] |= shifted<at - 2>(word) & 0x03030303u << at;
    a[s][2] |= shifted<at - 4>(word) & 0x03030303u << at;
    a[s][3] |= shifted<at - 6>(word) & 0x03030303u << at;
  }
}
// a |= the single bits, at bit `at`
template <int at>
__device__ inline void bits(const Byte* plane, int lane, int t, Codes& a) {
  const unsigned word = load4(plane + 128 * t + 4 * lane);
#pragma unroll
  for (int s = 0; s < 2; ++s)
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const int shift = at - 4 * s - q;
      a[s][q] |= (shift >= 0 ? word << shift : word >> -shift) & 0x01010101u << at;
    }
}
// The entries of a table of 16 signed bytes at nibbles 4 s .. of `word`: two lookups of eight entries, the
// third chooses between them.
template <unsigned t0, unsigned t1, unsigned t2, unsigned t3>
__device__ inline unsigned look_up(unsigned word, int s) {
  const unsigned index = word & 0x77777777, upper = (word & 0x88888888) >> 1 | 0x32103210;
  return __byte_perm(__byte_perm(t0, t1, index >> 16 * s), __byte_perm(t2, t3, index >> 16 * s),
                     upper >> 16 * s);
}
// a = the values of IQ4's table at the nibbles
__device__ inline void table_values(const Byte* plane, int lane, int t, Codes& a) {
  const uint4 w = load16(plane + 512 * t + 16 * lane);
  const unsigned words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
  for (int q = 0; q < 4; ++q)
#pragma unroll
    for (int s = 0; s < 2; ++s)
      a[s][q] = look_up<0xbfad9881, 0xf6eaddcf, 0x26190d01, 0x71594535>(words[q], s);
}

// ---- types of 256 weights ------------------------------------------------------------------------
// Eight scales and minima of 6 bits (native/quant/q4_k.h), four to a word.
struct HeadK {
  unsigned scales[2][2], mins[2][2];
  float d[2], dmin[2];
  __device__ HeadK(const Byte* head, int row) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint4 w = load16(head + 16 * (row + 8 * h));
      d[h] = half_bits(w.x);
      dmin[h] = half_bits(w.x >> 16);
      scales[h][0] = w.y & 0x3f3f3f3f;
      scales[h][1] = (w.w & 0x0f0f0f0f) | (w.y >> 2 & 0x30303030);
      mins[h][0] = w.z & 0x3f3f3f3f;
      mins[h][1] = (w.w >> 4 & 0x0f0f0f0f) | (w.z >> 2 & 0x30303030);
    }
  }
  __device__ int scale(int half, int j) const { return signed_byte(scales[half][j >> 2], j & 3); }
};

struct TiledQ4_K : TileQ4_K {
  static constexpr int kSub = 32, kMinWords = 2;
  struct Head : HeadK {
    __device__ Head(const Byte* unit, int row) : HeadK(unit + kHead, row) {}
  };
  static __device__ void codes(const Byte* unit, int lane, int t, Codes& a) {
    nibbles<0>(unit + kNibbles, lane, t, a);
  }
};

struct TiledQ5_K : TileQ5_K {
  static constexpr int kSub = 32, kMinWords = 2;
  struct Head : HeadK {
    __device__ Head(const Byte* unit, int row) : HeadK(unit + kHead, row) {}
  };
  static __device__ void codes(const Byte* unit, int lane, int t, Codes& a) {
    nibbles<0>(unit + kNibbles, lane, t, a);
    bits<4>(unit + kBits, lane, t, a);
  }
};

struct TiledQ6_K : TileQ6_K {
  static constexpr int kSub = 16, kMinWords = 0, kShift = 2;
  struct Head {
    uint4 words[2];
    float d[2];
    __device__ Head(const Byte* unit, int row) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        words[h] = load16(unit + kScales + 16 * (row + 8 * h));
        d[h] = load_half(unit + kD + 2 * (row + 8 * h)) * (1.0f / (1 << kShift));
      }
    }
    __device__ int scale(int h, int j) const {
      const unsigned w[4] = {words[h].x, words[h].y, words[h].z, words[h].w};
      return signed_byte(w[j >> 2], j & 3);
    }
  };
  static __device__ void codes(const Byte* unit, int lane, int t, Codes& a) {
    nibbles<2>(unit + kNibbles, lane, t, a);
    crumbs<6>(unit + kCrumbs, lane, t, a);
  }
};

struct TiledQ3_K : TileQ3_K {
  static constexpr int kSub = 16, kMinWords = 0, kShift = 5;
  struct Head {
    unsigned scales[2][4];  // times 4, so that the sign of 6 bits is that of a byte
    float d[2];
    __device__ Head(const Byte* unit, int row) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const Byte* p = unit + kScales + 4 * (row + 8 * h);
        const unsigned low = load4(p), next = load4(p + 64), high = load4(p + 128);
        scales[h][0] = ((low << 2 & 0x3c3c3c3c) | (high << 6 & 0xc0c0c0c0)) ^ 0x80808080;
        scales[h][1] = ((next << 2 & 0x3c3c3c3c) | (high << 4 & 0xc0c0c0c0)) ^ 0x80808080;
        scales[h][2] = ((low >> 2 & 0x3c3c3c3c) | (high << 2 & 0xc0c0c0c0)) ^ 0x80808080;
        scales[h][3] = ((next >> 2 & 0x3c3c3c3c) | (high & 0xc0c0c0c0)) ^ 0x80808080;
        d[h] = load_half(unit + kD + 2 * (row + 8 * h)) * (1.0f / (4 << kShift));
      }
    }
    __device__ int scale(int h, int j) const { return signed_byte(scales[h][j >> 2], j & 3); }
  };
  static __device__ void codes(const Byte* unit, int lane, int t, Codes& a) {
#pragma unroll
    for (int i = 0; i < 8; ++i) a[i >> 2][i & 3] = 0;
    crumbs<5>(unit + kCrumbs, lane, t, a);
    bits<7>(unit + kBits, lane, t, a);
  }
};

struct TiledQ2_K : TileQ2_K {
  static constexpr int kSub = 16, kMinWords = 4;
  struct Head {
    unsigned scales[2][4], mins[2][4];
    float d[2], dmin[2];
    __device__ Head(const Byte* unit, int row) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const uint4 w = load16(unit + kScales + 16 * (row + 8 * h));
        const unsigned words[4] = {w.x, w.y, w.z, w.w}, ds = load4(unit + kD + 4 * (row + 8 * h));
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          scales[h][j] = words[j] & 0x0f0f0f0f;
          mins[h][j] = words[j] >> 4 & 0x0f0f0f0f;
        }
        d[h] = half_bits(ds);
        dmin[h] = half_bits(ds >> 16);
      }
    }
    __device__ int scale(int h, int j) const { return signed_byte(scales[h][j >> 2], j & 3); }
  };
  static __device__ void codes(const Byte* unit, int lane, int t, Codes& a) {
#pragma unroll
    for (int i = 0; i < 8; ++i) a[i >> 2][i & 3] = 0;
    crumbs<0>(unit + kCrumbs, lane, t, a);
  }
};

struct TiledIQ4_XS : TileIQ4_XS {
  static constexpr int kSub = 32, kMinWords = 0;
  struct Head {
    unsigned scales[2][2];  // times 4
    float d[2];
    __device__ Head(const Byte* unit, int row) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const uint2 w = load8(unit + kHead + 8 * (row + 8 * h));
        const unsigned high = w.x >> 16 | (w.x & 0xffff0000);
        const unsigned first = (high << 6 & 0x0000c0c0) | (high << 4 & 0xc0c00000);
        const unsigned second = (high << 2 & 0x0000c0c0) | (high & 0xc0c00000);
        scales[h][0] = ((w.y << 2 & 0x3c3c3c3c) | first) ^ 0x80808080;
        scales[h][1] = ((w.y >> 2 & 0x3c3c3c3c) | second) ^ 0x80808080;
        d[h] = half_bits(w.x) * 0.25f;
      }
    }
    __device__ int scale(int h, int j) const { return signed_byte(scales[h][j >> 2], j & 3); }
  };
  static __device__ void codes(const Byte* unit, int lane, int t, Codes& a) {
    table_values(unit + kNibbles, lane, t, a);
  }
};

// ---- types of 32 weights -------------------------------------------------------------------------
// Halves of eight blocks, times `factor`.
struct BlockScales {
  uint4 words[2];
  __device__ BlockScales(const Byte* plane, int row) {
#pragma unroll
    for (int h = 0; h < 2; ++h) words[h] = load16(plane + 16 * (row + 8 * h));
  }
  __device__ float at(int h, int block) const {
    const unsigned w[4] = {words[h].x, words[h].y, words[h].z, words[h].w};
    return half_bits(w[block >> 1] >> 16 * (block & 1));
  }
};
template <class Tile, int kShift>
struct HeadD {
  BlockScales scales;
  __device__ HeadD(const Byte* unit, int row) : scales(unit + Tile::kD, row) {}
  __device__ float d(int h, int block) const { return scales.at(h, block) * (1.0f / (1 << kShift)); }
};
template <class Tile>
struct HeadDM {
  BlockScales scales, mins;
  __device__ HeadDM(const Byte* unit, int row) : scales(unit + Tile::kD, row), mins(unit + Tile::kM, row) {}
  __device__ float d(int h, int block) const { return scales.at(h, block); }
  __device__ float m(int h, int block) const { return mins.at(h, block); }
};

struct TiledQ4_0 : TileQ4_0 {
  static constexpr bool kHasM = false;
  using Head = HeadD<TileQ4_0, 4>;
  static __device__ void codes(const Byte* unit, int lane, int t, Codes& a) {
    nibbles<4>(unit + kNibbles, lane, t, a);
  }
};
struct TiledQ4_1 : TileQ4_1 {
  static constexpr bool kHasM = true;
  using Head = HeadDM<TileQ4_1>;
  static __device__ void codes(const Byte* unit, int lane, int t, Codes& a) {
    nibbles<0>(unit + kNibbles, lane, t, a);
  }
};
struct TiledQ5_0 : TileQ5_0 {
  static constexpr bool kHasM = false;
  using Head = HeadD<TileQ5_0, 3>;
  static __device__ void codes(const Byte* unit, int lane, int t, Codes& a) {
    nibbles<3>(unit + kNibbles, lane, t, a);
    bits<7>(unit + kBits, lane, t, a);
  }
};
struct TiledQ5_1 : TileQ5_1 {
  static constexpr bool kHasM = true;
  using Head = HeadDM<TileQ5_1>;
  static __device__ void codes(const Byte* unit, int lane, int t, Codes& a) {
    nibbles<0>(unit + kNibbles, lane, t, a);
    bits<4>(unit + kBits, lane, t, a);
  }
};
struct TiledQ8_0 : TileQ8_0 {
  static constexpr bool kHasM = false;
  using Head = HeadD<TileQ8_0, 0>;
  static __device__ void codes(const Byte* unit, int lane, int t, Codes& a) {
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      const uint4 w = load16(unit + kCodes + 1024 * t + 512 * s + 16 * lane);
      a[s][0] = w.x, a[s][1] = w.y, a[s][2] = w.z, a[s][3] = w.w;
    }
  }
};
struct TiledIQ4_NL : TileIQ4_NL {
  static constexpr bool kHasM = false;
  using Head = HeadD<TileIQ4_NL, 0>;
  static __device__ void codes(const Byte* unit, int lane, int t, Codes& a) {
    table_values(unit + kNibbles, lane, t, a);
  }
};

// ---- types of 64 weights: their values take two bytes ----------------------------------------------
template <class ValueTable>
struct TiledFourBit : TileFourBit {
  using Table = ValueTable;
  static constexpr bool kHasM = false;
  struct Head {
    uint4 words[2];
    __device__ Head(const Byte* unit, int row) {
#pragma unroll
      for (int h = 0; h < 2; ++h) words[h] = load16(unit + kAbsmax + 16 * (row + 8 * h));
    }
    // Of 32 columns, as in the other types.
    __device__ float d(int h, int block) const {
      const unsigned w[4] = {words[h].x, words[h].y, words[h].z, words[h].w};
      return __fmul_rn(__uint_as_float(w[block >> 1]), 1.0f / Table::kLargest);
    }
  };
  static __device__ void codes(const Byte* unit, int lane, int t, Codes& high, Codes& low) {
    const uint4 w = load16(unit + kNibbles + 512 * t + 16 * lane);
    const unsigned words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int q = 0; q < 4; ++q)
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        high[s][q] =
            look_up<high_bytes<Table>(0), high_bytes<Table>(1), high_bytes<Table>(2), high_bytes<Table>(3)>(
                words[q], s);
        low[s][q] =
            look_up<low_bytes<Table>(0), low_bytes<Table>(1), low_bytes<Table>(2), low_bytes<Table>(3)>(
                words[q], s);
      }
  }
};
using TiledNF4 = TiledFourBit<NF4Table>;
using TiledFP4 = TiledFourBit<FP4Table>;

}  // namespace maestrale::device

// Expands what(Tiled, Format as stored, suffix of the kernel's name) for every quantised type.
#define MAESTRALE_FOR_TILES(what)                                                             \
  what(TiledQ4_0, Q4_0, q4_0) what(TiledQ4_1, Q4_1, q4_1) what(TiledQ5_0, Q5_0, q5_0)         \
      what(TiledQ5_1, Q5_1, q5_1) what(TiledQ8_0, Q8_0, q8_0) what(TiledQ2_K, Q2_K, q2_k)     \
          what(TiledQ3_K, Q3_K, q3_k) what(TiledQ4_K, Q4_K, q4_k) what(TiledQ5_K, Q5_K, q5_k) \
              what(TiledQ6_K, Q6_K, q6_k) what(TiledIQ4_NL, IQ4_NL, iq4_nl)                   \
                  what(TiledIQ4_XS, IQ4_XS, iq4_xs) what(TiledNF4, NF4, nf4) what(TiledFP4, FP4, fp4)
