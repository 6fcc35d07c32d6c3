// SPDX-License-Identifier: Apache-2.0
// repack_<type>: stored rows to the stripes of tile_layout.h, at load.
// Grid (units, stripes), block 128: a warp takes one tile. Behind the last row it comes again, behind the
// last column come zeros.
#pragma once

#include "formats.cuh"
#include "tiles.cuh"

namespace maestrale::device {

// Copies pairs of bytes; stored blocks have no greater alignment.
__device__ inline void copy(Byte* to, const Byte* from, int bytes) {
  for (int i = 0; i < bytes; i += 2)
    *reinterpret_cast<unsigned short*>(to + i) = *reinterpret_cast<const unsigned short*>(from + i);
}

// The head of row r of a unit, whose block is `from`.
__device__ inline void put_head(TileQ4_K, Byte* unit, int r, const Byte* from) {
  copy(unit + 16 * r, from, 16);
}
__device__ inline void put_head(TileQ5_K, Byte* unit, int r, const Byte* from) {
  copy(unit + 16 * r, from, 16);
}
__device__ inline void put_head(TileQ6_K, Byte* unit, int r, const Byte* from) {
  copy(unit + TileQ6_K::kScales + 16 * r, from + 192, 16);
  copy(unit + TileQ6_K::kD + 2 * r, from + 208, 2);
}
__device__ inline void put_head(TileQ3_K, Byte* unit, int r, const Byte* from) {
  for (int w = 0; w < 3; ++w) copy(unit + TileQ3_K::kScales + 64 * w + 4 * r, from + 96 + 4 * w, 4);
  copy(unit + TileQ3_K::kD + 2 * r, from + 108, 2);
}
__device__ inline void put_head(TileQ2_K, Byte* unit, int r, const Byte* from) {
  copy(unit + TileQ2_K::kScales + 16 * r, from, 16);
  copy(unit + TileQ2_K::kD + 4 * r, from + 80, 4);
}
__device__ inline void put_head(TileIQ4_XS, Byte* unit, int r, const Byte* from) {
  unsigned low = 0, high = 0;
  for (int s = 0; s < 8; ++s) {
    low |= unsigned(from[4 + s / 2] >> s % 2 * 4 & 15) << (8 * (s % 4) + 4 * (s / 4));
    high |= unsigned(from[2 + s / 4] >> s % 4 * 2 & 3) << (4 * (s / 4) + 8 * (s % 2) + 2 * (s / 2 % 2));
  }
  const unsigned d = *reinterpret_cast<const unsigned short*>(from);
  *reinterpret_cast<uint2*>(unit + 8 * r) = {d | high << 16, low};
}

template <class Tile, class Stored>
__device__ void repack(const Byte* rows, Byte* out, int n_rows, int cols, long long row_bytes) {
  const int t = threadIdx.x >> 5, lane = threadIdx.x & 31, first = 16 * blockIdx.y, c = lane & 3;
  const int first_chunk = 8 * blockIdx.x, chunks = cols / 32;
  Byte* unit = out + ((long long)blockIdx.y * gridDim.x + blockIdx.x) * Tile::kBytes;
  unsigned word[4] = {}, crumb[2] = {}, bit = 0, whole[2][4] = {};
  for (int q = 0; q < 4; ++q)
    for (int s = 0; s < 2; ++s) {
      const int r = min(first + (lane >> 2) + 8 * (q & 1), n_rows - 1), chunk = first_chunk + 2 * t + s;
      if (chunk >= chunks) continue;
      for (int i = 0; i < 4; ++i) {
        unsigned code = Stored::code(rows + r * row_bytes, chunk, 16 * (q >> 1) + 4 * c + i) ^ Stored::kFlip;
        whole[s][q] |= (code & 255) << 8 * i;
        if constexpr (requires { Tile::kNibbles; }) {
          word[q] |= (code & 15) << (Tile::kSerial ? 16 * s + 4 * i : 8 * i + 4 * s);
          code >>= 4;
        }
        if constexpr (requires { Tile::kCrumbs; }) {
          crumb[s] |= (code & 3) << (8 * i + 2 * q);
          code >>= 2;
        }
        bit |= (code & 1) << (8 * i + 4 * s + q);
      }
    }
  if constexpr (requires { Tile::kNibbles; })
    *reinterpret_cast<uint4*>(unit + Tile::kNibbles + 512 * t + 16 * lane) = {word[0], word[1], word[2],
                                                                              word[3]};
  if constexpr (requires { Tile::kCrumbs; })
    *reinterpret_cast<uint2*>(unit + Tile::kCrumbs + 256 * t + 8 * lane) = {crumb[0], crumb[1]};
  if constexpr (requires { Tile::kBits; })
    *reinterpret_cast<unsigned*>(unit + Tile::kBits + 128 * t + 4 * lane) = bit;
  if constexpr (requires { Tile::kCodes; })
    for (int s = 0; s < 2; ++s)
      *reinterpret_cast<uint4*>(unit + Tile::kCodes + 1024 * t + 512 * s + 16 * lane) = {
          whole[s][0], whole[s][1], whole[s][2], whole[s][3]};

  // Warp 0 writes the heads, a lane those of one row.
  if (t != 0 || lane >= 16) return;
  const Byte* row = rows + min(first + lane, n_rows - 1) * row_bytes;
  if constexpr (requires(Tile tile) { put_head(tile, unit, lane, row); }) {
    put_head(Tile(), unit, lane, row + (long long)blockIdx.x * Stored::kBlockBytes);
  } else if constexpr (requires { Tile::kAbsmax; }) {
    for (int b = 0; b < 4; ++b) {
      const int block = first_chunk / 2 + b;
      const Byte* absmax = row + (long long)block * Stored::kBlockBytes;
      *reinterpret_cast<float*>(unit + Tile::kAbsmax + 16 * lane + 4 * b) =
          2 * block < chunks ? *reinterpret_cast<const float*>(absmax) : 0.0f;
    }
  } else {
    for (int b = 0; b < 8; ++b) {
      const Byte* block = row + (long long)(first_chunk + b) * Stored::kBlockBytes;
      const auto half_at = [&](int at) -> unsigned short {
        return first_chunk + b < chunks ? *reinterpret_cast<const unsigned short*>(block + at) : 0;
      };
      *reinterpret_cast<unsigned short*>(unit + Tile::kD + 16 * lane + 2 * b) = half_at(0);
      if constexpr (requires { Tile::kM; })
        *reinterpret_cast<unsigned short*>(unit + Tile::kM + 16 * lane + 2 * b) = half_at(2);
    }
  }
}

}  // namespace maestrale::device

#define MAESTRALE_REPACK(Tiled, Stored, name)                                                               \
  extern "C" __global__ void __launch_bounds__(128) repack_##name(                                          \
      const unsigned char* rows, unsigned char* out, int n_rows, int cols, long long row_bytes) {           \
    maestrale::device::repack<maestrale::device::Tiled, maestrale::device::Stored>(rows, out, n_rows, cols, \
                                                                                   row_bytes);              \
  }
MAESTRALE_FOR_TILES(MAESTRALE_REPACK)
